"""The tutorial's steps 1 to 7 beside nothing but Slicer's packages: ``python benchmarks/slicer_tutorial.py``.

1. Makes an environment that holds the packages of a Slicer release, in the versions that its sources pin
   (``SuperBuild/External_python-*.cmake``), and what stands in for its Qt application in the tests (slicer-core,
   trame-slicer, slicer-layer-dm, PySide6). SimpleITK, where that release builds it itself, is not in it.
2. Drives the panel in it, off screen, by clicks: docs/slicer.md, *Tutorial: a first map*. The first click installs the
   worker's own environment, by the module's installer, from the package index that pip is configured for.
3. Compares ``pip freeze --all`` of the first environment, and a digest of each of its files, before and after.

Measured beside that: seconds of each step, and for how long the main thread was blocked in it (the longest gap between
two beats of a Qt timer of 5 ms; by what: slicer_heart.py) with a machine that has other work, too.

    python benchmarks/slicer_tutorial.py --slicer SLICER_GIT --release v5.10.0 --python python3.12 --work /tmp/tutorial
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
#: What the harness of the tests needs, and Slicer has as parts of itself.
HARNESS = ("slicer-core==5.11.0.6", "trame-slicer==2.0.0", "slicer-layer-dm==2.0.0", "PySide6_Essentials")
#: Longest wait for a step, seconds.
PATIENCE = 3600.0
#: Seconds without a beat of the event loop from which on it is told what blocked.
NOTED = 0.05


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--slicer", type=Path, help="git repository of Slicer's sources")
    p.add_argument("--release", default="v5.10.0", help="tag or commit there (default: %(default)s)")
    p.add_argument("--python", default="python3.12", help="the Python to take (default: %(default)s, as Slicer)")
    p.add_argument("--torch", help="torch to install first, as the PyTorch extension does, for example 2.7.1+cpu")
    p.add_argument("--work", type=Path, required=True, help="folder for all that is made, new or empty")
    p.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Make the environment, drive the panel in it, compare; exit code 1 if a step failed or a package changed."""
    args = parser().parse_args(argv)
    if args.inside:
        return drive(args.work)
    if args.slicer is None:
        parser().error("--slicer is needed")
    args.work.mkdir(parents=True, exist_ok=True)
    pins = pinned(args.slicer, args.release)
    python = make(args.work / "slicer", args.python, pins, args.torch)
    before = freeze(python), digests(args.work / "slicer")
    command = [str(python), str(Path(__file__).resolve()), "--inside", "--work", str(args.work.resolve())]
    # Python's own bytecode, as Slicer ships it; kept out of the sources and of "Slicer's" environment.
    variables = {**os.environ, "PYTHONPYCACHEPREFIX": str(args.work.resolve() / "bytecode")}
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    compiled = [str(python), "-m", "compileall", "-q", str(ROOT / "DEMISTSlicer"), str(ROOT / "DEMISTCore")]
    subprocess.run(compiled, env=variables, check=True)
    code = subprocess.run(command, cwd=args.work, env=variables, check=False).returncode
    after = freeze(python), digests(args.work / "slicer")
    same = [one == other for one, other in zip(before, after)]
    print(f"\n{args.release}: {len(pins)} pinned packages, {len(before[0].splitlines())} in all, torch: {args.torch}")
    print(f"pip freeze --all {'unchanged to the byte' if same[0] else 'CHANGED'}; ", end="")
    print(f"{len(before[1])} files {'unchanged' if same[1] else 'CHANGED'}")
    for line in sorted(set(before[1].items()) ^ set(after[1].items()))[:20]:
        print(" ", line[0])
    return int(code != 0 or not all(same))


def pinned(repository: Path, release: str) -> list[str]:
    """The packages that a release of Slicer installs into its Python, as ``name==version``."""

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", repository, *words], check=True, capture_output=True, text=True).stdout

    names = git("ls-tree", "--name-only", release, "SuperBuild/").split()
    texts = (git("show", f"{release}:{name}") for name in names if "External_python-" in name)
    lines = (re.findall(r"^\s*([A-Za-z0-9_.-]+(?:\[\w+\])?==[^\s\\;]+)", text, re.M) for text in texts)
    return sorted({line for found in lines for line in found}, key=str.lower)


