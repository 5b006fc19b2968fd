"""Which torch fits the machine: the caller's own, the CPU's, or the one made for the NVIDIA driver that is there."""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote

#: Builds on the index of the PyTorch project: lowest CUDA version of the driver, name, and the last torch there is.
_CUDA = (
    ((13, 0), "cu130", ""),
    ((12, 8), "cu128", ""),
    ((12, 6), "cu126", ""),
    ((12, 4), "cu124", "<2.7"),
    ((11, 8), "cu118", "<2.8"),
)
_INDEX = "https://download.pytorch.org/whl/"
#: What a wheel for a GPU brings and one in another place has already.
_COMPANIONS = re.compile(r"(nvidia|triton|pytorch-triton|cuda)", re.I)


@dataclass(frozen=True)
class TorchBuild:
    """Where torch comes from.

    Attributes:
        name: ``shared``, ``default`` (as the package index has it), ``cpu``, or a CUDA build as ``cu128``.
        text: for people.
        index: of packages that torch alone is taken from; empty for the usual one.
        options: of pip.
        constraints: lines of a constraints file.
        shared: folders that the caller's own torch is in.
        wheel: file that torch is taken from, and from nowhere else.
    """

    name: str
    text: str
    index: str = ""
    options: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    wheel: Path | None = None


def choose(wanted: str, offline: bool = False) -> TorchBuild:
    """The build for this machine.

    Args:
        wanted: ``auto``, or ``cpu`` for the smallest, whatever GPU there is.
        offline: there is no index to choose from; the folder of wheels has the one that is taken.
    """
    old = intel_mac()
    # torch up to 2.2 was compiled for numpy 1, and torch 2.2 is the last for Macs with an Intel processor.
    constraints = ("numpy<2",) if old else ()
    if offline or sys.platform == "darwin":
        return TorchBuild("default", "torch for this computer", constraints=constraints)
    if wanted != "cpu":
        driver = cuda_of_driver()
        for lowest, name, last in _CUDA:
            if driver is not None and driver >= lowest:
                limits = (f"torch{last}",) if last else ()
                text = f"torch for NVIDIA GPUs (CUDA {lowest[0]}.{lowest[1]})"
                return TorchBuild(name, text, _INDEX + name, constraints=limits)
    if sys.platform == "win32":
        return TorchBuild("cpu", "torch for the CPU")  # the package index has this one for Windows
    return TorchBuild("cpu", "torch for the CPU", _INDEX + "cpu")


def intel_mac() -> bool:
    """True for Python on (or emulating) an Intel processor under macOS."""
    return sys.platform == "darwin" and sysconfig.get_platform().endswith("x86_64")


def cuda_of_driver() -> tuple[int, int] | None:
    """The highest CUDA version that the NVIDIA driver of this machine supports; None: no driver."""
    try:
        done = subprocess.run(["nvidia-smi"], capture_output=True, text=True, errors="replace", timeout=20, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"CUDA Version:\s*(\d+)\.(\d+)", done.stdout)
    return (int(found[1]), int(found[2])) if found and done.returncode == 0 else None


def own_torch() -> tuple[str, Path, list[str]] | None:
    """Version, folder and requirements of the torch that this Python has; None if it has none. It is not imported."""
    try:
        found = metadata.distribution("torch")
        folder = Path(str(found.locate_file("")))
    except metadata.PackageNotFoundError:
        return None
    return (found.version, folder, list(found.requires or ())) if (folder / "torch" / "__init__.py").is_file() else None


def share(version: str, folder: Path, requires: list[str], wheels: Path) -> TorchBuild:
    """Take the torch that is in ``folder`` already, instead of another of some gigabytes.

    pip is given a wheel with nothing in it but the name, this version and what else it needs, so that all others are
    chosen to fit and none brings another torch. It is named as a file: among all that there are of this version pip
    would prefer the index's own wheel, which is made for this system.
    """
    needed = [line for line in requires if "extra ==" not in line and not _COMPANIONS.match(line)]
    wheel = _nominal_wheel(wheels, version, needed)
    constraints = [f"torch=={version}"]
    if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < (2, 3):
        constraints.append("numpy<2")
    return TorchBuild(
        "shared",
        f"torch {version} that is installed already",
        constraints=tuple(constraints),
        shared=(str(folder),),
        wheel=wheel,
    )


def fetched(build: TorchBuild, wheels: Path) -> TorchBuild:
    """The same build, taken from the one wheel of torch that was fetched into ``wheels``."""
    (wheel,) = wheels.glob("torch-*.whl")
    version = unquote(wheel.name.split("-")[1])
    return replace(build, options=("--find-links", str(wheels)), constraints=(*build.constraints, f"torch=={version}"))


def _nominal_wheel(folder: Path, version: str, requires: list[str]) -> Path:
    info = f"torch-{version}.dist-info"
    files = {
        f"{info}/METADATA": "\n".join(
            [
                "Metadata-Version: 2.1",
                "Name: torch",
                f"Version: {version}",
                *(f"Requires-Dist: {line}" for line in requires),
                "",
            ]
        ),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: demist\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = []
    for name, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).rstrip(b"=").decode()
        record.append(f"{name},sha256={digest},{len(content.encode())}")
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""])
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"torch-{version}-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as wheel:
        for name, content in files.items():
            wheel.writestr(name, content)
    return file
