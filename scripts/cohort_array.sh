#!/usr/bin/env bash
# A cohort as a SLURM job array: no service, nothing to keep running.
#
#   sbatch --array=1-20 scripts/cohort_array.sh BIDS_DIR OUT_DIR [options of demist-bids]
#
# Hand it in again until all exit codes are 0: what is done is not done again, and jobs may overlap.
#SBATCH --job-name=demist
#SBATCH --cpus-per-task=4
#SBATCH --mem=12G
#SBATCH --time=08:00:00
#SBATCH --signal=TERM@120
#SBATCH --output=%x-%A_%a.log
set -euo pipefail

export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}
bids=${1:?BIDS_DIR} out=${2:?OUT_DIR}
shift 2
exec srun "${PYTHON:-python}" -m DEMISTCore.cohort "$bids" "$out" participant --skip-bids-validator \
    --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" "$@"
