#!/usr/bin/env bash
# One stage of training on all GPUs of one machine, or on several machines, by torchrun.
#
#   scripts/train_torchrun.sh mean --data BIDS --out runs/mean --foundation runs/backbone batch=2
#   PROCESSES=2 scripts/train_torchrun.sh ... device=cpu          # two processes on the processor
#   NODES=2 NODE=0 MASTER=host0:29500 scripts/train_torchrun.sh ...   # on every machine, with its own NODE
#
# The same command begins a run or goes on with it. A process that dies has all of them started anew (RESTARTS times),
# from the newest checkpoint; save_every= says how much work that can cost.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${PYTHON:-python}
processes=${PROCESSES:-$($python -c 'import torch; print(max(1, torch.cuda.device_count()))')}
nodes=${NODES:-1}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

if [[ $nodes == 1 ]]; then
    meeting=(--standalone)
else
    meeting=(--nnodes "$nodes" --node-rank "${NODE:?which of the NODES this machine is, from 0}"
             --rdzv-backend c10d --rdzv-id demist --rdzv-endpoint "${MASTER:?host:port of the first machine}")
fi
exec "$python" -m torch.distributed.run "${meeting[@]}" --nproc-per-node "$processes" \
    --max-restarts "${RESTARTS:-3}" -m DEMISTCore.training.elastic "$@" "devices=$processes" "nodes=$nodes"
