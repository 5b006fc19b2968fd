"""All methods, in the order of the tables."""

from __future__ import annotations

from ...errors import InputError
from . import bounds, demist, local, lookups, regression
from .method import Context, Method

BUILDERS = (lookups.build, local.build, regression.build, demist.build, bounds.build)


def choose_methods(context: Context) -> list[Method]:
    """The methods that the options ask for.

    Raises:
        InputError, BundleError: what was given cannot be used, or two methods have one name.
    """
    methods = [method for build in BUILDERS for method in build(context)]
    names = [name for method in methods for name in method.names]
    if len(set(names)) < len(names):
        raise InputError("Two methods have one name; choose other names in --compare.")
    return methods
