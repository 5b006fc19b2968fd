"""What every command line shares: exit codes, one-sentence errors, signals, streams, logging."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from . import lean
from .errors import DemistError, Terminated
from .schema import printable

_Result = TypeVar("_Result")

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130
#: As a shell says it of a program that wrote to a pipe nobody reads (128 + SIGPIPE).
EXIT_PIPE = 141


def run(main: Callable[[Sequence[str] | None], int | None], argv: Sequence[str] | None = None) -> int:
    """Call ``main(argv)`` and turn user-mendable errors into one line on stderr and exit code 2.

    SIGTERM and SIGHUP unwind the stack as Ctrl-C does, so that temporary files go, and end with 128 + their number. A
    reader of the output that has gone (``| head``) ends it quietly. Set ``DEMIST_TRACEBACK=1`` to see the traceback of
    a user-mendable error as well.
    """
    _open_streams()
    lean.install()
    try:
        with signals_unwind():
            try:
                code = int(main(argv) or 0)
            except SystemExit:
                _flush()
                raise
            _flush()
            return code
    except DemistError as error:
        if os.environ.get("DEMIST_TRACEBACK"):
            raise
        return _complain(str(error))
    except MemoryError:
        return _complain("Not enough memory; use fewer seeds, a smaller volume, or a machine with more.")
    except Terminated as error:
        _say("Stopped; nothing half-written was left behind.")
        return 128 + error.number
    except KeyboardInterrupt:
        _say("Interrupted; nothing half-written was left behind.")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        _let_go(sys.stdout)
        return EXIT_PIPE
    except OSError as error:
        _let_go(sys.stdout)
        return _complain(sentence(error))


def sentence(error: OSError) -> str:
    """What the operating system refused, in one sentence with the fix."""
    reason = error.strerror or str(error) or type(error).__name__
    if error.filename is not None:
        return f"Cannot use {os.fsdecode(error.filename)}: {reason}; fix that, or choose another."
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return f"Cannot write the output: {reason}; free some space, or send it elsewhere."
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return f"{reason}; close other programs, or raise the limit (ulimit -n)."
    return f"The system refused: {reason}; fix that and run again."


def set_up_logging(verbose: bool = False) -> None:
    """Log to stderr, one short line per message, control characters shown escaped."""
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO, format="%(message)s", stream=sys.stderr, force=True
    )
    for handler in logging.getLogger().handlers:
        handler.setFormatter(_Printable("%(message)s"))
    for noisy in ("matplotlib", "PIL", "fsspec", "monai", "urllib3", "h5py"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


@contextlib.contextmanager
def hushed(verbose: bool = False) -> Iterator[None]:
    """While the block runs, the package says nothing but errors; ``verbose``: everything as before."""
    package = logging.getLogger("DEMISTCore")
    before = package.level
    if not verbose:
        package.setLevel(logging.ERROR)
    try:
        yield
    finally:
        package.setLevel(before)


class Bar:
    """A progress bar on stderr that names the stage; call it with a stage and the share of all work done.

    It goes away at the end, and is not there where nobody looks (stderr is no terminal).
    """

    def __init__(self, hidden: bool = False) -> None:
        self._hidden = hidden

    def __enter__(self) -> Bar:
        from tqdm import tqdm

        form = "{desc:<16}{percentage:3.0f}%|{bar}| {elapsed}"
        self._bar = tqdm(total=100, bar_format=form, disable=self._hidden or None, file=sys.stderr, leave=False)
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()

    def __call__(self, stage: str, fraction: float) -> None:
        """Show ``stage`` and move on to ``fraction``."""
        self._bar.set_description_str(stage, refresh=False)
        self._bar.update(max(0.0, 100 * fraction - self._bar.n))


def with_bar(work: Callable[..., _Result], *arguments: Any, **options: Any) -> _Result:
    """What ``work`` returns, with a :class:`Bar` as its ``progress``: for callers that are one expression."""
    with Bar() as bar:
        return work(*arguments, progress=bar, **options)


class _Printable(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), keep="\n\t")


@contextlib.contextmanager
def signals_unwind() -> Iterator[None]:
    """Let a polite kill (SIGTERM) and a closed terminal (SIGHUP) raise :class:`Terminated` while the block runs.

    Signals that are ignored (``nohup``) stay so, and a program that has its own handlers keeps them.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) == signal.SIG_DFL:
                before[number] = signal.signal(number, _unwind)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def terminate_cleanly() -> None:
    """From here on SIGTERM unwinds the stack, see :func:`signals_unwind`, which :func:`run` sees to by itself."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _unwind)


def _unwind(number: int, frame: object) -> None:
    raise Terminated(number)


def _open_streams() -> None:
    """Standard streams that are there and that no text can break.

    A closed descriptor would go to the next file that is opened, and what a C library prints into that file. A name
    that the terminal's encoding does not know is shown escaped; it is no reason to lose the work.
    """
    if os.name != "nt":
        for number in (0, 1, 2):
            try:
                os.fstat(number)
            except OSError:
                if os.open(os.devnull, os.O_RDWR) != number:
                    break
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        with contextlib.suppress(AttributeError, ValueError, OSError):
            getattr(sys, name).reconfigure(errors="backslashreplace")


def _flush() -> None:
    """Now, where a full disk can still be said, and not while Python shuts down."""
    if sys.stdout is not None and not sys.stdout.closed:
        sys.stdout.flush()


def _let_go(stream: object) -> None:
    """Nothing can be written there any more: let what is left of it go without another error at the end."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, stream.fileno())  # type: ignore[attr-defined]
        os.close(nothing)


def _complain(words: str) -> int:
    _say(f"error: {words}")
    return EXIT_BAD_INPUT


def _say(words: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        print(printable(words, keep="\n"), file=sys.stderr, flush=True)
