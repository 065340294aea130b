# Sample the memory and CPU time of a job's processes, inside the job. Only the watcher calls this.
# It forks one grep for each sample and reads the rest with builtins, so that a sample takes a few milliseconds.

sewer_nodes=${SLURM_JOB_NUM_NODES:-1}
sewer_most_memory=0
sewer_most_ticks=0
# Seconds between two samples: the first ones, for the usage of short jobs, and all others. The watcher looks for a
# cancellation as often.
sewer_pauses=(0.1 0.2 0.4 0.8 1.6 3.2)
sewer_pause=5

# Append a line "KIB TICKS" for the processes in `sewer_others` to usage.txt when memory or CPU time has grown by more
# than 2 % since the last line. KIB is the present resident memory of all processes, or the peak of the largest one if
# that is more.
sewer_sample_usage() {
    [[ $sewer_nodes == 1 ]] || return 0 # processes on other nodes are not visible here
    local sewer_pid sewer_line sewer_memory=0 sewer_peak=0 sewer_ticks=0
    local -a sewer_fields
    for sewer_pid in "${sewer_others[@]}"; do
        while read -r sewer_line; do
            sewer_fields=($sewer_line)
            case $sewer_line in
                VmHWM:*) ((sewer_fields[1] <= sewer_peak)) || sewer_peak=${sewer_fields[1]} ;;
                VmRSS:*) ((sewer_memory += sewer_fields[1])) && break ;;
            esac
        done <"/proc/$sewer_pid/status"
        read -r sewer_line <"/proc/$sewer_pid/stat" || continue # it has ended meanwhile
        sewer_fields=(${sewer_line##*) }) # the name of the program may hold spaces and parentheses
        # utime, stime, and those of the children that have ended: fields 14 to 17 of proc_pid_stat(5)
        ((sewer_ticks += sewer_fields[11] + sewer_fields[12] + sewer_fields[13] + sewer_fields[14]))
    done
    ((sewer_memory >= sewer_peak)) || sewer_memory=$sewer_peak
    if ((sewer_memory * 50 > sewer_most_memory * 51 || sewer_ticks * 50 > sewer_most_ticks * 51)); then
        sewer_most_memory=$((sewer_memory > sewer_most_memory ? sewer_memory : sewer_most_memory))
        sewer_most_ticks=$((sewer_ticks > sewer_most_ticks ? sewer_ticks : sewer_most_ticks))
        # The file that `sewer_into` has opened, once more: only `>>` appends.
        sewer_into "$sewer_dir/usage.txt" eval 'echo "$sewer_most_memory $sewer_most_ticks" >>/proc/self/fd/1'
    fi
}
