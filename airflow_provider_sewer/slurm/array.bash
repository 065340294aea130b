# Start of each element of an array: it enters the job directory that its number leads to, and runs the job script
# there. Should Slurm have a second array of this folder, none of its elements goes on. (The array's id may be the
# number of an element too, and so the name of a folder: `-n` prevents the second link from being put into that.)
sewer_check_own "$sewer_array"
if ! sewer_tool ln -sn -- "$SLURM_ARRAY_JOB_ID" "$sewer_array/claim" 2>/dev/null; then
    sewer_owner=$(sewer_become readlink -- "$sewer_array/claim") || {
        echo "sewer: cannot write in $sewer_array" >&2
        exit 73
    }
    if [[ $sewer_owner != "$SLURM_ARRAY_JOB_ID" ]]; then
        echo "sewer: array $sewer_owner runs these attempts; array $SLURM_ARRAY_JOB_ID ends without running anything" >&2
        exit 75
    fi
fi
sewer_dir=$(sewer_become readlink -- "$sewer_array/$SLURM_ARRAY_TASK_ID")
sewer_check_own "$sewer_dir"
if ! builtin cd -- "$sewer_dir" || [[ -z $sewer_dir || ! -f $sewer_dir/job.sh || ! -r $sewer_dir/job.sh ]]; then
    echo "sewer: cannot read the job script in ${sewer_dir:-$sewer_array/$SLURM_ARRAY_TASK_ID}" >&2
    exit 74
fi
