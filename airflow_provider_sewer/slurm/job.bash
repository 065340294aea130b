# Frame of the module in a job: it sets the variables, lets only one job run in this job directory, and
# records the end. `setup` shares this shell, and no change that it makes may prevent the record: so
# nothing here depends on PATH, on options of the shell, on its traps, or on a variable that could have
# been made readonly: all names begin with `sewer_`.

# -- Two shells ----------------------------------------------------------------------------------------

# Slurm signals this script; under proctrack/cgroup it signals no other process. A shell runs no trap while it waits for
# a command in the foreground, such as a line of `setup`. So the first shell, the supervisor, does nothing but pass on
# signals; the second one, which reads this file again, does the work. The second shell listens to real-time signals,
# one for each signal that is passed on: so it can distinguish a signal that Slurm has sent to all processes, module
# included (proctrack/linuxproc), from one that has reached the supervisor only.
sewer_signals=(TERM INT HUP USR1 USR2) # passed on as RTMIN+1 and so on
sewer_numbers=(15 2 1 10 12)
# SIGCONT has no trap: Slurm sends it just before SIGTERM, and of two signals that arrive at the same moment bash loses
# one during `wait`. The module gets it together with SIGTERM.

# bash runs a trap that is due while it expands `$(…)` or `<(…)`, and then cannot parse the trap: the signal is lost, and
# so may be the command. Backquotes are safe. So no other substitution is used where a signal has a trap.

# Sleep without a separate process, which could outlive the job.
sewer_sleep() {
    builtin read -r -t "$1" -u "$sewer_silent" || :
}

# Return whether signal number $3 is in a set of process $1: SigCgt, those that have a trap, or ShdPnd, the pending ones.
sewer_has() {
    local sewer_key sewer_value
    while read -r sewer_key sewer_value; do
        [[ $sewer_key != "$2:" ]] || ! ((0x$sewer_value >> ($3 - 1) & 1)) || return 0
    done <"/proc/$1/status"
    return 1
} 2>/dev/null

