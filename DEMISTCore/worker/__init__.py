"""A child process that works for another program, 3D Slicer above all: ``python -m DEMISTCore.worker``.

The parent writes one JSON object a line to its standard input and reads one a line from its standard output. The model
and the prepared images stay in memory between jobs, so that a second run starts sampling at once.
:mod:`.protocol` is what the lines look like, :mod:`.exchange` how volumes cross, :mod:`.jobs` what can be asked for,
:mod:`.cache` what is kept, :mod:`.serve` the process itself. None of them loads torch before a job needs it.
"""

from .protocol import PROTOCOL

__all__ = ["PROTOCOL"]
