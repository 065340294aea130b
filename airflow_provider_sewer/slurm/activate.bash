# Let program names resolve to the interpreter's environment (see `execution/activation.py`). `setup` follows this, so
# that its changes to PATH take precedence.
sewer_folder=${sewer_python%/*}
if [[ ! -f ${sewer_folder%/*}/pyvenv.cfg ]]; then # Python follows a link, unless it lies in an environment
    sewer_folder=$(sewer_tool readlink -f -- "$sewer_python")
    sewer_folder=${sewer_folder%/*}
fi
sewer_prefix=${sewer_folder%/*}

# Return whether PATH leads to this interpreter anyway: it is in a folder of the system, and no other one precedes it.
sewer_is_found() {
    [[ $sewer_folder == @(/bin|/usr/bin|/usr/local/bin) && :$PATH: == *":$sewer_folder:"* ]] || return 1
    local sewer_found
    for sewer_name in python python3; do
        sewer_found=$(type -P "$sewer_name") || continue
        [[ $sewer_found -ef $sewer_python ]] || return 1
    done
}

for sewer_name in "${sewer_active[@]}"; do
    case $sewer_name in
        PATH) [[ -z $sewer_folder ]] || sewer_is_found || export PATH="$sewer_folder${PATH:+:$PATH}" ;;
        VIRTUAL_ENV) [[ -f $sewer_prefix/pyvenv.cfg ]] && export VIRTUAL_ENV=$sewer_prefix || unset -v VIRTUAL_ENV ;;
        CONDA_PREFIX) [[ -d $sewer_prefix/conda-meta ]] && export CONDA_PREFIX=$sewer_prefix || unset -v CONDA_PREFIX ;;
    esac
done
