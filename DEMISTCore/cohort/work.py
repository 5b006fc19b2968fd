"""One session under its lock: what is not done yet is made, and however it ends, a record says so."""

from __future__ import annotations

import errno
import logging
import time
import traceback
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import DemistError, InputError, MemoryShortage, printable
from ..files import atomic_path, write_json
from ..lock import FolderBusy, FolderLock
from ..worker.cache import Cache
from . import records, status
from .keys import Contents, stage_keys
from .memory import peak, reset_peak
from .names import SessionPaths
from .options import ATTEMPTS, Options
from .session import Session
from .sidecars import read_sidecars
from .status import Status
from .writer import clean

log = logging.getLogger(__name__)

_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
#: One model in a process, for all sessions that it works on.
_CACHE = Cache()


@dataclass(frozen=True)
class Outcome:
    """What came of a session.

    Attributes:
        status: its record.
        computed: stages that were made just now.
        left: stages that are still to be done, by another worker; empty where the session has ended.
        busy: another process works on it.
        full: the disk is; nothing more can be done for any session.
    """

    status: Status
    computed: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    busy: bool = False
    full: bool = False


def work(session: Session, options: Options, out: Path, only: Collection[str] = ()) -> Outcome:
    """Do what is left to do of a session.

    Args:
        session, options, out: what, how, and where to.
        only: stages that may be done here, see :mod:`.phases`; empty: all.

    An error ends this session and no other. What ends the process (Ctrl-C, a signal) is passed on, after the record
    says "interrupted"; what leaves no time for that, a later run sees by the lock that is gone.
    """
    before = status.load(out, session.subject, session.session)
    if session.problem:
        state = "skipped" if session.empty else "failed"
        now = Status(session.subject, session.session, state, "files", session.problem, shown=session.shown, final=True)
        return Outcome(_saved(out, before, now))
    while True:
        try:
            places = SessionPaths(out, session, options.scratch)
            with FolderLock(places.lock, "these results"):
                return _locked(session, options, places, only)
        except FolderBusy:
            return Outcome(replace(before, state="running"), busy=True)
        except InputError as error:
            if isinstance(error.__cause__, FileNotFoundError):  # its last holder removed the folder just now
                continue
            if not is_full(error):
                raise
            return Outcome(replace(before, state="interrupted", message=str(error)), full=True)


def _locked(session: Session, options: Options, places: SessionPaths, only: Collection[str]) -> Outcome:
    out = places.out
    before = replace(status.load(out, session.subject, session.session), shown=session.shown)
    clean(places)
    start, stage, key = time.perf_counter(), "files", ""
    computed: list[str] = []
    left: tuple[str, ...] = ()
    job = None
    reset_peak()
    try:
        if session.series:
            stage = "convert"
            session = _converted(session, places)
            stage = "files"
        job_keys, protocol, notes = _keys(session, options, places)
        key = job_keys["report"]
        if before.state == "failed" and before.final and before.key == key and not options.retry_failed:
            return Outcome(before)
        attempts = 0 if options.retry_failed or before.key != key else before.attempts
        if before.state == "running" and attempts >= ATTEMPTS:
            raise InputError(
                f"Its process ended {attempts} times in the middle of {before.stage}, without an error (killed, or out "
                "of memory?); give it more memory and run again with --retry-failed."
            )
        todo = [name for name in options.stages if not records.is_done(places, name, job_keys[name])]
        if todo and "prepare" in only and not records.is_done(places, "prepare", job_keys["prepare"]):
            todo.insert(0, "prepare")
        for number, name in enumerate(todo):
            if only and name not in only:
                left = tuple(todo[number:])
                break
            stage = name
            at_work = replace(
                before,
                state="running",
                stage=stage,
                message="",
                key=key,
                final=False,
                attempts=attempts + 1,
                seconds=None,
                peak_memory_mb=None,
            )
            status.save(out, at_work)
            job = job or _job(session, options, places, job_keys, protocol, notes)
            _run(stage, job)
            computed.append(stage)
    except Exception as error:
        spent = replace(_spent(start, before, key), attempts=0)
        if is_full(error):
            now = replace(spent, state="interrupted", stage=stage, message=_sentence(error), key="")
            with suppress(DemistError, OSError):
                status.save(out, now)
            return Outcome(now, tuple(computed), full=True)
        now = replace(spent, state="failed", stage=stage, message=_told(error, places), key=key, final=is_final(error))
        _discard(places)
        return Outcome(_saved(out, None, now), tuple(computed))
    except BaseException:
        now = replace(
            _spent(start, before, key),
            state="interrupted",
            stage=stage,
            message="Stopped before it was done.",
            key=key,
            attempts=0,
        )
        with suppress(DemistError, OSError):
            status.save(out, now)
        raise
    if left:
        now = replace(
            _spent(start, before, key),
            state="waiting",
            stage=left[0],
            message="",
            key=key,
            final=False,
            attempts=0,
        )
        return Outcome(_saved(out, before, now), tuple(computed), left)
    _discard(places)
    said = [sentence for name in options.stages for sentence in records.read(places.record(name)).get("warnings") or ()]
    now = replace(
        before,
        state="done",
        stage=options.stages[-1],
        message=" ".join(dict.fromkeys(said)),
        key=key,
        final=False,
        attempts=0,
    )
    if computed or before.seconds is None:
        spent = _spent(start, before, key)
        now = replace(now, seconds=spent.seconds, peak_memory_mb=spent.peak_memory_mb)
    return Outcome(_saved(out, before, now), tuple(computed))