def make(folder: Path, python: str, pins: list[str], torch: str | None) -> Path:
    """A virtual environment with these packages and the harness's; its Python. Kept if it is there already."""
    inside = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    if (folder / "complete").exists():
        return inside
    subprocess.run([python, "-m", "venv", str(folder)], check=True)
    limits = folder / "slicer.txt"
    limits.write_text("\n".join(pins) + "\n", encoding="utf-8")
    first = [pin for pin in pins if pin.startswith("pip==")]
    pip = [str(inside), "-m", "pip", "install", "--quiet"]
    if first:
        subprocess.run([*pip, *first], check=True)
    subprocess.run([*pip, "-r", str(limits), *HARNESS], check=True)
    if torch:
        subprocess.run([*pip, "-c", str(limits), f"torch=={torch}"], check=True)
    (folder / "complete").touch()
    return inside


def freeze(python: Path) -> str:
    """What pip says is installed."""
    done = subprocess.run([str(python), "-m", "pip", "freeze", "--all"], check=True, capture_output=True, text=True)
    return done.stdout


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each file, by its path in the folder; what Python compiled for itself is left out."""
    files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def drive(work: Path) -> int:
    """Inside: the tutorial, step by step, by clicks in the panel."""
    sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "Testing")]
    began = time.perf_counter()
    import slicer_app

    slicer_app.install()
    from slicer_heart import Heart

    print(f"application stood in for: {time.perf_counter() - began:.1f} s", flush=True)
    from DEMISTSlicerLib.Install import Place

    Place.choose(work / "environments")
    tour = Tour(work, Heart())
    steps = (
        ("open the module", tour.open),
        ("1a install the worker's environment", tour.install),
        ("1b load the sample patient", tour.sample),
        ("2 inputs are chosen", tour.inputs),
        ("3 the mean", tour.mean),
        ("4 Apply", tour.apply),
        ("5 look", tour.look),
        ("6a suggest lesions, mark them as checked", tour.regions),
        ("6b statistics, charts, CSV", tour.measure),
        ("6c report", tour.report),
        ("7 save, close, load", tour.save),
    )
    rows = []
    for name, step in steps:
        begun = time.perf_counter()
        step()
        slicer_app.process_events(0.1)
        gap = tour.heart.take()
        row = {"step": name, "seconds": time.perf_counter() - begun, "gap_ms": 1000 * gap.seconds}
        rows.append({**row, "computed_ms": 1000 * gap.computed, "blocked_by": gap.owners()})
        print("| {step} | {seconds:.1f} | {gap_ms:.0f} |".format(**row), flush=True)
        if gap.seconds > NOTED:
            print(f"  blocked for {gap.words()}", flush=True)
    slicer_app.close_module()
    shared = [name for name in ("torch", "monai", "nibabel", "nilearn") if name in sys.modules]
    assert not shared, f"Slicer's process has imported {shared}"
    (work / "steps.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return 0


class Tour:
    """The panel, and what a person does with it.

    Args:
        work: folder for files that are saved.
        heart: tells how long the main thread was blocked.
    """

    def __init__(self, work: Path, heart: Any) -> None:
        self.work, self.heart = work, heart
        self.widget: Any = None
        self.ui: Any = None

    @property
    def chosen(self) -> Any:
        """The scene's parameters."""
        return self.widget._parameterNode

    def open(self) -> None:
        """The module is opened for the first time, after Slicer has loaded it and had time to read ahead."""
        import slicer_app
        from slicer_responsiveness import turn

        slicer_app.fresh_scene()
        module = slicer_app.open_module()
        module.code.readAhead()
        turn(until=lambda: not module.code._ahead)
        self.heart.take()
        parent = module.widgetRepresentation()
        self.widget, self.ui = parent.self(), parent.self().ui
        parent.resize(430, 1800)
        parent.show()
        parent.enter()
        assert not self.widget.installer.isReady(), "the packages are there already"

    def install(self) -> None:
        """*Load sample patient* asks for the packages, and installs them."""
        asked: list[str] = []
        self.widget.installer._confirm = lambda text, packages: asked.append(text) or True
        self.click("sampleButton")
        assert asked, "nobody was asked"
        self.wait(lambda: not self.widget.installer.isRunning)
        assert self.widget.installer.isReady(), self.ui.logTextEdit.plainText
        print(self.ui.environmentLabel.text, flush=True)

    def sample(self) -> None:
        """It goes on by itself."""
        self.run()
        assert self.chosen.t1 is not None, self.ui.logTextEdit.plainText

    def inputs(self) -> None:
        """T1w and FLAIR are chosen, and nothing is doubtful."""
        assert "T1" in self.chosen.t1.GetName()
        assert "FLAIR" in self.chosen.flair.GetName()
        assert self.ui.applyButton.enabled
        assert not self.ui.inputsHintLabel.text

    def mean(self) -> None:
        """What the model recommends is left."""
        print(f"Map: {self.ui.presetComboBox.currentText}", flush=True)

    def apply(self) -> None:
        """The map is made, on the T1w's grid, with plausible means."""
        import slicer

        self.run("applyButton")
        psr = self.chosen.psr
        assert psr is not None, self.ui.logTextEdit.plainText
        assert slicer.util.arrayFromVolume(psr).shape == slicer.util.arrayFromVolume(self.chosen.t1).shape
        print(f"{self.ui.stageLabel.text}; {psr.GetName()}", flush=True)

    def look(self) -> None:
        """Over the T1w, then not, then again; in percent, and as a fraction."""
        assert self.widget.overlay.isShown
        self.click("overlayButton")
        assert not self.widget.overlay.isShown
        self.click("overlayButton")
        assert self.widget.overlay.isShown
        self.chosen.unit = "percent"
        self.chosen.unit = "fraction"

    def regions(self) -> None:
        """Lesions are suggested, and checked."""
        self.run("suggestButton")
        assert self.chosen.lesions is not None, self.ui.logTextEdit.plainText
        self.click("checkedButton")

    def measure(self) -> None:
        """Table, charts, CSV."""
        self.run("statisticsButton")
        assert self.ui.statisticsTable.rowCount > 3, self.ui.logTextEdit.plainText
        self.click("rocButton")
        self.click("boxPlotButton")
        self.saved("exportButton", "numbers.csv")

    def report(self) -> None:
        """One page about the map."""
        self.saved("reportButton", "report.html", self.run)

    def save(self) -> None:
        """The scene is saved, closed and loaded; what was chosen is back."""
        import slicer
        import slicer_app

        name, rows = self.chosen.psr.GetName(), self.ui.statisticsTable.rowCount
        file = self.work / "scene.mrb"
        assert slicer.mrmlScene.WriteToMRB(str(file))
        slicer_app.fresh_scene()
        slicer_app.process_events()
        assert self.ui.t1Selector.currentNode() is None
        assert slicer.mrmlScene.ReadFromMRB(str(file), True)
        slicer_app.process_events()
        assert self.chosen.psr.GetName() == name
        assert self.ui.statisticsTable.rowCount == rows
        assert self.ui.applyButton.enabled

    def click(self, name: str) -> None:
        """Press a button that can be pressed."""
        from PySide6.QtCore import Qt
        from PySide6.QtTest import QTest

        button = getattr(self.ui, name)
        assert button.enabled, f"{name} cannot be pressed: {button.toolTip}"
        QTest.mouseClick(button, Qt.MouseButton.LeftButton)

    def run(self, name: str | None = None) -> None:
        """Press a button, and wait for the run's end."""
        if name is not None:
            self.click(name)
        self.wait(lambda: not self.widget.logic.isRunning)

    def saved(self, button: str, name: str, press: Callable[[str], object] | None = None) -> None:
        """Press a button that asks for a file, and see that it is there."""
        import qt

        file = self.work / name
        file.unlink(missing_ok=True)
        before = qt.QFileDialog.getSaveFileName
        qt.QFileDialog.getSaveFileName = staticmethod(lambda *_: str(file))
        try:
            (press or self.click)(button)
        finally:
            qt.QFileDialog.getSaveFileName = before
        assert file.stat().st_size > 0, self.ui.logTextEdit.plainText

    @staticmethod
    def wait(condition: Callable[[], object]) -> None:
        """Let the application work until something holds."""
        from slicer_responsiveness import turn

        end = time.monotonic() + PATIENCE
        turn(until=lambda: condition() or time.monotonic() > end)
        assert condition(), "it does not end"


if __name__ == "__main__":
    raise SystemExit(main())
