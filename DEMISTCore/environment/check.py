"""Whether an environment works: every package is imported, and a kernel is run on what torch is to compute on.

Run in the environment, ``python -m DEMISTCore.environment.check NAME ...``; says so in one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from importlib import import_module, metadata
from typing import Any

#: Distributions whose module is called otherwise.
MODULES = {"simpleitk": "SimpleITK", "pyyaml": "yaml", "pillow": "PIL"}


def module_name(distribution: str) -> str:
    """What to import of a distribution."""
    normal = re.sub(r"[-_.]+", "-", distribution).lower()
    return MODULES.get(normal, normal.replace("-", "_"))


def check(names: list[str]) -> dict[str, Any]:
    """Import all of ``names`` (distributions) and try torch, if it is among them.

    Returns:
        ``versions`` of all distributions; ``device``, ``note``, see :class:`.place.Environment`; ``error``, a sentence,
        if there is one.
    """
    told: dict[str, Any] = {"versions": {}, "device": "cpu", "note": "", "error": ""}
    for found in metadata.distributions():
        if found.metadata["Name"]:
            told["versions"].setdefault(found.metadata["Name"].lower(), found.version)
    for name in names:
        try:
            import_module(module_name(name))
        except Exception as error:  # a package that is damaged raises whatever it likes
            words = " ".join(str(error).split())[:200]
            told["error"] = f"{name} is installed but does not load ({type(error).__name__}: {words}); press Repair."
            return told
    if "torch" in names:
        told["device"], told["note"] = try_torch()
    return told


def try_torch() -> tuple[str, str]:
    """What torch computes on, and a sentence where that is not the GPU that it sees."""
    import torch

    def kernel(device: str) -> None:
        image = torch.ones(1, 1, 8, 8, 8, device=device)
        weight = torch.ones(1, 1, 3, 3, 3, device=device)
        if float(torch.nn.functional.conv3d(image, weight).sum()) != 27.0 * 216:
            raise RuntimeError("it computes wrong numbers")

    kernel("cpu")
    gpu = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else ""
    if not gpu:
        return "cpu", ""
    try:
        kernel(gpu)
    except Exception as error:
        words = " ".join(str(error).split())[:160]
        return "cpu", f"The GPU cannot be used with torch {torch.__version__} ({words}); the CPU is used instead."
    return gpu, ""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="python -m DEMISTCore.environment.check",
        description="Load packages and try what torch computes on; says in one line of JSON how that went.",
    )
    p.add_argument("names", nargs="+", metavar="NAME", help="distribution, as pip calls it")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Check."""
    print(json.dumps(check(parser().parse_args(argv).names)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
