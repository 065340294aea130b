# The system's own programs, with any PATH. A short job consists of the start of processes: so its script starts as few as
# it can.
declare -A sewer_paths=()
for sewer_name in date env grep ln mv readlink rm stat tail timeout touch tr; do
    sewer_paths[$sewer_name]=/usr/bin/$sewer_name
    [[ -x ${sewer_paths[$sewer_name]} ]] || sewer_paths[$sewer_name]=$(command -pv "$sewer_name")
done

# Become one of them, without the variables of the module: these may be too many, or choose other libraries.
sewer_become() {
    builtin exec -c "${sewer_paths[$1]}" "${@:2}"
}

# Run one.
sewer_tool() {
    (sewer_become "$@")
}

# Remove those of these files that exist.
sewer_remove() {
    local sewer_file sewer_files=()
    for sewer_file; do
        [[ ! -e $sewer_file && ! -L $sewer_file ]] || sewer_files+=("$sewer_file")
    done
    ((!${#sewer_files[@]})) || sewer_tool rm -f -- "${sewer_files[@]}"
}
