"""What the module does, without its panel: for the panel, and for the Python console.

>>> logic = slicer.util.getModuleLogic("DEMISTSlicer")  # doctest: +SKIP
>>> result = logic.synthesize(t1Node, flairNode, seeds=4)  # doctest: +SKIP
>>> result.psr, result.uncertainty  # doctest: +SKIP
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import slicer
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic

from .Core import ensureCore
from .I18n import _
from .Job import Job
from .Process import Channel, WorkerProcess
from .Result import Result
from .RunError import RunError
from .Signal import Signal
from .StatisticsResult import StatisticsResult
from .Steps import Steps
from .Timings import Timings

ensureCore()

from . import Exchange  # noqa: E402  (it reads DEMISTCore's errors)

#: Names that the child gives its stages, and what people read.
STAGES = {
    "load": _("Loading the model"),
    "read": _("Reading the images"),
    "brain mask": _("Finding the brain"),
    "registration": _("Registering the FLAIR to the T1w"),
    "slices": _("Evening out slices"),
    "resampling": _("Resampling"),
    "bias field": _("Correcting the bias fields"),
    "normalisation": _("Normalising"),
    "prepared": _("Images are ready"),
    "encode": _("Encoding the images"),
    "sampling": _("Sampling"),
    "write": _("Writing"),
    "regions": _("Finding lesions and tissue"),
    "table": _("Measuring regions"),
    "curves": _("Computing ROC curves"),
    "comparison": _("Comparing maps"),
    "simulate": _("Simulating a patient"),
    "done": _("Done"),
}


class DEMISTSlicerLogic(ScriptedLoadableModuleLogic):
    """Runs jobs in the child process and makes nodes of what comes back. One job at a time.

    Every method that runs something waits for it by default, with the application alive; with ``wait=False`` it
    returns a :class:`~DEMISTSlicerLib.Job.Job` at once, and callbacks and signals tell the rest. What is wrong with the
    arguments is raised at once as a :class:`~DEMISTSlicerLib.RunError.RunError`.

    Signals: ``started(kind)``, ``progressChanged(stage, fraction, remainingSeconds)``, ``logMessage(text)``,
    ``previewUpdated(node)``, ``devicesChanged()``, and at the end one of ``finished(result)``,
    ``failed(kind, message)``, ``cancelled()``.
    """

    def __init__(self, launch: Callable[[], Channel] | None = None) -> None:
        """Nothing is started; the child comes with the first run.

        Args:
            launch: makes the channel to the child, see :class:`~DEMISTSlicerLib.Process.WorkerProcess`.
        """
        super().__init__()
        self.moduleName = "DEMISTSlicer"
        self.started, self.progressChanged, self.logMessage = Signal(), Signal(), Signal()
        self.previewUpdated, self.devicesChanged = Signal(), Signal()
        self.finished, self.failed, self.cancelled = Signal(), Signal(), Signal()
        self.timings = Timings()
        self._launch = launch
        self._folder: Path | None = None
        self._process: WorkerProcess | None = None
        self._numbers = itertools.count(1)
        self._job: Job | None = None
        self._devices: list[tuple[str, str]] | None = None
        self._asked: int | None = None
        self._hasModel = False
        self._images: Any = None  # what the worker has prepared
        self._stamps: dict[str, tuple[int, ...]] = {}  # of segmentations as they were made
        self._preview: Any = None
        self._previewSteps: Steps | None = None
        self._expected: float | None = None

    # --- what is there -------------------------------------------------------------------------------------------

    @property
    def isRunning(self) -> bool:
        """True while a job runs."""
        return self._job is not None and self._job.isRunning

    @property
    def currentJob(self) -> Job | None:
        """The job that runs, or None."""
        return self._job if self.isRunning else None

    def bundles(self) -> list[dict[str, Any]]:
        """The models that are found, the default first: name, path, description, simulated, licence, card, sampling.

        The panel's tooltips show card and licence; ``sampling`` is what the model recommends.
        """
        from DEMISTCore.bundle import DEFAULT_BUNDLE, list_bundles

        names = sorted(list_bundles(), key=lambda name: (name != DEFAULT_BUNDLE, name))
        return [told for told in map(self.describeBundle, names) if told is not None]

    def describeBundle(self, bundle: str) -> dict[str, Any] | None:
        """One of :meth:`bundles`, by name or folder; None if there is none or it cannot be read."""
        from DEMISTCore.bundle import CARD_FILE, SAMPLING, find_base, find_folder, read_description
        from DEMISTCore.errors import DemistError

        try:
            folder = find_folder(bundle)
            info = read_description(folder)
            if info["kind"] != "demist":
                return None
            base = read_description(find_base(folder, info["base"]))
        except (DemistError, OSError, KeyError):
            return None
        card = folder / CARD_FILE
        return {
            "name": info["name"],
            "path": str(folder),
            "description": info.get("description", ""),
            "simulated": bool(info["simulated"]) or bool(base["simulated"]),
            "licence": info["licence"],
            "card": card.read_text(encoding="utf-8", errors="replace") if card.is_file() else "",
            "sampling": {**SAMPLING, **(base.get("sampling") or {}), **(info.get("sampling") or {})},
        }

    def devices(self) -> list[tuple[str, str]]:
        """What to compute on, (name, text) each, "auto" first; what is known so far, see :meth:`askDevices`."""
        known = self._devices or [("cpu", _("CPU ({n} cores)").format(n=os.cpu_count() or 1))]
        best = known[0][1]
        automatic = _("Automatic ({best})").format(best=best) if self._devices else _("Automatic")
        return [("auto", automatic), *known]

    def askDevices(self, bundle: str | None = None) -> None:
        """Let the worker look for GPUs in the background; ``devicesChanged`` tells when it has.

        Args:
            bundle: a model to bring into memory on the occasion, so that the first run starts sooner.
        """
        request: dict[str, Any] = {"do": "hello", "devices": True}
        if bundle:
            request["bundle"] = bundle
        self._asked = next(self._numbers)
        self._worker().send({**request, "id": self._asked})

    def expectedSeconds(
        self,
        seeds: int | Sequence[int] | None = None,
        steps: int | None = None,
        guidance: Any = None,
        device: str = "auto",
        bundle: str | None = None,
        prepared: bool = False,
    ) -> float:
        """How long a synthesis will take here, about; ``prepared``: with the images of the last run."""
        advice = (self.describeBundle(bundle or _defaultBundle()) or {}).get("sampling", {"seeds": 4, "steps": 10})
        count = advice["seeds"] if seeds is None else seeds if isinstance(seeds, int) else len(seeds)
        guidance = advice.get("guidance") if guidance is None else guidance
        warm = self._hasModel and self._process is not None and self._process.isRunning
        return self.timings.seconds(
            self._resolved(device), count, steps or advice["steps"], guidance, prepared=prepared, warm=warm
        )

    # --- jobs ----------------------------------------------------------------------------------------------------

    def synthesize(
        self,
        t1: Any,
        flair: Any,
        seeds: int | Sequence[int] | None = 4,
        steps: int | None = None,
        sampler: str | None = None,
        guidance: float | Mapping[str, float] | None = None,
        firstSeed: int = 0,
        bundle: str | None = None,
        device: str = "auto",
        brainMask: Any = None,
        output: Any = None,
        uncertainty: Any = None,
        preview: bool = False,
        register: bool = True,
        skullStrip: str = "auto",
        biasCorrect: bool = True,
        wait: bool = True,
        onProgress: Callable[..., Any] | None = None,
        onDone: Callable[[Result], Any] | None = None,
        onError: Callable[[str, str], Any] | None = None,
    ) -> Result | Job:
        """Synthesize a PSR map from a T1w and a FLAIR volume.

        Args:
            t1: T1w volume node; the map lies exactly over it, under the same transform.
            flair: FLAIR volume node, on any grid, under any linear transform.
            seeds: number of samples (from ``firstSeed`` on), or which seeds; None: what the model recommends. Several
                give the mean, and an uncertainty map.
            steps, sampler, guidance: of sampling; None: what the model recommends. Guidance is a weight (1 is plain:
                none), or weights by stream.
            firstSeed: where counting starts.
            bundle: model: name or folder.
            device: ``auto``, ``cpu``, ``cuda``, ``cuda:0`` or ``mps``.
            brainMask: volume or segmentation node to use instead of brain extraction.
            output, uncertainty: volume nodes to write into; None makes new ones.
            preview: show the running estimate in the slice views.
            register: register the FLAIR to the T1w; off: they lie over each other already.
            skullStrip: ``auto``, ``deepbet`` or ``none``.
            biasCorrect: remove bias fields.
            wait: see the class.
            onProgress: called with (stage, fraction, remaining seconds or None).
            onDone: called with the result.
            onError: called with (kind, message); kind is ``cancelled`` if it was.

        Raises:
            RunError: something given cannot be used, or another job runs; when waiting, whatever goes wrong.
        """
        self._checkIdle()
        inputs = {"t1w": ("T1w", t1), "flair": ("FLAIR", flair), "brain_mask": (_("brain mask"), brainMask)}
        self._checkInputs(inputs, optional=("brain_mask",))
        self._checkOutputs({_("PSR volume"): output, _("uncertainty volume"): uncertainty}, inputs)
        listed = _seedList(seeds, firstSeed)
        request = {
            "do": "synthesize", "seeds": listed, "steps": steps, "sampler": sampler or None,
            "guidance": dict(guidance) if isinstance(guidance, Mapping) else guidance,
            "bundle": _bundle(bundle), "device": device, "preview": bool(preview),
            "register": bool(register), "skull_strip": skullStrip, "bias_correct": bool(biasCorrect),
        }  # fmt: skip
        images = self._fingerprint(inputs)
        expected = self.expectedSeconds(listed, steps, guidance, device, bundle, prepared=images == self._images)
        make = partial(self._makePsr, t1, inputs, images, output, uncertainty, device)
        if preview:
            self._beginPreview(t1)
        return self._run(request, inputs, t1, make, wait, onProgress, onDone, onError, expected)

    def computeStatistics(
        self,
        psr: Any,
        lesions: Any = None,
        t1: Any = None,
        flair: Any = None,
        brainMask: Any = None,
        uncertainty: Any = None,
        reference: Any = None,
        distances: Mapping[str, Any] | None = None,
        suggest: bool | None = None,
        segmentation: Any = None,
        table: Any = None,
        wait: bool = True,
        onProgress: Callable[..., Any] | None = None,
        onDone: Callable[[StatisticsResult], Any] | None = None,
        onError: Callable[[str, str], Any] | None = None,
    ) -> StatisticsResult | Job:
        """Measure a PSR map in lesions and normal-appearing white matter: table, ROC curves, box plots, segments.

        For a map synthesized from several seeds in this session the table says how far each mean moves from seed to
        seed (column ``seed_sd``): a difference smaller than that is not one to believe.

        Args:
            psr: PSR volume node, synthesized or measured (fraction).
            lesions: segmentation or label map node of lesions; None: suggested, if there are T1w and FLAIR.
            t1: T1w; None: the one that the map was synthesized from.
            flair: FLAIR, for tissue and suggested lesions.
            brainMask: volume or segmentation node; None: where the map is not 0.
            uncertainty: standard deviation over seeds; None: the one that was made with the map.
            reference: another PSR map of this brain to compare with.
            distances: settings of :class:`DEMISTCore.regions.RegionSettings` by name, as ``{"distal_mm": 12}``.
            suggest: suggest lesions from the FLAIR; None: if no lesions are given.
            table: node to write into, its charts into theirs; None makes new ones.
            segmentation: node to write into; None takes the one made with ``table`` unless it was edited since or is
                the lesions, else makes a new one.
            wait, onProgress, onDone, onError: see :meth:`synthesize`.

        Raises:
            RunError: see :meth:`synthesize`.
        """
        from . import Volumes

        self._checkIdle()
        Exchange.checkVolume(psr, _("PSR map"))
        t1 = Volumes.t1wOf(psr) if t1 is None else t1
        uncertainty = Volumes.uncertaintyOf(psr) if uncertainty is None else uncertainty
        suggest = lesions is None and t1 is not None and flair is not None if suggest is None else bool(suggest)
        inputs = {
            "psr": (_("PSR map"), psr), "lesions": (_("lesion mask"), lesions), "t1w": ("T1w", t1),
            "flair": ("FLAIR", flair), "brain_mask": (_("brain mask"), brainMask),
            "uncertainty": (_("uncertainty map"), uncertainty), "reference": (_("reference map"), reference),
        }  # fmt: skip
        self._checkInputs(inputs, optional=tuple(inputs))
        if suggest and lesions is not None:
            raise RunError("input", _("Give lesions, or ask for suggested ones, not both."))
        request = {"do": "statistics", "suggest": suggest, "distances": dict(distances or {}),
                   "provenance": Volumes.provenanceOf(psr) or None}  # fmt: skip
        segmentation = self._unedited(table, lesions) if segmentation is None else segmentation
        make = partial(self._makeStatistics, psr, segmentation, table)
        return self._run(request, inputs, psr, make, wait, onProgress, onDone, onError)

    def suggestLesions(
        self,
        t1: Any,
        flair: Any,
        lesions: Any = None,
        brainMask: Any = None,
        distances: Mapping[str, Any] | None = None,
        segmentation: Any = None,
        wait: bool = True,
        onProgress: Callable[..., Any] | None = None,
        onDone: Callable[[Result], Any] | None = None,
        onError: Callable[[str, str], Any] | None = None,
    ) -> Any:
        """Suggest lesions from the FLAIR, for a person to check, with proximal and distal NAWM.

        Args:
            t1, flair: volume nodes.
            lesions: lesions drawn already; then only NAWM is added.
            brainMask: volume or segmentation node to use instead of brain extraction.
            distances: settings of :class:`DEMISTCore.regions.RegionSettings` by name.
            segmentation: node to write into; None makes a new one.
            wait, onProgress, onDone, onError: see :meth:`synthesize`.

        Returns:
            The segmentation node; a job with ``wait=False``, whose result has it as ``segmentation``.
        """
        self._checkIdle()
        inputs = {"t1w": ("T1w", t1), "flair": ("FLAIR", flair), "lesions": (_("lesion mask"), lesions),
                  "brain_mask": (_("brain mask"), brainMask)}  # fmt: skip
        self._checkInputs(inputs, optional=("lesions", "brain_mask"))
        request = {"do": "regions", "distances": dict(distances or {})}
        make = partial(self._makeRegions, t1, segmentation)
        outcome = self._run(request, inputs, t1, make, wait, onProgress, onDone, onError)
        return outcome.segmentation if wait else outcome

    def generateT1w(
        self,
        age: float = 0.5,
        sex: float = 0.5,
        ventricularVolume: float = 0.5,
        brainVolume: float = 0.5,
        steps: int = 50,
        seed: int = 0,
        bundle: str | None = None,
        device: str = "auto",
        shape: Sequence[int] | None = None,
        wait: bool = True,
        onProgress: Callable[..., Any] | None = None,
        onDone: Callable[[Result], Any] | None = None,
        onError: Callable[[str, str], Any] | None = None,
    ) -> Any:
        """A synthetic T1w brain by Brain LDM; age, sex, ventricular and brain volume are numbers from 0 to 1.

        Returns:
            The volume node; a job with ``wait=False``, whose result has it as ``t1w``.
        """
        self._checkIdle()
        request = {
            "do": "brain_ldm", "age": age, "sex": sex, "ventricular_volume": ventricularVolume,
            "brain_volume": brainVolume, "steps": steps, "seed": seed, "bundle": _bundle(bundle), "device": device,
            "shape": None if shape is None else list(shape),
        }  # fmt: skip
        outcome = self._run(request, {}, None, self._makeT1w, wait, onProgress, onDone, onError)
        return outcome.t1w if wait else outcome

    def simulate(
        self,
        seed: int | None = None,
        wait: bool = True,
        onProgress: Callable[..., Any] | None = None,
        onDone: Callable[[Result], Any] | None = None,
        onError: Callable[[str, str], Any] | None = None,
    ) -> Result | Job:
        """A simulated patient: T1w, FLAIR, true PSR and true lesions as nodes.

        Args:
            seed: another patient than the package's own.
            wait, onProgress, onDone, onError: see :meth:`synthesize`.
        """
        self._checkIdle()
        request = {"do": "simulate", "seed": seed}
        return self._run(request, {}, None, self._makePatient, wait, onProgress, onDone, onError)

    def batch(self, items: Any, **options: Any) -> list[Any]:
        """Synthesize many: pairs of volume nodes, pairs of files, or a folder; see :class:`.Batch.Batch`."""
        from .Batch import Batch

        return Batch(self).run(items, **options)

    def synthesizeFile(
        self,
        t1: str | os.PathLike[str],
        flair: str | os.PathLike[str],
        out: str | os.PathLike[str],
        overwrite: bool = False,
        brainMask: str | os.PathLike[str] | None = None,
        wait: bool = True,
        onProgress: Callable[..., Any] | None = None,
        onDone: Callable[[Result], Any] | None = None,
        onError: Callable[[str, str], Any] | None = None,
        **options: Any,
    ) -> Result | Job:
        """Synthesize from files to a file, with sidecar and uncertainty beside it; the scene stays as it is.

        Args:
            t1, flair, brainMask: image files.
            out: PSR map to write.
            overwrite: replace it.
            wait, onProgress, onDone, onError: see :meth:`synthesize`.
            options: seeds, firstSeed, steps, sampler, guidance, bundle, device, register, skullStrip, biasCorrect, as
                there.
        """
        self._checkIdle()
        names = {"steps": "steps", "sampler": "sampler", "guidance": "guidance", "bundle": "bundle", "device": "device",
                 "register": "register", "skullStrip": "skull_strip", "biasCorrect": "bias_correct"}  # fmt: skip
        seeds, first = options.pop("seeds", 4), options.pop("firstSeed", 0)
        unknown = set(options) - set(names)
        if unknown:
            raise TypeError(f"synthesizeFile() got an unexpected option {sorted(unknown)[0]!r}")
        request = {"do": "synthesize", "seeds": _seedList(seeds, first), "out": _absolute(out), "overwrite": overwrite,
                   "t1w": {"file": _absolute(t1)}, "flair": {"file": _absolute(flair)},
                   **{names[key]: value for key, value in options.items() if value is not None}}  # fmt: skip
        if brainMask is not None:
            request["brain_mask"] = {"file": _absolute(brainMask)}
        request["bundle"] = _bundle(request.get("bundle"))
        return self._run(request, {}, None, self._makeFiles, wait, onProgress, onDone, onError)

    def cancel(self) -> None:
        """Stop the job that runs, if there is one; takes effect within two seconds."""
        if self._job is not None:
            self._job.cancel()

    def shutdown(self) -> None:
        """Stop what runs, end the child, remove temporary files. A later run starts it again."""
        job = self.currentJob
        if job is not None:
            job.cancel()
        if self._process is not None:
            process, self._process = self._process, None
            process.stop()
            process.join(2000)
        if job is not None and job.isRunning:
            job.abandon()
        self._endPreview()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    # --- running -------------------------------------------------------------------------------------------------

    def _worker(self) -> WorkerProcess:
        if self._folder is None:
            try:
                place = getattr(slicer.app, "temporaryPath", None) or None
                self._folder = Path(tempfile.mkdtemp(prefix="DEMIST-", dir=place))
            except OSError as error:
                raise RunError(
                    "input",
                    _("Slicer's temporary folder cannot be written to ({reason}); choose another one in Edit > "
                      "Application Settings > General.").format(reason=error.strerror or error),
                ) from error  # fmt: skip
        if self._process is None:
            self._process = WorkerProcess(self._launch, self._folder)
            self._process.messageReceived.connect(self._onMessage)
            self._process.ended.connect(self._onEnded)
        return self._process

    def _run(
        self,
        request: dict[str, Any],
        inputs: Mapping[str, tuple[str, Any]],
        frame: Any,
        make: Callable[[Job, dict[str, Any]], Generator[Any, None, Any]],
        wait: bool,
        onProgress: Callable[..., Any] | None,
        onDone: Callable[..., Any] | None,
        onError: Callable[..., Any] | None,
        expected: float | None = None,
    ) -> Any:
        """Start a job over the given inputs, told in the space of ``frame``; wait for it or not."""
        process, number = self._worker(), next(self._numbers)
        folder = self._folder / f"job-{number}"
        given = {key: pair for key, pair in inputs.items() if pair[1] is not None}

        def write() -> Generator[None, None, dict[str, Any]]:
            told = {}
            for key, (_name, node) in given.items():
                told[key] = yield from Exchange.writeNode(node, folder, key, frame)
            return told

        def made(message: dict[str, Any]) -> Generator[Any, None, Any]:
            return make(job, message)

        job = Job(process, number, request, folder, write(), made, list(given.values()))
        self._job, self._expected = job, expected
        job.progress.connect(partial(self._onProgress, job, onProgress))
        job.log.connect(self.logMessage.emit)
        job.estimate.connect(self._onEstimate)
        job.finished.connect(partial(self._onFinished, onDone))
        job.failed.connect(partial(self._onFailed, onError))
        job.cancelled.connect(partial(self._onCancelled, onError))
        self.started.emit(job.kind)
        job.start()
        return job.wait() if wait else job

    def _checkIdle(self) -> None:
        if self.isRunning:
            raise RunError("input", _("A run is in progress; wait for its end, or cancel it first."))

    def _checkInputs(self, inputs: Mapping[str, tuple[str, Any]], optional: Sequence[str] = ()) -> None:
        for key, (name, node) in inputs.items():
            if node is not None or key not in optional:
                Exchange.checkVolume(node, name)
        if "flair" in inputs and inputs["t1w"][1] is not None and inputs["t1w"][1] is inputs["flair"][1]:
            raise RunError("input", _("T1w and FLAIR are the same volume; choose two."))

    def _checkOutputs(self, outputs: Mapping[str, Any], inputs: Mapping[str, tuple[str, Any]]) -> None:
        chosen: list[Any] = [node for _name, node in inputs.values() if node is not None]
        for name, node in outputs.items():
            if node is None:
                continue
            if any(node is other for other in chosen):
                raise RunError("input", _("The {name} {called} is chosen for something else already; choose another "
                                          "or a new one.").format(name=name, called=node.GetName()))  # fmt: skip
            chosen.append(node)

    def _unedited(self, table: Any, lesions: Any) -> Any:
        """The segmentation made with a statistics table, if nobody has worked on it since; None otherwise."""
        from .Placement import SEGMENTATION_REFERENCE
        from .Segmentation import editStamp

        made = None if table is None else table.GetNodeReference(SEGMENTATION_REFERENCE)
        if made is None or made is lesions:
            return None
        return made if self._stamps.get(made.GetID()) == editStamp(made) else None

    def _fingerprint(self, inputs: Mapping[str, tuple[str, Any]]) -> Any:
        """What changes when the images or their places do."""
        return tuple(
            (key, node.GetID(), node.GetImageData().GetMTime() if node.IsA("vtkMRMLVolumeNode") else node.GetMTime())
            for key, (_name, node) in inputs.items()
            if node is not None
        )

    # --- what the worker says ------------------------------------------------------------------------------------

    def _onMessage(self, message: dict[str, Any]) -> None:
        if message.get("id") != self._asked or self._asked is None:
            return
        if message.get("event") == "done":
            self._devices = [tuple(pair) for pair in message.get("devices") or ()] or None
            self._hasModel = self._hasModel or "bundle" in message
            self._asked = None
            self.devicesChanged.emit()
        elif message.get("event") in ("error", "cancelled"):
            self._asked = None
            self.logMessage.emit(str(message.get("message") or ""))

    def _onEnded(self, code: int, text: str) -> None:
        self._hasModel, self._images, self._asked = False, None, None

    def _onProgress(
        self, job: Job, then: Callable[..., Any] | None, stage: str, fraction: float, remaining: float | None
    ) -> None:
        if remaining is None and self._expected is not None:
            # Past the expected end nothing is known any more.
            remaining = self._expected - job.seconds if job.seconds < self._expected else None
        words = _stageText(stage)
        self.progressChanged.emit(words, fraction, remaining)
        if then is not None:
            then(words, fraction, remaining)

    def _onFinished(self, then: Callable[..., Any] | None, result: Any) -> None:
        self._endPreview()
        result.seconds = round(self._job.seconds, 3)
        self.finished.emit(result)
        if then is not None:
            then(result)

    def _onFailed(self, then: Callable[..., Any] | None, kind: str, message: str) -> None:
        self._endPreview()
        self.logMessage.emit(message)
        self.failed.emit(kind, message)
        if then is not None:
            then(kind, message)

    def _onCancelled(self, then: Callable[..., Any] | None) -> None:
        self._endPreview()
        self.cancelled.emit()
        if then is not None:
            then("cancelled", str(self._job.error))

    # --- preview -------------------------------------------------------------------------------------------------

    def _beginPreview(self, t1: Any) -> None:
        from .Preview import LivePreview

        self._endPreview()
        self._preview = LivePreview()
        self._preview.begin(t1)

    def _onEstimate(self, message: dict[str, Any]) -> None:
        reference = message.get("volume")
        if self._preview is None or not reference or self._previewSteps is not None:
            return  # one that comes while another is being read is out of date before it is shown
        self._previewSteps = Steps(
            Exchange.readReference(reference), partial(self._showEstimate, message), self._dropEstimate
        )

    def _showEstimate(self, message: dict[str, Any], read: tuple[Any, Any]) -> None:
        self._previewSteps = None
        Path(message["volume"]["npy"]).unlink(missing_ok=True)
        if self._preview is None:
            return
        node = self._preview.update(*read, message["seed"], message["step"], message["steps"])
        if node is not None:
            self.previewUpdated.emit(node)

    def _dropEstimate(self, error: Exception) -> None:
        self._previewSteps = None
        self.logMessage.emit(str(error))

    def _endPreview(self) -> None:
        if self._previewSteps is not None:
            self._previewSteps.stop()
            self._previewSteps = None
        if self._preview is not None:
            preview, self._preview = self._preview, None
            preview.end()

    # --- what becomes of results ---------------------------------------------------------------------------------
    # Generators, so that the event loop turns between two nodes; see Steps for what they yield.

    def _makePsr(
        self, t1: Any, inputs: Mapping[str, tuple[str, Any]], images: Any, output: Any, uncertainty: Any, device: str,
        job: Job, message: dict[str, Any],
    ) -> Generator[Any, None, Result]:  # fmt: skip
        from .Volumes import createPsrVolume

        provenance = message["provenance"]
        for key, name in (("t1w", "T1w"), ("flair", "FLAIR"), ("brain_mask", "brain mask")):
            if name in provenance.get("inputs", {}):
                provenance["inputs"][name]["node"] = inputs[key][1].GetName()
        self._hasModel, self._images = True, images
        for chosen in {device, self._resolved(device)}:
            self.timings.learn(chosen, provenance)
        array, affine = yield from Exchange.readReference(message["psr"])
        yield True
        psr = createPsrVolume(t1, array, affine, provenance, node=_present(output))
        yield True
        spread = None
        if message.get("uncertainty"):
            array, affine = yield from Exchange.readReference(message["uncertainty"])
            yield True
            spread = createPsrVolume(
                t1, array, affine, provenance, node=_present(uncertainty), uncertainty=True, psrNode=psr
            )
        return Result("synthesis", psr, spread, provenance=provenance, notes=provenance.get("warnings", []),
                      samplingAfter=message.get("sampling_after"))  # fmt: skip

    def _makeStatistics(
        self, psr: Any, segmentation: Any, table: Any, job: Job, message: dict[str, Any]
    ) -> Generator[Any, None, StatisticsResult]:
        from . import Charts, Tables
        from .Placement import SEGMENTATION_REFERENCE
        from .Segmentation import editStamp

        name = psr.GetName()
        positions = {int(number): tuple(point) for number, point in message["positions"].items()}
        segments = yield from self._segments(psr, segmentation, message)
        tableNode = Tables.statisticsTable(
            message["rows"], message["columns"], _("{name} statistics").format(name=name), node=_present(table),
            positions=positions, volumeNode=psr,
        )  # fmt: skip
        yield True
        summary = message["summary"]
        oldRoc, oldBoxes = Charts.chartsOf(tableNode)
        rocChart = None
        if any(contrast["voxel"] for contrast in summary["roc"]["against"].values()):
            rocChart = Charts.rocChart(summary, name=_("{name} ROC").format(name=name), node=oldRoc, besides=psr)
            yield True
        elif oldRoc is not None:  # of lesions that are no longer there
            Charts.removeChart(oldRoc)
        boxes = Charts.boxPlotChart(
            message["rows"], name=_("{name} by region").format(name=name), node=oldBoxes, besides=psr
        )
        Charts.linkCharts(tableNode, rocChart, boxes)
        tableNode.SetNodeReferenceID(SEGMENTATION_REFERENCE, segments.GetID() if segments is not None else None)
        if segments is not None:
            self._stamps[segments.GetID()] = editStamp(segments)
        return StatisticsResult(
            tableNode, segments, rocChart, boxes, message["rows"], summary, message["notes"], message["statement"],
            bool(message["suggested"]),
        )  # fmt: skip

    def _makeRegions(
        self, t1: Any, segmentation: Any, job: Job, message: dict[str, Any]
    ) -> Generator[Any, None, Result]:
        segments = yield from self._segments(t1, segmentation, message)
        return Result("regions", segmentation=segments, notes=message["notes"])

    def _segments(self, reference: Any, node: Any, message: dict[str, Any]) -> Generator[Any, None, Any]:
        from .Segmentation import regionsToSegmentation

        masks = {}
        for key, told in message["masks"].items():
            masks[key], _affine = yield from Exchange.readReference(told)
        yield True
        if not masks:
            return None
        made = regionsToSegmentation(masks, reference, node=_present(node), suggested=bool(message["suggested"]))
        yield True
        return made

    def _makeT1w(self, job: Job, message: dict[str, Any]) -> Generator[Any, None, Result]:
        from .Volumes import createSyntheticT1w

        array, affine = yield from Exchange.readReference(message["t1w"])
        yield True
        node = createSyntheticT1w(array, affine, message["provenance"])
        return Result("brain_ldm", t1w=node, provenance=message["provenance"])

    def _makePatient(self, job: Job, message: dict[str, Any]) -> Generator[Any, None, Result]:
        from .SampleData import createPatient

        volumes = {}
        for key in ("t1w", "flair", "psr", "lesions"):
            volumes[key] = yield from Exchange.readReference(message[key])
        yield True
        nodes = createPatient(volumes, message.get("protocol"), message.get("seed"))
        return Result("simulate", nodes["psr"], None, nodes["t1w"], nodes["flair"], nodes["segmentation"],
                      {"protocol": message.get("protocol"), "seed": message.get("seed")})  # fmt: skip

    def _makeFiles(self, job: Job, message: dict[str, Any]) -> Generator[Any, None, Result]:
        yield True
        self._hasModel, self._images = True, None
        provenance = {**message["provenance"], "files": message["files"]}
        return Result("synthesis", provenance=provenance, notes=provenance.get("warnings", []),
                      samplingAfter=message.get("sampling_after"))  # fmt: skip

    def _resolved(self, device: str) -> str:
        """What "auto" will be, as far as it is known."""
        return self._devices[0][0] if device == "auto" and self._devices else device


def _present(node: Any) -> Any:
    """A node to write into, unless it was deleted meanwhile: then a new one is made."""
    return node if node is not None and node.GetScene() is not None else None


def _absolute(path: str | os.PathLike[str]) -> str:
    """The whole path: the worker may have been started in another working directory."""
    return os.path.abspath(os.path.expanduser(path))


def _bundle(bundle: str | os.PathLike[str] | None) -> str | None:
    """A model's name as it is, a folder as a whole path."""
    if not bundle:
        return None
    text = os.fspath(bundle)
    # A plain name means one of the shipped models, even where there is a folder of that name.
    return _absolute(text) if os.path.basename(text) != text and os.path.isdir(os.path.expanduser(text)) else text


