"""A Python environment of its own for DEMIST's worker: a folder of packages beside which the caller's stay untouched.

``python -m DEMISTCore.environment build --folder DIR`` installs into it with pip, tries it out and says so in lines of
JSON; ``remove`` deletes it. :mod:`.place` is what lies where and how a program is started in it, :mod:`.build` how it
comes to be, :mod:`.pip` what pip says, :mod:`.torch_build` which torch fits the machine, :mod:`.check` whether it
works. Only the standard library is needed: this runs where nothing is installed yet.
"""

from .place import Environment, arguments, read_environment, variables

__all__ = ["Environment", "arguments", "read_environment", "variables"]
