"""Measured PSR maps as labs have them: slabs, in percent, moved, with holes; read so that "unknown" is never 0."""

from .maps import MeasuredMap, filled, is_complete, read_measured

__all__ = ["MeasuredMap", "filled", "is_complete", "read_measured"]
