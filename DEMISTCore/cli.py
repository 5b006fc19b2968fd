"""What every command line shares: exit codes, one-sentence errors, logging."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence

from .errors import DemistError

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130


def run(main: Callable[[Sequence[str] | None], int | None], argv: Sequence[str] | None = None) -> int:
    """Call ``main(argv)`` and turn user-mendable errors into one line on stderr and exit code 2.

    Set ``DEMIST_TRACEBACK=1`` to see the traceback of such an error as well.
    """
    try:
        return int(main(argv) or 0)
    except DemistError as error:
        if os.environ.get("DEMIST_TRACEBACK"):
            raise
        print(f"error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except MemoryError:
        print("error: Not enough memory; use fewer seeds, a smaller volume, or a machine with more.", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print("Interrupted; nothing half-written was left behind.", file=sys.stderr)
        return EXIT_INTERRUPTED


def set_up_logging(verbose: bool = False) -> None:
    """Log to stderr, one short line per message."""
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO, format="%(message)s", stream=sys.stderr, force=True
    )
    for noisy in ("matplotlib", "PIL", "fsspec", "monai", "urllib3", "h5py"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def terminate_cleanly() -> None:
    """Let a polite kill (SIGTERM) unwind the stack as Ctrl-C does, so that temporary files go."""
    import signal
    import threading

    def stop(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)