def _defaultBundle() -> str:
    from DEMISTCore.bundle import DEFAULT_BUNDLE

    return DEFAULT_BUNDLE


def _seedList(seeds: int | Sequence[int] | None, first: int) -> list[int] | None:
    """The seeds that a number and a first one stand for; the worker checks them."""
    if seeds is None:
        return None
    if isinstance(seeds, bool) or not isinstance(seeds, (int, Sequence)) or isinstance(seeds, str):
        raise RunError("input", _("Seeds are a number of samples, or a list of whole numbers, not {seeds!r}.").format(
            seeds=seeds))  # fmt: skip
    if not isinstance(seeds, int):
        return [int(seed) for seed in seeds]
    if not 1 <= seeds <= 256:
        raise RunError("input", _("The number of seeds must be 1 to 256, not {seeds}.").format(seeds=seeds))
    if not isinstance(first, int) or first < 0:
        raise RunError("input", _("The first seed is a whole number, 0 or more, not {first!r}.").format(first=first))
    return list(range(first, first + seeds))


def _stageText(stage: str) -> str:
    """What people read of a stage."""
    found = re.fullmatch(r"seed (\d+) of (\d+)", stage)
    if found:
        return _("Sampling seed {i} of {n}").format(i=found[1], n=found[2])
    return STAGES.get(stage, stage)
