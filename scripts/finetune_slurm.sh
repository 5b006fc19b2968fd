#!/usr/bin/env bash
# A model taught your scanner (docs/your-scanner.md) as a SLURM job on one GPU.
#
#   sbatch scripts/finetune_slurm.sh --data my-data --out runs/mine
#   sbatch --time=00:30:00 scripts/finetune_slurm.sh --data my-data --out runs/mine   # in pieces of half an hour
#
# Two minutes before its time is over the training is told, saves, and the job hands itself in again; it goes on where it
# was. Nothing is downloaded: install DEMIST into the environment of $PYTHON before.
#SBATCH --job-name=demist-finetune
#SBATCH --ntasks=1
#SBATCH --gpus=1
#SBATCH --cpus-per-task=4
#SBATCH --mem=24G
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -uo pipefail

export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}
again=
"${PYTHON:-python}" -m DEMISTCore.train finetune "$@" &
job=$!
trap 'again=1; kill -TERM "$job"' USR1
wait "$job"
code=$?
if [[ -n $again ]]; then  # the first wait ended with the signal; this one ends with the training
    wait "$job"
    code=$?
    [[ $code == 0 ]] || scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
