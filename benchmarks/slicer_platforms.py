"""What an installation resolves to on each system that Slicer runs on: ``python benchmarks/slicer_platforms.py``.

pip, asked for the packages of DEMISTSlicer/Resources/requirements.txt with the installer's own constraints, for another
system and Python than the one it runs on, wheels only (``--dry-run --platform --python-version``). pip takes the wheels
of the other system but reads conditions (``; sys_platform == "darwin"``) as those of its own; here it is told the other
system's. Nothing is installed. The index is the one that pip is configured for: torch from there, not one of the builds
for a GPU.

Exit code 1 if one that should does not resolve.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ROOT / "DEMISTSlicer" / "Resources" / "requirements.txt"
#: Systems: tags of wheels, the first being what Python calls the platform, and what conditions are about.
MACOS = 13
SYSTEMS = {
    "macOS, Intel": (
        [f"macosx_{MACOS}_0_x86_64"],
        {"sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "x86_64", "os_name": "posix"},
    ),
    "macOS, Apple silicon": (
        [f"macosx_{MACOS}_0_arm64"],
        {"sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64", "os_name": "posix"},
    ),
    "Windows": (
        ["win_amd64"],
        {"sys_platform": "win32", "platform_system": "Windows", "platform_machine": "AMD64", "os_name": "nt"},
    ),
    "Linux": (
        ["linux_x86_64", "manylinux2014_x86_64", *(f"manylinux_2_{minor}_x86_64" for minor in range(17, 32))],
        {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64", "os_name": "posix"},
    ),
}
#: Of Slicer 5.6 and 5.8; of none; of none; of 5.10 and later.
PYTHONS = ("3.9", "3.10", "3.11", "3.12")
#: The oldest that DEMIST is for.
LOWEST = (3, 10)
SHOWN = ("torch", "monai", "numpy", "scipy", "simpleitk", "deepbet", "nilearn", "highdicom")
#: pip, told of another system.
_PIP = """
import json, runpy, sys
from pip._vendor.packaging import markers
told, real = json.loads(sys.argv.pop(1)), markers.default_environment
markers.default_environment = lambda: {**real(), **told}
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--python", nargs="+", default=PYTHONS, help="versions (default: %(default)s)")
    p.add_argument("--system", nargs="+", default=tuple(SYSTEMS), choices=SYSTEMS, help="systems (default: all)")
    p.add_argument("--out", type=Path, help="also write all versions as JSON")
    return p


def constraints(system: str) -> tuple[str, ...]:
    """What the installer adds there, see :func:`DEMISTCore.environment.torch_build.choose`."""
    from DEMISTCore.environment import torch_build

    tags, told = SYSTEMS[system]
    platform = tags[0].replace("_", "-").replace("x86-64", "x86_64")
    with (
        mock.patch.object(torch_build, "sys", SimpleNamespace(platform=told["sys_platform"])),
        mock.patch.object(torch_build, "sysconfig", SimpleNamespace(get_platform=lambda: platform)),
    ):
        return torch_build.choose("cpu").constraints


def resolve(system: str, python: str, folder: Path) -> dict[str, str] | str:
    """Versions by name of all that would be installed; or why that cannot be."""
    tags, told = SYSTEMS[system]
    conditions = {**told, "python_version": python, "python_full_version": f"{python}.10"}
    limits = folder / "constraints.txt"
    limits.write_text("\n".join(constraints(system)) + "\n", encoding="utf-8")
    report = folder / "report.json"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-c", _PIP, json.dumps(conditions), "install", "--quiet", "--dry-run"]
    command += ["--ignore-installed", "--only-binary=:all:", "--target", str(folder / "packages")]
    command += ["--python-version", python, "--implementation", "cp", "--report", str(report)]
    command += [word for tag in tags for word in ("--platform", tag)]
    command += ["--requirement", str(REQUIREMENTS), "--constraint", str(limits)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR: No matching")]
        return said[-1].removeprefix("ERROR: ") if said else done.stderr[-300:].replace("\n", " ")
    packages = json.loads(report.read_text(encoding="utf-8"))["install"]
    return {entry["metadata"]["name"].lower(): entry["metadata"]["version"] for entry in packages}


def main(argv: Sequence[str] | None = None) -> int:
    """Resolve for each system and Python, and print a Markdown table."""
    args = parser().parse_args(argv)
    sys.path.insert(0, str(ROOT))
    told: dict[str, dict[str, str] | str] = {}
    failed = False
    print(f"| system | Python | packages | {' | '.join(SHOWN)} |\n|---|---|---:|{'---|' * len(SHOWN)}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for system in args.system:
            for python in args.python:
                found = told[f"{system}, {python}"] = resolve(system, python, Path(folder))
                if isinstance(found, str):
                    failed |= tuple(map(int, python.split("."))) >= LOWEST
                    print(f"| {system} | {python} | none | {found} |", flush=True)
                else:
                    versions = " | ".join(found.get(name, "") for name in SHOWN)
                    print(f"| {system} | {python} | {len(found)} | {versions} |", flush=True)
    if args.out:
        args.out.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
