"""Several processes that train together: started in time or ended with a sentence, and none outlives the others."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator

from ..errors import InputError

log = logging.getLogger(__name__)

#: What launchers tell each process of a run on several machines.
_LAUNCHERS = ("MASTER_ADDR", "SLURM_NTASKS", "TORCHELASTIC_RUN_ID", "LSB_JOBID", "KUBERNETES_PORT")
#: Seconds until a word is said, and until nobody is waited for any longer.
TOLD_AFTER, GIVEN_UP_AFTER = 30.0, 900.0
_LOOK = 1.0


def check_launcher(nodes: int) -> None:
    """A run on several machines needs somebody who tells each of them where the others are.

    Raises:
        InputError: there is nobody.
    """
    if nodes > 1 and not any(os.environ.get(name) for name in _LAUNCHERS):
        raise InputError(
            f"nodes={nodes} takes as many processes that know of each other; start it with srun or torchrun on every "
            "machine, or set MASTER_ADDR, MASTER_PORT and NODE_RANK there."
        )


@contextlib.contextmanager
def starting(world: int) -> Iterator[None]:
    """While processes wait for each other: say so, and end this one if some never come.

    Ends the process, as nothing else ends a wait inside the library. A further process ends with its parent, too,
    from here on.

    Args:
        world: how many processes there should be.
    """
    if world > 1 and int(os.environ.get("LOCAL_RANK") or 0) > 0:
        threading.Thread(target=_end_with_parent, args=(os.getppid(),), name="parent", daemon=True).start()
    there = threading.Event()
    if world > 1:
        threading.Thread(target=_watch, args=(there, world), name="starting", daemon=True).start()
    try:
        yield
    finally:
        there.set()


def meet_anew(backend: str) -> None:
    """Let processes that torchrun has started again meet under names of their own.

    torchrun (2.6 and newer) keeps one store over all its starts. In it a process that comes first would find where the
    dead ones of the start before listened, and is refused there or waits for ever. Does nothing at a first start, and
    where another launcher is at work.

    Args:
        backend: ``gloo`` or ``nccl``.
    """
    import torch.distributed as dist

    again = int(os.environ.get("TORCHELASTIC_RESTART_COUNT") or 0)
    if not again or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" or dist.is_initialized():
        return
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), world, is_master=False)
    dist.init_process_group(backend, store=dist.PrefixStore(f"start-{again}", store), rank=rank, world_size=world)


def _watch(there: threading.Event, world: int) -> None:
    given_up = float(os.environ.get("DEMIST_START_SECONDS") or GIVEN_UP_AFTER)
    if there.wait(min(TOLD_AFTER, given_up)):
        return
    log.warning("Waiting for all %d processes of this run to start.", world)
    if there.wait(given_up - min(TOLD_AFTER, given_up)):
        return
    print(
        f"error: Not all {world} processes of this run have started within {given_up:.0f} s; look at what the others "
        "say, or set devices= and nodes= to what there is.",
        file=sys.stderr,
        flush=True,
    )
    os._exit(2)


def _end_with_parent(parent: int) -> None:
    """Without its first process, a further one would wait half an hour for it."""
    while os.getppid() == parent:
        time.sleep(_LOOK)
    os._exit(1)