def _spent(start: float, before: Status, key: str) -> Status:
    """``before`` with seconds and memory so far, those of the workers before this one included."""
    seconds, memory = round(time.perf_counter() - start, 1), peak()
    if before.state == "waiting" and before.key == key:
        seconds, memory = round(seconds + (before.seconds or 0), 1), max(memory, before.peak_memory_mb or 0)
    return replace(before, seconds=seconds, peak_memory_mb=memory)


def _discard(places: SessionPaths) -> None:
    """Prepared images are of no use to a session that has ended."""
    for path in (places.handoff, places.record("prepare")):
        with suppress(OSError):
            path.unlink()


def _converted(session: Session, places: SessionPaths) -> Session:
    """The session with images, made of its DICOM series if they are not there yet."""
    from .archive.convert import convert

    return convert(session, places)


def _keys(session: Session, options: Options, places: SessionPaths) -> tuple[dict[str, str], dict[str, Any], list[str]]:
    """Keys by stage, the protocol, and what is to be said of the files."""
    known = records.read(places.inputs)
    contents = Contents(known)
    protocol: dict[str, Any] = {}
    notes = list(session.notes)
    for what in ("T1w", "FLAIR"):
        protocol[what], said = read_sidecars(session.sidecars.get(what, ()))
        notes += said
    try:
        keys = stage_keys(
            session,
            options,
            model_hash(options.bundle),
            _network(session, options),
            protocol,
            contents,
            _templates(options),
        )
    except OSError as error:
        _say_why(session, error)
        raise
    if contents.known != known:
        write_json(places.inputs, contents.known)
    return keys, protocol, notes


def _say_why(session: Session, error: OSError) -> None:
    """An image that cannot even be read: the reader knows better than the system what to say of it."""
    from ..volume import Volume

    for path in session.images.values():
        if error.filename is None or str(path) == str(error.filename):
            Volume.read(path)


def _templates(options: Options) -> dict[str, str]:
    """Hash of each space's template."""
    if not options.spaces:
        return {}
    from .spaces.templates import template_hashes

    return template_hashes(options.spaces, options.templates)


def _network(session: Session, options: Options) -> str:
    """The hash of the tissue network, if this session's regions take one."""
    suggests = options.suggest and session.lesions is None
    settings = options.settings()
    used = options.regions and settings.method == "network" and (session.tissue is None or suggests)
    return model_hash(settings.network) if used else ""


def model_hash(source: str) -> str:
    """The hash of a bundle, from its description alone, which is read again when it has changed.

    Raises:
        BundleError: there is none.
    """
    from ..bundle import find_folder
    from ..bundle.description import DESCRIPTION_FILE

    folder, changed = find_folder(source), (0, 0)
    with suppress(OSError):
        found = (folder / DESCRIPTION_FILE).stat()
        changed = found.st_size, found.st_mtime_ns
    return _described(folder, changed)


@lru_cache(maxsize=8)
def _described(folder: Path, changed: tuple[int, int]) -> str:
    from ..bundle import read_description

    return str(read_description(folder)["hash"])


def _job(
    session: Session,
    options: Options,
    places: SessionPaths,
    keys: Mapping[str, str],
    protocol: Mapping[str, Any],
    notes: list[str],
) -> Any:
    from .stages import Job

    return Job(session, options, places, keys, protocol, notes, lambda: _CACHE.bundle(options.bundle))


def _run(stage: str, job: Any) -> None:
    from .stages import RUN

    log.info("%s: %s", job.session.name, stage)
    RUN[stage](job)


def is_full(error: BaseException | None) -> bool:
    """Whether a full disk, or a quota, is behind an error."""
    return any(isinstance(one, OSError) and one.errno in _FULL for one in _chain(error))


def is_final(error: BaseException) -> bool:
    """Whether the same inputs and settings would end in the same error: what the system refused may go otherwise."""
    passing = any(isinstance(one, (OSError, MemoryError, MemoryShortage)) for one in _chain(error))
    return isinstance(error, InputError) and not passing


def _chain(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def _sentence(error: BaseException) -> str:
    from ..worker.serve import explain

    return explain(error)[1] if isinstance(error, Exception) else str(error)


def _told(error: BaseException, places: SessionPaths) -> str:
    """The sentence of an error; for one that nobody expected, the traceback goes into a file that it names."""
    words = _sentence(error)
    if not isinstance(error, DemistError) and words.endswith("see the log."):
        with suppress(DemistError, OSError), atomic_path(places.log) as temporary:
            temporary.write_text(
                "".join(traceback.format_exception(error)), encoding="utf-8", errors="backslashreplace"
            )
        words = words.removesuffix("see the log.") + f"see {places.log}."
    return printable(words)


def _saved(out: Path, before: Status | None, now: Status) -> Status:
    if now != before:
        status.save(out, now)
    return now
