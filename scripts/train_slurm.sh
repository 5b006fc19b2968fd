#!/usr/bin/env bash
# One stage of training as a SLURM job: a process a GPU, on one node or several.
#
#   sbatch scripts/train_slurm.sh mean --data BIDS --out runs/mean --foundation runs/backbone batch=2
#
# Two minutes before its time is over the job is told, saves, and hands itself in again; it goes on where it was. A node
# that fails has it handed in again by SLURM (--requeue).
#SBATCH --job-name=demist-train
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --mem-per-cpu=4G
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -uo pipefail

export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}
again=
# SLURM tells this shell; the trainer saves on SIGTERM and ends with 143.
trap 'again=1; scancel --signal=TERM "$SLURM_JOB_ID.0"' USR1

srun --kill-on-bad-exit=1 "${PYTHON:-python}" -m DEMISTCore.training.elastic "$@" \
    "devices=${SLURM_NTASKS_PER_NODE:-1}" "nodes=${SLURM_JOB_NUM_NODES:-1}" &
step=$!
wait "$step"
code=$?
if [[ -n $again ]]; then  # the first wait ended with the signal; this one ends with the step
    wait "$step"
    code=$?
    [[ $code == 0 ]] || scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
