# shellcheck shell=bash
# What the jobs share; sourced by them.

# The value of a key in a JSON file of espalier's, which has one key a line.
json_value() {
    sed -n "s/^[[:space:]]*\"$2\":[[:space:]]*\"\{0,1\}\([^,\"]*\)\"\{0,1\},\{0,1\}$/\1/p" "$1"
}

# The path of a recipe that is given by its path, or by its name in jobs/recipes.
recipe_path() {
    [ -f "$1" ] && echo "$1" && return
    [ -f "jobs/recipes/${1%.cfg}.cfg" ] && echo "jobs/recipes/${1%.cfg}.cfg" && return
    echo "no recipe '$1'; there are: $(basename -s .cfg jobs/recipes/*.cfg | xargs)" >&2
    return 2
}

# Make a directory BASE-TIME that nobody else has, and say its name: two may begin in one second.
new_directory() {
    local first name n
    first=$1-$(date +%Y%m%d-%H%M%S)
    name=$first
    mkdir -p "$(dirname "$name")"
    for ((n = 2; ; n++)); do
        mkdir "$name" 2>/dev/null && echo "$name" && return
        [ -e "$name" ] || mkdir "$name" || return
        name=$first-$n
    done
}

# ---- under Slurm ----

TO_BE_RESUMED=75 # espalier's exit code after a checkpoint on request

# Whether a rank was ended by a request to stop: it was not ready for it yet, or done already and met
# srun's own signal to those that are left.
is_stopped() {
    [ "$1" -eq $((128 + $(kill -l TERM))) ] || [ "$1" -eq $((128 + $(kill -l USR1))) ]
}

# The job's ranks on each node, and the threads of each: a rank for each GPU where the job has any,
# else for each task.
job_ranks_per_node() {
    local gpus=${SLURM_GPUS_ON_NODE:-0}
    echo $((gpus > 0 ? gpus : SLURM_NTASKS / SLURM_JOB_NUM_NODES))
}
job_threads() {
    local gpus=${SLURM_GPUS_ON_NODE:-0}
    if [ "$gpus" -gt 0 ]; then
        echo $((SLURM_CPUS_ON_NODE > gpus ? SLURM_CPUS_ON_NODE / gpus : 1))
    else
        echo "${SLURM_CPUS_PER_TASK:-1}"
    fi
}

# launch_ranks NODES RANKS_PER_NODE ARGUMENT...: the program under srun.
launch_ranks() {
    local options=(--mpi="${ESPALIER_MPI:-pmix}" --kill-on-bad-exit=1 --nodes="$1"
        --ntasks=$(($1 * $2)) --ntasks-per-node="$2" --cpus-per-task="$(job_threads)")
    [ "${SLURM_GPUS_ON_NODE:-0}" -eq 0 ] || options+=(--gpus-per-task=1)
    [ "$2" -le "$SLURM_CPUS_ON_NODE" ] || options+=(--overcommit)
    shift 2
    srun "${options[@]}" "${ESPALIER:-build/espalier}" "$@"
}

# Train into RUN_DIR, or go on where the run there has stopped: train_ranks RUN_DIR RECIPE [-s ...]
train_ranks() {
    local run_dir=$1 code=0
    shift
    launch_ranks "$SLURM_JOB_NUM_NODES" "$(job_ranks_per_node)" train "$@" -o "$run_dir" --resume --quiet || code=$?
    ! is_stopped "$code" || code=$TO_BE_RESUMED
    # srun returns 0 for a step that it could not launch on all nodes.
    if [ "$code" -eq 0 ] && [ ! -e "$run_dir/summary.json" ]; then
        echo "job $SLURM_JOB_ID: the ranks did not run" >&2
        code=1
    fi
    return "$code"
}

# A job that was cancelled is running no more, and stays cancelled.
may_requeue() {
    local restarts=${SLURM_RESTART_COUNT:-0}
    [ "$(squeue -h -j "$SLURM_JOB_ID" -o %T)" = RUNNING ] || return 1
    [ "$restarts" -lt "${ESPALIER_REQUEUES:-100}" ] && return
    echo "job $SLURM_JOB_ID: was requeued $restarts times; submit it again to go on" >&2
    return 1
}

# End the job with this exit code; or put it back into the queue when it is to be resumed.
end_job() {
    echo "job $SLURM_JOB_ID: exit code $1"
    if [ "$1" -eq $TO_BE_RESUMED ] && may_requeue; then
        echo "job $SLURM_JOB_ID: requeued"
        scontrol requeue "$SLURM_JOB_ID" && sleep 600 # the job ends meanwhile
    fi
    exit "$1"
}
