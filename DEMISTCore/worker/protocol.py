"""Line-delimited JSON, UTF-8, both ways.

Parent to child, ``do`` being one of :data:`JOBS`::

    {"id": 7, "do": "synthesize", "t1w": {"npy": ..., "affine": ...}, "flair": ..., "folder": ..., "seeds": 4}
    {"id": 8, "do": "cancel", "target": 7}
    {"id": 9, "do": "shutdown"}

A synthesis may name its ``mode`` (``"mean"`` or ``"sample"``) and give the ``protocol`` of the scans.

Child to parent: first ``{"event": "ready", "protocol": 1, "version": ..., "pid": ...}``, then for each job::

    {"id": 7, "event": "accepted"}
    {"id": 7, "event": "progress", "stage": "brain mask", "done": 0.02, "remaining": null}
    {"id": 7, "event": "estimate", "seed": 0, "step": 3, "steps": 8, "volume": {"npy": ..., "affine": ...}}
    {"id": 7, "event": "log", "level": "warning", "text": ...}

and exactly one of ``done`` (with what the job gives), ``cancelled``, or ``error`` with a ``kind`` of :data:`KINDS` and
a ``message`` of one sentence. A line that cannot be understood is answered with an error whose ``id`` is that of the
line, or null. Jobs run one after the other, in the order they came; a cancelled job that has not begun never does.
A worker that cannot start because a package is missing names it on standard error and ends with :data:`EXIT_MISSING`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from threading import Lock
from typing import Any

from ..errors import DemistError
from ..schema import parse_json, shown
from .fields import check_request

PROTOCOL = 1
JOBS = ("hello", "synthesize", "statistics", "regions", "brain_ldm", "simulate", "dicom")
CONTROLS = ("cancel", "shutdown")
#: Whose fault an error is: what was given, the model, too little memory, a missing Python package, or ours.
KINDS = ("input", "bundle", "memory", "dependency", "internal")
#: Exit code of a worker that cannot even start, because a package is missing that it is made of.
EXIT_MISSING = 69
#: No request is this long; what is comes from something that is no program of ours.
MAX_LINE = 1 << 20


class ProtocolError(DemistError):
    """A line that is no request. ``id`` is the line's, as far as it can be told."""

    def __init__(self, message: str, id: int | None = None) -> None:
        super().__init__(message)
        self.id = id


def decode(line: bytes) -> dict[str, Any]:
    """A request from a line.

    Raises:
        ProtocolError: not JSON, no object, no whole number as ``id``, an unknown ``do``, or a field of another type
            than :mod:`.fields` says.
    """
    if len(line) > MAX_LINE:
        raise ProtocolError(f"A line of {len(line):,} bytes is no request; one has at most {MAX_LINE:,}.")
    try:
        request = parse_json(line.decode("utf-8"))
    except ValueError:
        raise ProtocolError(f"This line is not JSON: {_shown(line)}; send one JSON object a line.") from None
    if not isinstance(request, dict):
        raise ProtocolError(f"This line is no JSON object: {_shown(line)}; send one JSON object a line.")
    number, do = request.get("id"), request.get("do")
    if not isinstance(number, int) or isinstance(number, bool):
        raise ProtocolError(f"A request needs a whole number as its id, not {shown(number)}.")
    if not isinstance(do, str) or do not in (*JOBS, *CONTROLS):
        raise ProtocolError(f"There is no job {shown(do)}; choose {', '.join((*JOBS, *CONTROLS))}.", number)
    if do == "cancel" and not isinstance(request.get("target"), int):
        raise ProtocolError("Say which job to cancel: its id as target.", number)
    try:
        check_request(request)
    except ValueError as error:
        raise ProtocolError(f"This request cannot be used: {error}.", number) from None
    return request


def encode(message: dict[str, Any]) -> bytes:
    """A message as a line; numbers that JSON does not know (NaN, infinities) become null.

    ASCII, all else as JSON's escapes: a path whose bytes are no UTF-8 holds lone surrogates, which no encoding takes.
    """
    return json.dumps(_plain(message), ensure_ascii=True, allow_nan=False).encode("ascii") + b"\n"


class Sender:
    """Sends messages, each in one piece, from any thread; ``write`` takes the bytes of a line."""

    def __init__(self, write: Callable[[bytes], Any]) -> None:
        self._write = write
        self._lock = Lock()

    def __call__(self, id: int | None, event: str, **content: Any) -> None:
        """Send an event about job ``id``."""
        line = encode({"id": id, "event": event, **content})
        with self._lock:
            self._write(line)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, (str, int, bool)):
        return value
    if hasattr(value, "tolist"):  # NumPy's numbers and arrays
        return _plain(value.tolist())
    return str(value)  # paths


def _shown(line: bytes) -> str:
    return shown(line[:200].decode("utf-8", "replace").strip())