# Send signal $1 to the children of process $2.
sewer_signal_children() {
    local sewer_file sewer_line sewer_words
    for sewer_file in /proc/[0-9]*/stat; do
        read -r sewer_line <"$sewer_file" || continue
        sewer_words=(${sewer_line##*) }) # the name before it may hold anything; `<<<` would need space in /tmp
        [[ ${sewer_words[1]-} != "$2" ]] || builtin kill -s "$1" "${sewer_line%% *}" || :
    done
} 2>/dev/null

# Return whether process $1 still runs. An ended process has no link to its program, even before its parent has collected
# it; nor has any process where there is no /proc.
sewer_lives() {
    [[ -e /proc/$1/exe || ! -e /proc/self/exe ]]
}

# Pass on the signal of this number in `sewer_signals`. During `setup` the second shell does not listen yet: then the
# command that it waits for has to end first, and a substitution in `setup` may lose the signal, so it is sent again.
# Before that shell can record its end, it gets none.
sewer_pass_on() {
    local sewer_signal=${sewer_signals[$1]} sewer_number=$((sewer_first + $1)) sewer_tries
    [[ -z $SEWER_LOCAL_ID ]] || sewer_sleep 0.2 # there all processes are signalled, in no order
    if sewer_has "$sewer_shell" SigCgt "$sewer_number"; then
        # If Slurm has signalled the second shell, too, it did so before: that must have arrived.
        for ((sewer_tries = 100; sewer_tries > 0; sewer_tries--)); do
            sewer_has "$sewer_shell" ShdPnd "${sewer_numbers[$1]}" || break
            sewer_sleep 0.01
        done
        builtin kill -s "$sewer_number" "$sewer_shell"
        sewer_again=
    elif [[ $sewer_signal == @(TERM|INT|HUP) ]]; then
        sewer_again=$1
        [[ -n $sewer_process ]] || return
        builtin kill -s "$sewer_signal" "$sewer_shell"
        [[ -n $sewer_is_sent ]] || sewer_signal_children "$sewer_signal" "$sewer_shell"
        sewer_is_sent=1
    fi
} 2>/dev/null

# Print the word $1 for `sewer_wait_for`. A `read` that times out may lose a byte, often so before bash 5.0 on a busy node:
# so the word stands twice in a line, and the line twice. The empty line counts if the lost byte ends the first line.
sewer_print() {
    builtin echo "$1 $1"$'\n\n'"$1 $1"
}

# Wait for process $1, and leave its exit code in `sewer_status`. The supervisor passes on meanwhile the signals that its
# traps have set in `sewer_noted`, and the second shell those in `sewer_early`, once `sewer_process` is known.
# `wait` is of no use here: it does not end for a signal that comes just before it blocks, it may miss the end of a
# process that comes together with a signal, and after a signal it can return the number of that signal for ever. So this
# shell reads a pipe: the process writes a line when it is ready and one when it ends, and traps write one. The timeout
# bounds the delay of a signal that comes just before `read` blocks.
sewer_wait_for() {
    local sewer_line= sewer_word sewer_has_ended= sewer_timeout sewer_number sewer_tries REPLY
    sewer_status=
    while [[ -z $sewer_status ]]; do
        sewer_lives "$1" || sewer_has_ended=1
        [[ -z $sewer_has_ended$sewer_again ]] && sewer_timeout=1 || sewer_timeout=0.1
        if builtin read -r -t "$sewer_timeout" -u "$sewer_pipe"; then
            sewer_line+=$REPLY # with any IFS
            sewer_word=${sewer_line% *}
            if [[ $sewer_line == "$sewer_word $sewer_word" && $sewer_word == process=* ]]; then
                sewer_process=${sewer_word#*=}
                for sewer_word in ${sewer_early[@]+"${sewer_early[@]}"}; do
                    sewer_forward "$sewer_word"
                done
                sewer_early=()
            elif [[ $sewer_line == "$sewer_word $sewer_word" ]]; then
                sewer_status=$sewer_word
                sewer_is_known=1
            fi
            sewer_line=
        elif [[ -n $sewer_has_ended ]]; then
            break
        else
            sewer_line+=$REPLY
            [[ -z $sewer_again ]] || sewer_pass_on "$sewer_again"
        fi
        for sewer_number in "${!sewer_noted[@]}"; do
            unset -v "sewer_noted[$sewer_number]"
            sewer_pass_on "$sewer_number"
        done
    done
    if [[ -z $sewer_status ]]; then # it has ended before it could write a line
        sewer_status=0
        wait "$1" || sewer_status=$?
    fi
    for ((sewer_tries = 100; sewer_tries > 0; sewer_tries--)); do # `times` counts it when it has ended
        sewer_lives "$1" || break
        sewer_sleep 0.01
    done
}

sewer_noted=() sewer_early=() sewer_again= sewer_is_sent= sewer_is_known= sewer_process=
if [[ ${SEWER_SUPERVISOR-} != "$PPID" ]]; then
    exec {sewer_silent}<> <(:) {sewer_pipe}<> <(:) {sewer_second_pipe}<> <(:)
    builtin kill -l RTMIN+1 >&"$sewer_silent" # unlike a substitution, this starts no process
    builtin read -r -u "$sewer_silent" sewer_first
    for sewer_number in "${!sewer_signals[@]}"; do
        trap "[[ -n \${sewer_noted[$sewer_number]-} ]] || { sewer_noted[$sewer_number]=1; echo >&$sewer_pipe; }" \
            "${sewer_signals[sewer_number]}"
    done
    set -m # for a separate process group; otherwise a background process cannot be interrupted
    SEWER_SUPERVISOR=$$ SEWER_FIRST=$sewer_first SEWER_PIPES="$sewer_silent $sewer_second_pipe $sewer_pipe" \
        /bin/bash "$0" {sewer_pipe}>&- &
    sewer_shell=$!
    set +m
    sewer_wait_for "$sewer_shell"
    if [[ -z $sewer_is_known ]]; then # there is no record
        ((sewer_status != 137)) || kill -KILL $$ # Slurm reports a signal only if that ends this shell as well
        ((sewer_status)) || sewer_status=1       # Slurm must not report COMPLETED
    fi
    exit "$sewer_status"
fi
builtin trap '' "${sewer_signals[@]}" # until it can record its end; the supervisor waits for that, too
sewer_supervisor=$SEWER_SUPERVISOR
sewer_pipes=($SEWER_PIPES)
sewer_silent=${sewer_pipes[0]} sewer_pipe=${sewer_pipes[1]}
sewer_first=$SEWER_FIRST
unset SEWER_SUPERVISOR SEWER_PIPES SEWER_FIRST

# Send the word $1 to the supervisor. `setup` may have given the number of any descriptor to another file.
sewer_tell() {
    sewer_print "$1" >"/proc/$sewer_supervisor/fd/${sewer_pipes[2]}"
} 2>/dev/null

# Open the pipes again if `setup` has closed them, or has opened other files in their place.
sewer_open_pipes() {
    local sewer_fds=/proc/$sewer_supervisor/fd
    [[ ! /proc/$$/fd/$sewer_silent -ef $sewer_fds/${sewer_pipes[0]} ||
        ! /proc/$$/fd/$sewer_pipe -ef $sewer_fds/${sewer_pipes[1]} ]] || return 0
    builtin shopt -u varredir_close || : # unknown to bash before 5.2
    builtin command exec {sewer_silent}<>"$sewer_fds/${sewer_pipes[0]}" {sewer_pipe}<>"$sewer_fds/${sewer_pipes[1]}" || :
} 2>/dev/null

# -- Names and tools -----------------------------------------------------------------------------------

sewer_job=$SLURM_JOB_ID
sewer_is_local=${SEWER_LOCAL_ID:+1}
sewer_id=${SLURM_JOB_ID:-$SEWER_LOCAL_ID}
((!sewer_in_array)) || sewer_id=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
sewer_node=${SLURMD_NODENAME:-$(command -p uname -n)}
sewer_restart=${SLURM_RESTART_COUNT:-0}
if [[ -n $SEWER_LOCAL_ID ]]; then
    sewer_before=() # srun has no Slurm to query
elif ((${#sewer_before[@]})); then
    sewer_before[0]=$(command -v srun || echo srun) # before PATH is that of the module
fi
sewer_uses_srun=${#sewer_before[@]}
sewer_path=$PATH sewer_conf=${SLURM_CONF-} # for squeue
sewer_phase=setup
sewer_status=0
sewer_is_ending=
sewer_asked=
sewer_module_asked=
sewer_unsignalled=false
sewer_is_unread=
sewer_at_exit=
sewer_of_shells=()
sewer_due=()
sewer_trapped=()
declare -A sewer_at_signal=() sewer_ignores=() sewer_has_come=()

# Multiply `sewer_cpus` by a number, which may be written like 08; by 0 for any other text.
sewer_multiply() {
    [[ -n $1 && $1 != *[!0123456789]* && ${#1} -le 9 ]] && ((sewer_cpus *= 10#$1, 1)) || sewer_cpus=0
}
sewer_cpus=1
sewer_multiply "$SLURM_CPUS_ON_NODE"
sewer_multiply "${SLURM_JOB_NUM_NODES:-1}"

# Set `sewer_now` to the time in seconds since the epoch; bash before 5 does not know it to the microsecond.
sewer_set_now() {
    sewer_now=${EPOCHREALTIME:-`sewer_become date +%s`}
    sewer_now=${sewer_now/,/.}
}
sewer_set_now
sewer_begin=$sewer_now

sewer_say() {
    echo "sewer: $1" >&2
}

# Run a command with stdout in file $1, which is created if it is missing. Another process can put a pipe there at any
# moment: only `<>` opens a pipe without waiting for another process, and only the opened file can be checked.
sewer_into() {
    [[ -f /proc/self/fd/1 ]] && "${@:2}"
} 1<>"$1"

# Write $2 to the file $1 atomically.
sewer_write() {
    sewer_remove "$1.$sewer_id"
    if (umask 077 && sewer_into "$1.$sewer_id" printf '%s\n' "$2" && sewer_become mv -fT -- "$1.$sewer_id" "$1"); then
        return 0 # explicit, because in a trap it would be the status from before the trap
    fi
    sewer_remove "$1.$sewer_id"
    sewer_say "cannot write $1"
    return 1
}

declare -A sewer_sizes=()

# Put the sizes of these files of the job directory into `sewer_sizes`; -1 for one that does not exist.
sewer_measure() {
    local sewer_name sewer_names=() sewer_line sewer_lines
    for sewer_name; do
        sewer_sizes[$sewer_name]=-1
        [[ ! -e $sewer_dir/$sewer_name ]] || sewer_sizes[$sewer_name]=0
        [[ ! -s $sewer_dir/$sewer_name ]] || sewer_names+=("$sewer_name")
    done
    ((${#sewer_names[@]})) || return 0
    sewer_lines=`builtin cd -- "$sewer_dir" && sewer_become stat -L -c %n=%s -- "${sewer_names[@]}" 2>/dev/null`$'\n' || :
    while [[ $sewer_lines == *=* ]]; do # a line each, with any IFS
        sewer_line=${sewer_lines%%$'\n'*} sewer_lines=${sewer_lines#*$'\n'}
        sewer_sizes[${sewer_line%%=*}]=${sewer_line#*=}
    done
}

# The sizes of the logs so far: an earlier run of the job has written them.
sewer_measure stderr.log stdout.log
sewer_stderr_from=${sewer_sizes[stderr.log]} sewer_stdout_from=${sewer_sizes[stdout.log]}

# -- The beginning -----------------------------------------------------------------------------------

# Claim the job directory for this job. A second job of the same attempt ends here, and so does one
# that was cancelled while Slurm was unreachable; a job that was requeued goes on.
sewer_claim() {
    if ! sewer_tool ln -sT -- "$sewer_id" "$sewer_dir/claim" 2>/dev/null; then
        local owner
        owner=$(sewer_tool readlink -- "$sewer_dir/claim") || {
            sewer_say "cannot write in $sewer_dir"
            exit 73
        }
        if [[ $owner != "$sewer_id" ]]; then
            sewer_say "job $owner runs this attempt; job $sewer_id ends without running anything"
            exit 75
        fi
    fi
    if [[ -e $sewer_dir/cancelled ]]; then
        sewer_say "cancelled before it began"
        exit 75
    fi
    # Its node may have been given up just when it had ended, or during `teardown`.
    if [[ -f $sewer_dir/exit.json && $(<"$sewer_dir/exit.json") == *'"teardown", "exit_code": 0, "asked": null, "unsignalled": true,'* ]]; then
        sewer_say "already succeeded when it was requeued; not run again"
        sewer_leave 0
    fi
    sewer_remove "$sewer_dir"/{exit.json,result.json,times.txt,usage.txt,steps}
    local record
    printf -v record '{"format": 1, "job_id": "%s", "restart": %d, "node": "%s", "pid": %d, "time": %s}' \
        "$sewer_id" "$sewer_restart" "$sewer_node" "$$" "$sewer_begin"
    sewer_write "$sewer_dir/start.json" "$record" || exit 73
}

# Return whether the job has begun again: Slurm gave this node up, which is still alive.
sewer_is_outdated() {
    local sewer_newest
    [[ -f $sewer_dir/start.json ]] && { # `<>` would create it
        [[ -f /proc/self/fd/0 ]] && IFS= builtin read -r sewer_newest
    } <>"$sewer_dir/start.json" 2>/dev/null && [[ -n $sewer_newest ]] &&
        [[ $sewer_newest != *"\"restart\": $sewer_restart,"* || $sewer_newest != *"\"pid\": $$,"* ]]
}

# Set variables. Those that would break this shell reach the module through `env`.
sewer_load() {
    if [[ ! -f $sewer_dir/$1 ]] || ! . "$sewer_dir/$1"; then
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
    # srun would inherit --export=NONE from sbatch and start the module without any environment.
    unset SLURM_EXPORT_ENV SLURM_GET_USER_ENV SEWER_LOCAL_ID
    export SEWER_RESULT_FILE=$sewer_dir/result.json SEWER_ATTEMPT_ID=$sewer_attempt
}

# Traps of `setup` for the end, or for a request to end, run in addition to those here, and not instead.
# (A function precedes the builtin of the same name.)
trap() {
    [[ ${1-} != -- ]] || shift
    (($# != 1)) || [[ $1 == -* ]] || set -- - "$1"
    if ((BASH_SUBSHELL || $# < 2)) || [[ $1 == -[lp]* ]]; then
        builtin trap "$@"
        return
    fi
    local sewer_handler sewer_name
    sewer_handler=$1 # separately, in case of `set -k`
    shift
    for sewer_name; do
        sewer_name=${sewer_name^^}
        case ${sewer_name#SIG} in
            0 | EXIT) sewer_at_exit=${sewer_handler#-} ;;
            1 | HUP) sewer_trap HUP "$sewer_handler" ;;
            2 | INT) sewer_trap INT "$sewer_handler" ;;
            10 | USR1) sewer_trap USR1 "$sewer_handler" ;;
            12 | USR2) sewer_trap USR2 "$sewer_handler" ;;
            15 | TERM) sewer_trap TERM "$sewer_handler" ;;
            *)
                sewer_trapped+=("$sewer_name")
                builtin trap -- "$sewer_handler" "$sewer_name"
                ;;
        esac
    done
}

sewer_trap() {
    sewer_at_signal[$1]=${2#-}
    sewer_ignores[$1]=
    if [[ -z $2 ]]; then
        sewer_ignores[$1]=1
        builtin trap '' "$1" # ignored, by the module as well unless it handles the signal
    else
        builtin trap "sewer_hear $1" "$1"
    fi
}

# Handle a signal that was sent to this shell itself. Its sender sends it to the module, too, if that has started.
sewer_hear() {
    sewer_has_come[$1]=1
    [[ -n $sewer_process ]] || sewer_forward "$1"
    sewer_heed "$1"
}

# Handle a signal from the supervisor. The module gets it now, unless it has it already: twice, it may mean something else.
sewer_take() {
    if [[ -n ${sewer_has_come[$1]-} ]]; then
        [[ $1 == TERM ]] || sewer_has_come[$1]= # valid once
        return 0
    fi
    [[ $1 != TERM ]] || sewer_has_come[TERM]=1
    sewer_forward "$1"
    sewer_heed "$1"
}

# Slurm itself signals the tasks that srun has started; srun would end them.
sewer_forward() {
    if [[ -z $sewer_process ]]; then
        [[ $sewer_phase != module ]] || sewer_early+=("$1")
        return 0
    fi
    ((!sewer_uses_srun)) || [[ $1 != TERM || -e $sewer_dir/cancelled || -e $sewer_dir/orphaned ]] || return 0
    [[ $1 != TERM ]] || builtin kill -s CONT "$sewer_process" 2>/dev/null || :
    builtin kill -s "$1" "$sewer_process" 2>/dev/null || :
}

# Record that the job was asked to end, and run the trap of `setup`: as in any shell, after the present command.
sewer_heed() {
    [[ -z ${sewer_ignores[$1]-} ]] || return 0
    [[ $1 != @(TERM|INT|HUP) ]] || sewer_asked=$1
    [[ -z $sewer_is_ending ]] || return 0 # an `exit` would leave no record
    if [[ $sewer_phase == module ]]; then
        sewer_due+=("$1")
        return 0
    fi
    eval "${sewer_at_signal[$1]-}"
    if [[ $sewer_phase == setup && -n $sewer_asked ]]; then
        builtin trap '' TERM INT HUP # a second one must not interrupt the record of the end
        exit 143
    fi
}

# -- Processes of the job ----------------------------------------------------------------------------

# List in `sewer_others` all processes that this job has started here and that still run.
sewer_find_others() {
    local sewer_lines sewer_pid
    builtin set +f
    sewer_others=()
    sewer_lines=$(jobs -pr; sewer_become grep -lszFx -e "SEWER_ATTEMPT_ID=$sewer_attempt" /proc/[0-9]*/environ)$'\n'
    while [[ -n $sewer_lines ]]; do # a line each, with any IFS
        sewer_pid=${sewer_lines%%$'\n'*}
        sewer_pid=${sewer_pid//[!0-9]/}
        sewer_lines=${sewer_lines#*$'\n'}
        # Not the script's two shells, the watcher and this shell; nor ended processes, such as those of this listing.
        [[ $sewer_pid == "$$" || $sewer_pid == "$sewer_watcher" || $sewer_pid == "$sewer_supervisor" || ! -e /proc/$sewer_pid/exe ]] ||
            sewer_others+=("$sewer_pid")
    done
}

# End them: SIGTERM to each, SIGKILL to those left after $1 seconds. Only Slurm knows a process that has
# cleared its environment and left the session, as `env -i setsid` does.
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

# Return whether no process has monitored the job for `orphan_timeout` since it began: a monitor touches monitor.json.
# The file server stamps all files that are compared, so that the clocks of this node and of the monitor do not matter.
sewer_is_orphaned() {
    sewer_tool touch -- "$sewer_dir/alive" || return 1 # unlike a redirection, it does not block at a pipe
    local sewer_times # a missing file has none
    sewer_times=($(sewer_become stat -c %Y -- "$sewer_dir"/{alive,start.json,monitor.json} 2>/dev/null))
    local sewer_last=${sewer_times[1]-0}
    ((${sewer_times[2]-0} <= sewer_last)) || sewer_last=${sewer_times[2]}
    ((${sewer_times[0]-0} - sewer_last > sewer_orphan_timeout)) || return 1
    sewer_write "$sewer_dir/orphaned" "$sewer_orphan_timeout"
}

# Record in the job directory that the module has started its own srun.
sewer_find_srun() {
    local sewer_pid sewer_line
    ((!sewer_uses_srun)) && [[ -z $sewer_is_local && ! -e $sewer_dir/steps ]] || return 0
    for sewer_pid in ${sewer_others[@]+"${sewer_others[@]}"}; do
        read -r sewer_line <"/proc/$sewer_pid/comm" && [[ $sewer_line == srun ]] || continue
        sewer_tool touch -- "$sewer_dir/steps"
    done
}

# End the job when it is cancelled through the job directory: that works while Slurm is unreachable. Likewise
# when it has begun again elsewhere, and the rest of it when one of the script's two shells has been killed: under
# proctrack/pgid, the SIGKILL of Slurm reaches the supervisor only.
sewer_watch() {
    builtin trap '' TERM INT HUP USR1 USR2
    sewer_watcher=$BASHPID
    umask 077
    local sewer_looks=0 sewer_round=0
    while [[ ! -e $sewer_dir/cancelled ]] && ! sewer_is_outdated && sewer_lives $$ && sewer_lives "$sewer_supervisor"; do
        [[ -z $SEWER_LOCAL_ID ]] || sewer_tool touch -- "$sewer_dir/alive" # for other hosts, which have no other source
        sewer_sleep "${sewer_pauses[sewer_round++]:-$sewer_pause}"
        sewer_find_others
        sewer_find_srun
        sewer_sample_usage
        # A minute between two checks is short enough for a timeout of hours.
        if ((sewer_orphan_timeout && ++sewer_looks % (sewer_orphan_timeout > 600 ? 12 : 1) == 0)); then
            ! sewer_is_orphaned || break
        fi
    done
    local sewer_seconds
    # If the supervisor still runs; its number may have gone to another process.
    if sewer_lives $$ && sewer_has "$sewer_supervisor" SigCgt "${sewer_numbers[0]}"; then
        kill -TERM "$sewer_supervisor" # the way that all signals take
        for ((sewer_seconds = sewer_grace; sewer_seconds > 0; sewer_seconds--)); do
            sewer_lives $$ || break
            sewer_sleep 1
        done
        sewer_end_others 0
    else
        kill -TERM 0
        sewer_lives $$ && sewer_seconds=0 || sewer_seconds=$sewer_grace # a job without supervisor has had its time
        sewer_end_others "$sewer_seconds"
    fi
    for ((sewer_seconds = 30; sewer_seconds > 0; sewer_seconds--)); do # for `teardown`, and for the record
        sewer_lives $$ || break
        sewer_sleep 1
    done
    kill -KILL 0
}

# Open the module's stdin and stdout: the files that it has for them, else those of this shell, which `setup` may have
# closed. An earlier run of the job, on a node that was given up, may still write to the staged file of stdout: so that is
# created again. The variables would redirect what srun passes on; or have Python write unbuffered, which drops data
# without an error if the disk is full.
sewer_open_streams() {
    builtin shopt -u varredir_close 2>/dev/null || : # unknown to bash before 5.2
    if [[ -n ${sewer_stdin-} ]]; then
        unset -v SLURM_STDINMODE
        [[ ! -e $sewer_stdin || -f $sewer_stdin ]] && builtin command exec {sewer_in}<"$sewer_stdin" ||
            sewer_cannot_open stdin "$sewer_stdin"
    else
        { builtin command exec {sewer_in}<&0; } 2>/dev/null || builtin command exec {sewer_in}</dev/null
    fi
    if [[ -n ${sewer_stdout-} ]]; then
        unset -v SLURM_STDOUTMODE SLURM_LABELIO SLURM_UNBUFFEREDIO PYTHONUNBUFFERED
        ((!sewer_is_staged)) || sewer_remove "$sewer_stdout"
        [[ ! -e $sewer_stdout || -f $sewer_stdout ]] && builtin command exec {sewer_out}>|"$sewer_stdout" ||
            sewer_cannot_open stdout "$sewer_stdout"
    else
        { builtin command exec {sewer_out}>&1; } 2>/dev/null || builtin command exec {sewer_out}>/dev/null
    fi
}

sewer_cannot_open() {
    sewer_say "cannot open the file of $1: $2"
    exit 66
}

# -- The module, and the end -------------------------------------------------------------------------

sewer_run() {
    builtin set +k
    local FUNCNEST=0 sewer_number sewer_signal # `setup` may have limited how deeply functions are nested
    sewer_open_pipes
    [[ -e /proc/$$/fd/2 ]] || exec 2>/dev/null # `setup` may have closed it
    builtin cd -- "$sewer_workdir" || exit 72
    sewer_open_streams
    sewer_measure stdout.log
    sewer_from=${sewer_sizes[stdout.log]}
    sewer_phase=module
    for sewer_number in "${!sewer_signals[@]}"; do
        builtin trap "sewer_take ${sewer_signals[sewer_number]}" "$((sewer_first + sewer_number))"
    done
    if [[ -n $sewer_asked ]]; then
        sewer_phase=setup
        exit 143
    fi
    # In the background, because `read` lets traps run at once. There, bash would ignore SIGINT and SIGQUIT.
    local sewer_stderr sewer_code=0 sewer_heard=(QUIT) # those that `setup` does not have ignored
    for sewer_signal in "${sewer_signals[@]}"; do
        [[ -n ${sewer_ignores[$sewer_signal]-} ]] || sewer_heard+=("$sewer_signal")
    done
    {
        builtin trap : "${sewer_heard[@]}" # Slurm may signal all processes, and this one has to survive
        (
            builtin trap - "${sewer_heard[@]}"
            export -n "${!sewer_@}" # in case of `set -a`
            sewer_print "process=$BASHPID" >&"$sewer_pipe"
            builtin exec ${sewer_before[@]+"${sewer_before[@]}"} "$@" \
                <&"$sewer_in" >&"$sewer_out" 2>&"$sewer_stderr" \
                {sewer_in}<&- {sewer_out}>&- {sewer_stderr}>&- {sewer_pipe}>&- {sewer_silent}>&-
        ) || sewer_code=$?
        sewer_print "$sewer_code" >&"$sewer_pipe" || :
        builtin exit "$sewer_code" # for `wait`, should the pipe fail
    } <&"$sewer_in" {sewer_stderr}>&2 2>/dev/null &
    exec {sewer_in}<&- {sewer_out}>&-
    sewer_wait_for "$!"
    # SIGKILL has ended the process that waits for the module, not the module: there is no exit code to record. The watcher
    # ends it in this way too, but only in a job that was asked to end.
    [[ -n $sewer_is_known$sewer_asked ]] || ((sewer_status != 137)) || builtin kill -KILL $$
    sewer_process=
    sewer_judge
    sewer_phase=teardown
    sewer_measure stdout.log
    sewer_to=${sewer_sizes[stdout.log]}
    sewer_is_outdated || sewer_record "$sewer_status" || : # a signal may leave no time for `teardown`
    for sewer_signal in ${sewer_due[@]+"${sewer_due[@]}"}; do
        eval "${sewer_at_signal[$sewer_signal]-}"
    done
}

# Return whether one of these texts is in stderr.log since this run began; in stdout.log, too, where srun writes there.
sewer_is_announced() {
    [[ -f $sewer_dir/stderr.log && -r $sewer_dir/stderr.log ]] || return 0 # there is no evidence
    ! sewer_is_in stderr.log sewer_stderr_from "$@" || return 0
    ((sewer_uses_srun)) && sewer_is_in stdout.log sewer_stdout_from "$@"
}

# Return whether one of the texts $3… is in file $1 after the byte number in the variable $2. grep needs memory for a whole
# line: a progress bar is one without end, and the job may have little left. `sewer_is_unread` is set if reading failed.
sewer_is_in() {
    [[ -f $sewer_dir/$1 ]] || return 1
    local sewer_texts=("${@:3}") sewer_codes
    sewer_measure "$1"
    ((${sewer_sizes[$1]} >= $2 && $2 >= 0)) || printf -v "$2" 0 # the module has emptied it
    ((${sewer_sizes[$1]} > $2)) || [[ ! -r $sewer_dir/$1 ]] || return 1
    sewer_become tail -c "+$((${!2} + 1))" -- "$sewer_dir/$1" | sewer_become tr '\r' '\n' |
        sewer_tool grep -aF "${sewer_texts[@]/#/-e}" >/dev/null
    sewer_codes=("${PIPESTATUS[@]}")
    ((sewer_codes[2] == 0 || (sewer_codes[0] == 0 && sewer_codes[1] == 0 && sewer_codes[2] == 1))) || sewer_is_unread=1
    return "${sewer_codes[2]}"
}

# Return whether srun's announcements reach a log of the job directory: `setup` or a variable may have redirected them.
sewer_hears_srun() {
    [[ -z ${SLURM_STDERRMODE-}${SLURM_STDOUTMODE-} ]] &&
        [[ /proc/$$/fd/2 -ef $sewer_dir/stderr.log || /proc/$$/fd/2 -ef $sewer_dir/stdout.log ]]
}

# Print when a preemption of this job with GraceTime began, N/A if none has; nothing if Slurm does not answer.
sewer_preemption() {
    sewer_tool timeout -k 1 20 "${sewer_paths[env]}" "PATH=$sewer_path" ${sewer_conf:+"SLURM_CONF=$sewer_conf"} squeue \
        -h -t all -j "$sewer_job" -O PreemptTime:40 2>/dev/null || :
}

# Determine whether the job was asked to end before the module had ended. An exit code of 0 alone proves nothing: Slurm
# may signal the module before this shell (proctrack/linuxproc), and a step without the job (GraceTime of a preemption).
# But slurmstepd announces each end before it sends the first signal: "*** JOB 4711 ON n1 CANCELLED AT … ***". The
# module's step is not known among the job's steps here; one that the module starts and cancels itself counts, too. An
# srun that begins in between finds the job ended before that is announced. Where the announcement of a step may have
# been redirected, or may be due to the module itself, Slurm is queried whether it has begun to preempt the job.
sewer_judge() {
    sewer_module_asked=$sewer_asked
    if [[ -n $sewer_module_asked ]]; then
        return 0
    elif [[ -e $sewer_dir/cancelled || -e $sewer_dir/orphaned ]]; then
        sewer_module_asked=TERM
    elif [[ -n $sewer_is_local ]]; then
        sewer_unsignalled=true
    elif sewer_is_announced "*** JOB $sewer_job ON $sewer_node "; then
        sewer_module_asked=TERM
    elif ((sewer_uses_srun)) && sewer_is_announced "srun: error: Slurm job $sewer_job has expired" \
        "srun: error: Unable to create step for job $sewer_job: Job/step already completing or completed"; then
        sewer_module_asked=TERM
    elif sewer_is_announced "*** STEP $sewer_job."; then
        ((sewer_uses_srun)) || [[ `sewer_preemption` == [0-9]* ]] || return 0 # Slurm's final state decides
        sewer_module_asked=TERM
    elif ((sewer_uses_srun)) && sewer_hears_srun; then
        sewer_unsignalled=true
    elif ((sewer_uses_srun)) || [[ -e $sewer_dir/steps ]]; then
        local sewer_when=`sewer_preemption`
        [[ $sewer_when != [0-9]* ]] || sewer_module_asked=TERM
        ((sewer_uses_srun)) || [[ $sewer_when != N/A* ]] || sewer_unsignalled=true
    else
        sewer_unsignalled=true
    fi
    [[ -z $sewer_is_unread ]] || sewer_unsignalled=false # Slurm's final state decides
}

# End with this exit code, and send it to the supervisor.
sewer_leave() {
    sewer_tell "$1" || :
    exit "$1"
}

sewer_end() {
    sewer_exit=$? sewer_is_ending=1
    builtin trap - EXIT DEBUG ERR RETURN ${sewer_trapped[@]+"${sewer_trapped[@]}"} # none may interrupt
    builtin set +efukC +o posix
    unset -v EXECIGNORE FUNCNEST GLOBIGNORE
    sewer_open_pipes
    [[ -z $sewer_at_exit ]] || (eval "$sewer_at_exit") # in a subshell, so that an `exit` in it does not end this shell
    builtin trap '' "${sewer_signals[@]}" # none may prevent the record
    for sewer_number in "${!sewer_signals[@]}"; do
        builtin trap '' "$((sewer_first + sewer_number))"
    done
    builtin kill -KILL "$sewer_watcher" 2>/dev/null
    if [[ $sewer_phase == teardown ]]; then
        sewer_exit=$sewer_status
    else
        sewer_judge
    fi
    sewer_end_others 2 # before the logs are measured
    if sewer_is_outdated; then
        sewer_say "the job has begun again meanwhile; this run of it records nothing"
        sewer_leave 75
    fi
    umask 077
    if [[ $sewer_nodes == 1 ]]; then
        sewer_remove "$sewer_dir/times.txt"
        sewer_into "$sewer_dir/times.txt" times
    fi
    if ! sewer_record "$sewer_exit"; then
        sewer_remove "$sewer_dir/times.txt" "$sewer_dir/usage.txt" # frees space where a disk or a quota is full
        sewer_record "$sewer_exit" || sewer_leave 73
    fi
    # Remove the secrets of a job that can be requeued, unless it is being requeued.
    [[ -n $sewer_asked$sewer_module_asked ]] || sewer_remove "$sewer_dir/secrets.sh"
    sewer_remove "$sewer_dir/alive"
    # Slurm must not call it COMPLETED: jobs that depend on it would start.
    [[ $sewer_phase == teardown ]] || ((sewer_exit)) || sewer_exit=1
    [[ -z $sewer_module_asked ]] || ((sewer_exit)) || sewer_exit=143
    sewer_leave "$sewer_exit"
}

# Record how the module has ended. A record before `teardown` counts if Slurm ends the job during that.
sewer_record() {
    local sewer_by=null sewer_is_over=false sewer_text
    [[ -z $sewer_module_asked ]] || sewer_by="\"$sewer_module_asked\""
    [[ -z $sewer_is_ending ]] || sewer_is_over=true
    sewer_measure stdout.log stderr.log result.json
    sewer_set_now
    printf -v sewer_text '{"format": 1, "job_id": "%s", "restart": %d, "node": "%s", "phase": "%s", "exit_code": %d, "asked": %s, "unsignalled": %s, "is_torn_down": %s, "start": %s, "end": %s, "stdout": %d, "stderr": %d, "module_stdout": [%d, %d], "result": %d, "cpus": %d}' \
        "$sewer_id" "$sewer_restart" "$sewer_node" "$sewer_phase" "$1" "$sewer_by" "$sewer_unsignalled" "$sewer_is_over" \
        "$sewer_begin" "$sewer_now" "${sewer_sizes[stdout.log]}" "${sewer_sizes[stderr.log]}" "${sewer_from:-0}" \
        "${sewer_to:-${sewer_sizes[stdout.log]}}" "${sewer_sizes[result.json]}" "$sewer_cpus"
    sewer_write "$sewer_dir/exit.json" "$sewer_text"
}

sewer_check_own "$sewer_dir"
sewer_claim
builtin trap sewer_end EXIT
sewer_trap TERM -
sewer_trap INT -
sewer_trap HUP -
sewer_trap USR1 -
sewer_trap USR2 -
sewer_tell "process=$$"
sewer_watch </dev/null >/dev/null 2>&1 &
sewer_watcher=$!
disown "$sewer_watcher"
sewer_load_variables
