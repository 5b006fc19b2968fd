"""All methods, in the order of the tables."""

from __future__ import annotations

from ...errors import InputError
from . import baselines, bounds, demist, local, lookups, regression
from .method import Context, Method

BUILDERS = (lookups.build, local.build, regression.build, baselines.build, demist.build, bounds.build)
_WRITERS = (local.build, lookups.build)


def choose_methods(context: Context) -> list[Method]:
    """The methods that the options ask for.

    Raises:
        InputError, BundleError: what was given cannot be used, or two methods have one name.
    """
    # Look-ups and fits write what they found; they come after all that may refuse what was given.
    order = sorted(BUILDERS, key=lambda build: _WRITERS.index(build) if build in _WRITERS else -1)
    built = {build: build(context) for build in order}
    methods = [method for build in BUILDERS for method in built[build]]
    names = [name for method in methods for name in method.names]
    if len(set(names)) < len(names):
        raise InputError("Two methods have one name; choose other names in --compare.")
    return methods
