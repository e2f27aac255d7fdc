#!/bin/bash
# Train on one node or several nodes of a Slurm cluster. Run in the project's folder, which all nodes share:
#
#   sbatch cluster/slurm.sh --data_path ImageNet/train                              # one node
#   sbatch --nodes 4 --gpus-per-node 8 cluster/slurm.sh --data_path ImageNet/train  # 4 nodes × 8 GPUs
#   sbatch --nodes 2 --gpus-per-node 0 --export ALL,PROCESSES=8 cluster/slurm.sh …  # 8 processes a node, on CPUs
#
# The options after the script go to train.py. The run's folder is sagan_models/slurm-JOB, or that of --name. Slurm
# warns the job before the time limit. The job then saves a checkpoint and goes back into the queue. When it starts
# again, it goes on from the checkpoint, until --total_step.
#SBATCH --job-name gan
#SBATCH --nodes 1
#SBATCH --ntasks-per-node 1
#SBATCH --gpus-per-node 1
#SBATCH --time 24:00:00
#SBATCH --requeue
#SBATCH --open-mode append
#SBATCH --output %x-%j.log
# The warning: USR1 to this script, 180 seconds before the time limit. A step and a checkpoint must take less time.
#SBATCH --signal B:USR1@180

[ ! -f .venv/bin/activate ] || source .venv/bin/activate

# The first node's address, and a port that other jobs on that node do not use. Both come from Slurm's variables.
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address=$(srun --nodes 1 --ntasks 1 --nodelist "$first" hostname -I | cut -d ' ' -f 1)
port=$((20000 + SLURM_JOB_ID % 10000))
echo "job $SLURM_JOB_ID, start $((${SLURM_RESTART_COUNT:-0} + 1)), nodes $SLURM_JOB_NODELIST, meeting at $address:$port"

# After the warning, send SIGTERM to the training. train.py then saves a checkpoint.
stop() {
    warned=yes
    scancel --signal TERM "$SLURM_JOB_ID"
}
trap stop USR1

# One launcher on each node starts one process for each of its GPUs, or PROCESSES processes.
# Slurm's variable SLURM_NODEID differs between the nodes, so a shell on each node reads it.
srun --kill-on-bad-exit=0 bash -c '
    master=$1; shift
    host=$(hostname -I | cut -d " " -f 1)
    interface=${GLOO_SOCKET_IFNAME:-$(PATH=$PATH:/sbin ip -o addr show to "$host" 2>/dev/null | cut -d " " -f 2)}
    [ -z "$interface" ] || export GLOO_SOCKET_IFNAME=$interface # without `ip`, gloo resolves the name of the host
    exec python -m paddle.distributed.launch --nnodes "$SLURM_NNODES" --rank "$SLURM_NODEID" --master "$master" \
        --host "$host" ${PROCESSES:+--nproc_per_node "$PROCESSES"} --log_dir "log/slurm-$SLURM_JOB_ID-$SLURM_NODEID" \
        train.py --name "slurm-$SLURM_JOB_ID" --resume auto "$@"
' bash "$address:$port" "$@" &
step=$!
wait "$step"
code=$?
while kill -0 "$step" 2>/dev/null; do # the warning interrupts `wait`
    wait "$step"
    code=$?
done

# 75: another process has died or hung, for example with its node. A job must end if its processes die each time.
if [ "$code" = 75 ] && [ "${warned:-}" != yes ] && [ "${SLURM_RESTART_COUNT:-0}" -ge 20 ]; then
    echo "job $SLURM_JOB_ID ends: a process has died or hung, and the job has started $((SLURM_RESTART_COUNT + 1)) times"
elif [ "${warned:-}" = yes ] && [ "$code" != 0 ] || [ "$code" = 75 ]; then
    echo "job $SLURM_JOB_ID goes back into the queue (exit code $code)"
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
