# What frames the module in a job: it sets the variables, sees to it that only one job runs in this
# run directory, and records the end. Its tools come from the system's own PATH (`command -p`),
# whatever the job's PATH is.

sewer_id=${SLURM_JOB_ID:-$SEWER_LOCAL_ID}
sewer_node=${SLURMD_NODENAME:-$(command -p uname -n)}
sewer_restart=${SLURM_RESTART_COUNT:-0}
sewer_phase=setup
sewer_status=
sewer_asked=

# Say what time it is, in seconds since the epoch; bash before 5 does not know it to the microsecond.
sewer_now() {
    local now=${EPOCHREALTIME:-$(command -p date +%s)}
    echo "${now/,/.}"
}
sewer_begin=$(sewer_now)

# Write $2 to the file $1, whole or not at all.
sewer_write() {
    { printf '%s\n' "$2" >"$1.$sewer_id"; } && command -p mv -f -- "$1.$sewer_id" "$1"
}

# Take the run directory for this job. A second job of the same attempt ends here, and so does one
# that was cancelled while nobody could reach Slurm; a job that was requeued goes on.
sewer_claim() {
    if ! command -p ln -s -- "$sewer_id" "$sewer_dir/claim" 2>/dev/null; then
        local owner
        owner=$(command -p readlink -- "$sewer_dir/claim") || {
            echo "sewer: cannot write in $sewer_dir" >&2
            exit 73
        }
        if [[ $owner != "$sewer_id" ]]; then
            echo "sewer: job $owner runs this attempt; job $sewer_id ends without having run anything" >&2
            exit 75
        fi
    fi
    if [[ -e $sewer_dir/cancelled ]]; then
        echo "sewer: cancelled before it began" >&2
        exit 75
    fi
    command -p rm -f -- "$sewer_dir/exit.json" "$sewer_dir/result.json" "$sewer_dir/times.txt"
    local record
    printf -v record '{"job_id": "%s", "restart": %d, "node": "%s", "pid": %d, "time": %s}' \
        "$sewer_id" "$sewer_restart" "$sewer_node" "$$" "$sewer_begin"
    sewer_write "$sewer_dir/start.json" "$record" || exit 73
}

sewer_load_variables() {
    . "$sewer_dir/environment.sh"
    if [[ -e $sewer_dir/secrets.sh ]]; then
        . "$sewer_dir/secrets.sh"
        ((sewer_requeue)) || command -p rm -f -- "$sewer_dir/secrets.sh"
    fi
    # srun would take --export=NONE over from sbatch and start the module with no environment at all.
    unset SLURM_EXPORT_ENV SLURM_GET_USER_ENV SEWER_LOCAL_ID
    export SEWER_RESULT_FILE=$sewer_dir/result.json SEWER_ATTEMPT_ID=$sewer_attempt
}

# Sleep without a process of its own that could outlive the job.
sewer_sleep() {
    read -r -t "$1" <> <(:) || :
}

# End the job when the run directory says so: that works while nobody can reach Slurm.
sewer_watch() {
    trap '' TERM
    until [[ -e $sewer_dir/cancelled ]]; do
        sewer_sleep 5
    done
    kill -TERM 0
    sewer_sleep "$sewer_grace"
    kill -KILL 0
}

sewer_run() {
    [[ -z $sewer_asked ]] || exit 143
    cd -- "$sewer_workdir" || exit 72
    sewer_from=$(sewer_size stdout.log)
    sewer_phase=module
    "$@"
    sewer_status=$?
    sewer_module_asked=$sewer_asked
    sewer_phase=teardown
    sewer_to=$(sewer_size stdout.log)
}

sewer_size() {
    command -p stat -L -c %s -- "$sewer_dir/$1" 2>/dev/null || echo -1
}

sewer_end() {
    local status=$?
    trap '' TERM INT HUP
    trap - EXIT
    ((sewer_watcher)) && kill -KILL "$sewer_watcher" 2>/dev/null
    [[ $sewer_phase == teardown ]] && status=$sewer_status || sewer_module_asked=$sewer_asked
    local asked=null
    [[ -z $sewer_module_asked ]] || asked="\"$sewer_module_asked\""
    times >"$sewer_dir/times.txt"
    local stdout stderr record
    stdout=$(sewer_size stdout.log) stderr=$(sewer_size stderr.log)
    printf -v record '{"job_id": "%s", "restart": %d, "node": "%s", "phase": "%s", "exit_code": %d, "asked": %s, "start": %s, "end": %s, "stdout": %d, "stderr": %d, "module_stdout": [%d, %d], "result": %d, "cpus": %d}' \
        "$sewer_id" "$sewer_restart" "$sewer_node" "$sewer_phase" "$status" "$asked" "$sewer_begin" "$(sewer_now)" \
        "$stdout" "$stderr" "${sewer_from:-0}" "${sewer_to:-$stdout}" "$(sewer_size result.json)" \
        "$((${SLURM_CPUS_ON_NODE:-0} * ${SLURM_JOB_NUM_NODES:-1}))"
    sewer_write "$sewer_dir/exit.json" "$record" || exit 73
    # Nothing is left of the secrets of a job that can be requeued, unless that is what is happening.
    [[ -n $sewer_asked ]] || command -p rm -f -- "$sewer_dir/secrets.sh"
    exit "$status"
}

sewer_claim
trap sewer_end EXIT
trap 'sewer_asked=TERM' TERM
trap 'sewer_asked=INT' INT
trap 'sewer_asked=HUP' HUP
sewer_load_variables
sewer_watch </dev/null >/dev/null 2>&1 &
sewer_watcher=$!
disown "$sewer_watcher"
