# End the job if another user could have written into folder $1. `sewer_owned` is the owner and the mode that the worker
# has accepted: on NFS with root_squash the owner is not the user of the job.
sewer_check_own() {
    local sewer_seen
    sewer_seen=$(sewer_become stat -c '%u %a' -- "$1" 2>/dev/null) || return 0 # it is missing, which shows later
    [[ $sewer_seen != "$sewer_owned" ]] || return 0
    [[ ! -O $1 ]] || ((8#${sewer_seen##* } & 8#22)) || return 0
    echo "sewer: $1 belongs to another user or is writable by others (owner and mode: $sewer_seen); nothing is run" >&2
    exit 77
}
