# What frames the module in a job: it sets the variables, sees to it that only one job runs in this
# run directory, and records the end. What `setup` does to the shell it shares with this frame must
# not keep the record from being written: so nothing here depends on PATH, on options of the shell,
# on its traps, or on a variable that could have been made readonly: all names begin with `sewer_`.

sewer_id=${SLURM_JOB_ID:-$SEWER_LOCAL_ID}
((!sewer_in_array)) || sewer_id=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
sewer_node=${SLURMD_NODENAME:-$(command -p uname -n)}
sewer_restart=${SLURM_RESTART_COUNT:-0}
if [[ -n $SEWER_LOCAL_ID ]]; then
    sewer_before=() # there is no Slurm that srun could ask
elif ((${#sewer_before[@]})); then
    sewer_before[0]=$(command -v srun || echo srun) # before PATH is what the module is given
fi
sewer_phase=setup
sewer_status=0
sewer_asked=
sewer_module_asked=
sewer_at_exit=
sewer_of_shells=()
declare -A sewer_at_signal=()

declare -A sewer_paths=()
for sewer_name in date env grep ln mv readlink rm stat; do
    sewer_paths[$sewer_name]=$(command -pv "$sewer_name")
done

# Run one of the system's own programs, whatever PATH, libraries and amount of variables the module is given.
sewer_tool() {
    (builtin exec -c "${sewer_paths[$1]}" "${@:2}")
}

# Print a number that may be written like 08; 0 for all that is none.
sewer_count() {
    [[ -z $1 || $1 == *[!0123456789]* || ${#1} -gt 9 ]] && echo 0 || echo "$((10#$1))"
}
sewer_cpus=$(($(sewer_count "$SLURM_CPUS_ON_NODE") * $(sewer_count "${SLURM_JOB_NUM_NODES:-1}")))

# Say what time it is, in seconds since the epoch; bash before 5 does not know it to the microsecond.
sewer_now() {
    local sewer_time
    sewer_time=${EPOCHREALTIME:-$(sewer_tool date +%s)}
    echo "${sewer_time/,/.}"
}
sewer_begin=$(sewer_now)

sewer_say() {
    echo "sewer: $1" >&2
}

# Write $2 to the file $1, whole or not at all.
sewer_write() {
    if (umask 077 && printf '%s\n' "$2" >"$1.$sewer_id") && sewer_tool mv -f -- "$1.$sewer_id" "$1"; then
        return 0 # said, because in a trap it would be the status from before the trap
    fi
    sewer_tool rm -f -- "$1.$sewer_id"
    sewer_say "cannot write $1"
    return 1
}

# Print the size of a file in the run directory; -1 if there is none.
sewer_size() {
    sewer_tool stat -L -c %s -- "$sewer_dir/$1" 2>/dev/null || echo -1
}

# Sleep without a process of its own that could outlive the job.
sewer_sleep() {
    read -r -t "$1" <> <(:) || :
}

# -- The beginning -----------------------------------------------------------------------------------

# Take the run directory for this job. A second job of the same attempt ends here, and so does one
# that was cancelled while nobody could reach Slurm; a job that was requeued goes on.
sewer_claim() {
    if ! sewer_tool ln -s -- "$sewer_id" "$sewer_dir/claim" 2>/dev/null; then
        local owner
        owner=$(sewer_tool readlink -- "$sewer_dir/claim") || {
            sewer_say "cannot write in $sewer_dir"
            exit 73
        }
        if [[ $owner != "$sewer_id" ]]; then
            sewer_say "job $owner runs this attempt; job $sewer_id ends without having run anything"
            exit 75
        fi
    fi
    if [[ -e $sewer_dir/cancelled ]]; then
        sewer_say "cancelled before it began"
        exit 75
    fi
    # Its node may have been given up just when it had come to its end.
    if [[ -e $sewer_dir/exit.json && $(<"$sewer_dir/exit.json") == *'"teardown", "exit_code": 0, "asked": null,'* ]]; then
        sewer_say "it had succeeded when it was requeued, and is not run again"
        exit 0
    fi
    sewer_tool rm -f -- "$sewer_dir/exit.json" "$sewer_dir/result.json" "$sewer_dir/times.txt" \
        "$sewer_dir/usage.txt"
    local record
    printf -v record '{"job_id": "%s", "restart": %d, "node": "%s", "pid": %d, "time": %s}' \
        "$sewer_id" "$sewer_restart" "$sewer_node" "$$" "$sewer_begin"
    sewer_write "$sewer_dir/start.json" "$record" || exit 73
}

# Tell whether the job has begun once more: Slurm gave this node up, which is still alive.
sewer_is_outdated() {
    local sewer_newest
    { sewer_newest=$(<"$sewer_dir/start.json"); } 2>/dev/null && [[ -n $sewer_newest ]] &&
        [[ $sewer_newest != *"\"restart\": $sewer_restart,"* || $sewer_newest != *"\"pid\": $$,"* ]]
}

# Set variables. Those that would keep this shell from its work reach the module by way of `env`.
sewer_load() {
    if ! . "$sewer_dir/$1"; then
        sewer_say "cannot read the variables in $sewer_dir/$1"
        exit 74
    fi
    for sewer_name in POSIXLY_CORRECT FUNCNEST EXECIGNORE GLOBIGNORE; do
        if [[ -n ${!sewer_name+set} ]]; then
            sewer_of_shells+=("$sewer_name=${!sewer_name}")
            unset -v "$sewer_name"
        fi
    done
}

sewer_load_variables() {
    sewer_load environment.sh
    if ((sewer_has_secrets)); then
        sewer_load secrets.sh
        ((sewer_requeue)) || sewer_tool rm -f -- "$sewer_dir/secrets.sh"
    fi
    ((!${#sewer_of_shells[@]})) || sewer_before=("${sewer_paths[env]}" "${sewer_of_shells[@]}" "${sewer_before[@]}")
    # srun would take --export=NONE over from sbatch and start the module with no environment at all.
    unset SLURM_EXPORT_ENV SLURM_GET_USER_ENV SEWER_LOCAL_ID
    export SEWER_RESULT_FILE=$sewer_dir/result.json SEWER_ATTEMPT_ID=$sewer_attempt
}

# What `setup` wants done at the end, or when the job is asked to end, is done beside what is done
# here and not instead. (A function comes before the builtin of the same name.)
trap() {
    [[ ${1-} != -- ]] || shift
    (($# != 1)) || [[ $1 == -* ]] || set -- - "$1"
    if ((BASH_SUBSHELL || $# < 2)) || [[ $1 == -[lp]* ]]; then
        builtin trap "$@"
        return
    fi
    local sewer_handler sewer_name
    sewer_handler=$1 # apart, in case of `set -k`
    shift
    for sewer_name; do
        sewer_name=${sewer_name^^}
        case ${sewer_name#SIG} in
            0 | EXIT) sewer_at_exit=${sewer_handler#-} ;;
            1 | HUP) sewer_trap HUP "$sewer_handler" ;;
            2 | INT) sewer_trap INT "$sewer_handler" ;;
            15 | TERM) sewer_trap TERM "$sewer_handler" ;;
            *) builtin trap -- "$sewer_handler" "$sewer_name" ;;
        esac
    done
}

sewer_trap() {
    sewer_at_signal[$1]=${2#-}
    if [[ -z $2 ]]; then
        builtin trap '' "$1" # ignored, by the module as well
    else
        builtin trap "sewer_ask $1" "$1"
    fi
}

sewer_ask() {
    sewer_asked=$1
    eval "${sewer_at_signal[$1]}"
}

# -- What the job has started ------------------------------------------------------------------------

# List in `sewer_others` all processes that this job has started here and that are still there.
sewer_find_others() {
    local sewer_lines sewer_pid
    builtin set +f
    sewer_others=()
    sewer_lines=$(jobs -pr; sewer_tool grep -lszFx -e "SEWER_ATTEMPT_ID=$sewer_attempt" /proc/[0-9]*/environ)$'\n'
    while [[ -n $sewer_lines ]]; do # a line each, whatever IFS is
        sewer_pid=${sewer_lines%%$'\n'*}
        sewer_pid=${sewer_pid//[!0-9]/}
        sewer_lines=${sewer_lines#*$'\n'}
        # Not the script, the watcher and this shell; nor what is gone, such as the processes that looked.
        [[ $sewer_pid == "$$" || $sewer_pid == "$sewer_watcher" || ! -e /proc/$sewer_pid/exe ]] ||
            sewer_others+=("$sewer_pid")
    done
}

# End them: SIGTERM to each, SIGKILL to what is left after $1 seconds. What has taken its environment
# away and gone into a session of its own, as `env -i setsid` does, is known to Slurm only.
sewer_end_others() {
    local sewer_tries
    for ((sewer_tries = $1 * 5; sewer_tries > -25; sewer_tries--)); do
        sewer_find_others
        ((${#sewer_others[@]})) || return 0
        if ((sewer_tries <= 0)); then
            builtin kill -KILL "${sewer_others[@]}" 2>/dev/null
        elif ((sewer_tries == $1 * 5)); then
            builtin kill -TERM "${sewer_others[@]}" 2>/dev/null
        fi
        sewer_sleep 0.2
    done
}

# Tell whether the script itself still runs, for its watcher. (A link to what it executes is something that
# the dead do not have, even if nobody has collected them; nor does anybody where there is no /proc.)
sewer_lives() {
    [[ -e /proc/$$/exe || ! -e /proc/self/exe ]]
}

# Print when a file in the run directory was last written, in seconds by the clock of the file server; 0 if it is not there.
sewer_written() {
    sewer_tool stat -c %Y -- "$sewer_dir/$1" 2>/dev/null || echo 0
}

# Tell whether no process has followed the job for `orphan_timeout` since it began: a follower touches follower.json.
# The file server stamps all files that are compared, so that the clocks of this node and of the follower do not matter.
sewer_is_orphaned() {
    echo >"$sewer_dir/alive" || return 1
    local sewer_last=$(sewer_written follower.json) sewer_started=$(sewer_written start.json)
    ((sewer_last > sewer_started)) || sewer_last=$sewer_started
    (($(sewer_written alive) - sewer_last > sewer_orphan_timeout)) || return 1
    sewer_write "$sewer_dir/orphaned" "$sewer_orphan_timeout"
}

# End the job when the run directory says so: that works while nobody can reach Slurm. Likewise when it
# has begun once more elsewhere, and what is left of it when the script itself has been killed.
sewer_watch() {
    builtin trap '' TERM INT HUP
    sewer_watcher=$BASHPID
    umask 077
    local sewer_looks=0
    local sewer_pauses=(0.1 0.2 0.4 0.8 1.6 3.2) sewer_round=0 # at first more often, for what short jobs use
    while [[ ! -e $sewer_dir/cancelled ]] && ! sewer_is_outdated && sewer_lives; do
        [[ -z $SEWER_LOCAL_ID ]] || echo >"$sewer_dir/alive" # for other hosts, which have nobody to ask
        # A minute between two looks is short enough for a timeout of hours.
        if ((sewer_orphan_timeout && sewer_looks++ % (sewer_orphan_timeout > 600 ? 12 : 1) == 0)); then
            ! sewer_is_orphaned || break
        fi
        sewer_sleep "${sewer_pauses[sewer_round++]:-5}"
        sewer_sample_usage
    done
    kill -TERM 0
    sewer_end_others "$sewer_grace"
    local sewer_seconds
    for ((sewer_seconds = 30; sewer_seconds > 0; sewer_seconds--)); do # for `teardown`, and for the record
        sewer_lives || break
        sewer_sleep 1
    done
    kill -KILL 0
}

# -- The module, and the end -------------------------------------------------------------------------

sewer_run() {
    builtin set +k
    [[ -z $sewer_asked ]] || exit 143
    builtin cd -- "$sewer_workdir" || exit 72
    sewer_from=$(sewer_size stdout.log)
    sewer_phase=module
    export -n "${!sewer_@}" # in case of `set -a`
    ${sewer_before[@]+"${sewer_before[@]}"} "$@" || sewer_status=$?
    # Slurm asks a step to end before it asks this script: a module that has heard may be over first, with 0.
    ((sewer_status || ! ${#sewer_before[@]})) || sewer_sleep 2
    sewer_module_asked=$sewer_asked
    sewer_phase=teardown
    sewer_to=$(sewer_size stdout.log)
}

sewer_end() {
    sewer_exit=$?
    builtin trap - EXIT
    builtin set +efukC +o posix
    unset -v EXECIGNORE FUNCNEST GLOBIGNORE
    (eval "$sewer_at_exit") # apart, so that an `exit` in it is not ours
    builtin trap '' TERM INT HUP
    builtin kill -KILL "$sewer_watcher" 2>/dev/null
    if [[ $sewer_phase == teardown ]]; then
        sewer_exit=$sewer_status
    else
        sewer_module_asked=$sewer_asked
    fi
    sewer_end_others 2 # before the logs are measured
    if sewer_is_outdated; then
        sewer_say "the job has begun once more meanwhile; this run of it records nothing"
        exit 75
    fi
    sewer_record "$sewer_exit" || exit 73
    # Nothing is left of the secrets of a job that can be requeued, unless that is what is happening.
    [[ -n $sewer_asked ]] || sewer_tool rm -f -- "$sewer_dir/secrets.sh"
    [[ ! -e $sewer_dir/alive ]] || sewer_tool rm -f -- "$sewer_dir/alive"
    [[ $sewer_phase == teardown ]] || ((sewer_exit)) || sewer_exit=1 # Slurm is not to call it COMPLETED
    exit "$sewer_exit"
}

sewer_record() {
    umask 077
    [[ $sewer_nodes != 1 ]] || times >"$sewer_dir/times.txt"
    local sewer_by=null sewer_out sewer_err sewer_text
    [[ -z $sewer_module_asked ]] || sewer_by="\"$sewer_module_asked\""
    sewer_out=$(sewer_size stdout.log) sewer_err=$(sewer_size stderr.log)
    printf -v sewer_text '{"job_id": "%s", "restart": %d, "node": "%s", "phase": "%s", "exit_code": %d, "asked": %s, "start": %s, "end": %s, "stdout": %d, "stderr": %d, "module_stdout": [%d, %d], "result": %d, "cpus": %d}' \
        "$sewer_id" "$sewer_restart" "$sewer_node" "$sewer_phase" "$1" "$sewer_by" "$sewer_begin" "$(sewer_now)" \
        "$sewer_out" "$sewer_err" "${sewer_from:-0}" "${sewer_to:-$sewer_out}" "$(sewer_size result.json)" "$sewer_cpus"
    sewer_write "$sewer_dir/exit.json" "$sewer_text"
}

sewer_claim
builtin trap sewer_end EXIT
sewer_trap TERM -
sewer_trap INT -
sewer_trap HUP -
sewer_watch </dev/null >/dev/null 2>&1 &
sewer_watcher=$!
disown "$sewer_watcher"
sewer_load_variables
