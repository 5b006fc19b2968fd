"""``python -m DEMISTCore.environment``: build or remove an environment, see :mod:`DEMISTCore.environment`."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..cli import EXIT_BAD_INPUT, EXIT_INTERRUPTED, run


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="python -m DEMISTCore.environment",
        description="Build or remove a folder of Python packages that DEMIST's worker runs with. Says what it does in "
        "lines of JSON; stops, and cleans up, when its standard input ends.",
    )
    p.add_argument("action", choices=["build", "remove"])
    p.add_argument("--folder", required=True, metavar="DIR", type=Path, help="the environment")
    p.add_argument("--requirements", metavar="FILE", type=Path, help="what to install, a requirement a line")
    p.add_argument("--torch", choices=["auto", "cpu"], default="auto", help="auto: as the NVIDIA driver allows")
    p.add_argument("--wheels", metavar="DIR", type=Path, help="install from this folder of wheels, without a network")
    p.add_argument("--no-share", action="store_true", help="install torch even where this Python has one that fits")
    p.add_argument("--space", metavar="GB", type=float, help="free space to ask for; default: what is usual")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Build or remove."""
    args = parser().parse_args(argv)
    from ..errors import Cancelled, DemistError
    from .build import Plan, build, remove
    from .place import manifest

    _send("ready", pid=os.getpid())
    cancelled = threading.Event()
    threading.Thread(target=_watch, args=(cancelled,), daemon=True).start()
    told = _Told()
    try:
        if args.action == "remove":
            remove(args.folder)
            _send("done")
            return 0
        if args.requirements is None:
            raise DemistError("Name the file of requirements (--requirements).")
        plan = Plan(args.folder, args.requirements, args.torch, args.wheels, not args.no_share, args.space)
        made = build(plan, told.tell, lambda line: _send("line", text=line), cancelled)
        _send("done", environment=manifest(made))
        return 0
    except Cancelled:
        _send("cancelled")
        return EXIT_INTERRUPTED
    except DemistError as error:
        _send("error", message=str(error))
        return EXIT_BAD_INPUT
    except OSError as error:
        from ..cli import sentence

        _send("error", message=sentence(error))
        return EXIT_BAD_INPUT


class _Told:
    """Progress, thinned: a line when the text changes or the share has grown by a hundredth, or every second."""

    def __init__(self) -> None:
        self._text, self._done, self._when = "", -1.0, 0.0

    def tell(self, text: str, done: float) -> None:
        now = time.monotonic()
        if text.split("(")[0] != self._text or done - self._done >= 0.01 or now - self._when >= 1.0:
            self._text, self._done, self._when = text.split("(")[0], done, now
            _send("progress", text=text, done=round(done, 4))


def _send(event: str, **content: Any) -> None:
    try:
        print(json.dumps({"event": event, **content}), flush=True)
    except OSError:  # the parent is gone, and the end of the input will say so
        return


def _watch(cancelled: threading.Event) -> None:
    """The parent says nothing but that it is over: by a line, or by its death."""
    with contextlib.suppress(OSError):
        os.read(0, 1)  # not by sys.stdin: a thread that waits in it keeps Python from ending
    cancelled.set()


if __name__ == "__main__":
    raise SystemExit(run(main))
