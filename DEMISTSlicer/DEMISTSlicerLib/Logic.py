"""What the module does, without its panel: for the panel, and for the Python console.

>>> logic = slicer.util.getModuleLogic("DEMISTSlicer")  # doctest: +SKIP
>>> result = logic.synthesize(t1Node, flairNode)  # doctest: +SKIP
>>> result.psr, result.uncertainty  # doctest: +SKIP
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic

from .I18n import _
from .Install import Place
from .Nodes import Volumes
from .Nodes.Segmentation import isSuggested
from .Run import Arguments, Bundles, ResultNodes, Sidecars
from .Run.Arguments import bundleName, wholePath
from .Run.Callbacks import Callbacks
from .Run.FileJobs import FileJobs
from .Run.Job import Job
from .Run.Process import Channel
from .Run.Result import Result
from .Run.RunInputs import NAMES, RunInputs, checkVolume
from .Run.Runs import Runs
from .Run.StatisticsNodes import StatisticsNodes
from .Run.StatisticsResult import StatisticsResult
from .Run.Task import Task
from .Run.Timings import Timings
from .Run.Visits import VisitsResult
from .Run.Visits import compareVisits as _compareVisits
from .Run.Worker import Worker
from .RunError import RunError
from .Signal import Signal

if TYPE_CHECKING:
    from slicer import vtkMRMLLabelMapVolumeNode, vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode, vtkMRMLTableNode

    from DEMISTCore.options import SynthesisOptions


class DEMISTSlicerLogic(FileJobs, ScriptedLoadableModuleLogic):
    """Runs jobs in the child process and makes nodes of what comes back. One job at a time.

    Every method that runs something waits for it by default, with the application alive; with ``wait=False`` it
    returns a :class:`.Job` at once, and callbacks and signals tell the rest. What is wrong with the arguments is raised
    at once as a :class:`.RunError`.

    Signals: ``started(kind)``, ``progressChanged(stage, fraction, remainingSeconds)``, ``logMessage(text)``,
    ``previewUpdated(node)``, ``devicesChanged()``, and at the end one of ``finished(result)``,
    ``failed(kind, message)``, ``cancelled()``.
    """

    def __init__(self, launch: Callable[[], Channel] | None = None) -> None:
        """Nothing is started; the child comes with the first run.

        Args:
            launch: makes the channel to the child, see :class:`~DEMISTSlicerLib.Run.Process.WorkerProcess`.
        """
        super().__init__()
        self.moduleName = "DEMISTSlicer"
        self.timings = Timings()
        self.logMessage = Signal()
        self._worker = worker = Worker(launch, self.logMessage.emit, lambda: self.isRunning, Place.usable)
        self._runs = runs = Runs(worker, self.logMessage.emit)
        self._statistics = StatisticsNodes()
        self.started, self.progressChanged = runs.started, runs.progressChanged
        self.previewUpdated, self.devicesChanged = runs.preview.updated, worker.devicesChanged
        self.finished, self.failed, self.cancelled = runs.finished, runs.failed, runs.cancelled

    # --- what is there -------------------------------------------------------------------------------------------

    @property
    def isRunning(self) -> bool:
        """True while a job runs."""
        return self.currentJob is not None

    @property
    def currentJob(self) -> Job | None:
        """The job that runs, or None."""
        return self._runs.currentJob

    def bundles(self) -> list[dict[str, Any]]:
        """The models that are found, the default first, see :func:`.Bundles.describeBundle`."""
        return Bundles.bundles()

    def describeBundle(self, bundle: str) -> dict[str, Any] | None:
        """One of :meth:`bundles`, by name or folder; None if there is none or it cannot be read."""
        return Bundles.describeBundle(bundle)

    def devices(self) -> list[tuple[str, str]]:
        """What to compute on, (name, text) each, "auto" first; what is known so far, see :meth:`askDevices`."""
        found = self._worker.devices
        known = found or [("cpu", _("CPU ({n} cores)").format(n=os.cpu_count() or 1))]
        best = known[0][1]
        automatic = _("Automatic ({best})").format(best=best) if found else _("Automatic")
        return [("auto", automatic), *known]

    def resolvedDevice(self, device: str) -> str:
        """What a run with this choice computes on: the best device for "auto", as far as is known."""
        return self._worker.resolved(device)

    def askDevices(self, bundle: str | None = None) -> None:
        """Let the worker look for GPUs in the background; ``devicesChanged`` tells when it has.

        Args:
            bundle: a model to bring into memory on the occasion, so that the first run starts sooner.
        """
        self._worker.askDevices(bundle)

    def expectedSeconds(self, options: SynthesisOptions | None = None, prepared: bool = False, **given: Any) -> float:
        """How long :meth:`synthesize` will take here with these options, about.

        Args:
            options, given: as there.
            prepared: with the images of the last run.
        """
        return self._expected(Arguments.options(given, options), prepared)

    def _expected(self, options: SynthesisOptions, prepared: bool) -> float:
        advice = Bundles.recommendedSampling(options.bundle)
        seeds, steps = options.seeds, options.steps
        mode = options.mode or Bundles.usualMode(advice, seeds, steps, options.sampler)
        return self.timings.seconds(
            self.resolvedDevice(options.device),
            advice["seeds"] if seeds is None else len(seeds),
            steps or advice["steps"],
            advice.get("guidance") if options.guidance is None else options.guidance,
            mode=mode,
            prepared=prepared,
            warm=self._worker.isWarm,
        )

    # --- jobs ----------------------------------------------------------------------------------------------------

    def synthesize(
        self,
        t1: vtkMRMLScalarVolumeNode,
        flair: vtkMRMLScalarVolumeNode,
        options: SynthesisOptions | None = None,
        *,
        brainMask: vtkMRMLLabelMapVolumeNode | vtkMRMLScalarVolumeNode | vtkMRMLSegmentationNode | None = None,
        output: vtkMRMLScalarVolumeNode | None = None,
        uncertainty: vtkMRMLScalarVolumeNode | None = None,
        preview: bool = False,
        sanity: bool = False,
        wait: bool = True,
        onProgress: Callable[..., Any] | None = None,
        onDone: Callable[[Result], Any] | None = None,
        onError: Callable[[str, str], Any] | None = None,
        **given: Any,
    ) -> Result | Job:
        """Synthesize a PSR map from a T1w and a FLAIR volume.

        Args:
            t1: T1w volume node; the map lies exactly over it, under the same transform.
            flair: FLAIR volume node, on any grid, under any linear transform.
            options: how, in one object; or its fields one by one as ``given``, see :func:`.Arguments.options`. Without
                ``protocol`` the scans' is read from the JSON files beside the volumes' files, or from DICOM.
            brainMask: volume or segmentation node to use instead of brain extraction.
            output, uncertainty: volume nodes to write into; None makes new ones.
            preview: show the running estimate in the slice views.
            sanity: measure white and grey matter as well; takes some seconds more.
            wait: see the class.
            onProgress: called with (stage, fraction, remaining seconds or None).
            onDone: called with the result.
            onError: called with (kind, message); kind is ``cancelled`` if it was.

        Raises:
            RunError: something given cannot be used, or another job runs; when waiting, whatever goes wrong.
            TypeError: there is no such option.
        """
        self._runs.checkIdle()
        inputs = RunInputs({"t1w": t1, "flair": flair, "brain_mask": brainMask}, frame=t1)
        inputs.check("t1w", "flair")
        inputs.checkOutputs({_("PSR volume"): output, _("uncertainty volume"): uncertainty})
        chosen = Arguments.options(given, options)
        if chosen.protocol is None:
            chosen = replace(chosen, protocol=Sidecars.protocolOf(t1, flair))
        request = {"do": "synthesize", "preview": bool(preview), "sanity": bool(sanity), **chosen.request()}
        images = inputs.fingerprint()
        expected = self._expected(chosen, images == self._worker.images)

        def make(message: dict[str, Any]) -> Generator[Any, None, Result]:
            self._worker.remember(images)
            for name in {chosen.device, self.resolvedDevice(chosen.device)}:
                self.timings.learn(name, message["provenance"])
            return (yield from ResultNodes.makeMaps(message, inputs, output, uncertainty))

        return self._runs.run(Task(request, make, inputs, expected), wait, Callbacks(onProgress, onDone, onError))

    def computeStatistics(
        self,
        psr: vtkMRMLScalarVolumeNode,
        lesions: vtkMRMLSegmentationNode | vtkMRMLLabelMapVolumeNode | None = None,
        t1: vtkMRMLScalarVolumeNode | None = None,
        flair: vtkMRMLScalarVolumeNode | None = None,
        brainMask: vtkMRMLLabelMapVolumeNode | vtkMRMLScalarVolumeNode | vtkMRMLSegmentationNode | None = None,
        uncertainty: vtkMRMLScalarVolumeNode | None = None,
        reference: vtkMRMLScalarVolumeNode | None = None,
        distances: Mapping[str, Any] | None = None,
        suggest: bool | None = None,
        segmentation: vtkMRMLSegmentationNode | None = None,
        table: vtkMRMLTableNode | None = None,
        anyBrainVolume: bool = False,
        report: str | os.PathLike[str] | None = None,
        percent: bool = False,
        wait: bool = True,
        onProgress: Callable[..., Any] | None = None,
        onDone: Callable[[StatisticsResult], Any] | None = None,
        onError: Callable[[str, str], Any] | None = None,
    ) -> StatisticsResult | Job:
        """Measure a PSR map in lesions and normal-appearing white matter: table, ROC curves, box plots, segments.

        For a map of a calibrated model, with its uncertainty map, the table has an interval that holds the true mean of
        each region with probability 90 % (``mean_ci90_low``, ``mean_ci90_high``). Column ``seed_sd``, for a map
        synthesized from several seeds in this session, is how far the model's own samples lie apart: no error bar.

        Args:
            psr: PSR volume node, synthesized or measured (fraction).
            lesions: segmentation or label map node of lesions; None: suggested, if there are T1w and FLAIR. Of a
                segmentation that :meth:`suggestLesions` made, outputs say so until the user marks it as checked.
            t1: T1w; None: the one that the map was synthesized from.
            flair: FLAIR, for tissue and suggested lesions.
            brainMask: volume or segmentation node; None: where the map is not 0.
            uncertainty: standard deviation; None: the one that was made with the map.
            reference: another PSR map of this brain to compare with.
            distances: settings of :class:`DEMISTCore.regions.RegionSettings` by name, as ``{"distal_mm": 12}``.
            suggest: suggest lesions from the FLAIR; None: if no lesions are given.
            table: node to write into, its charts into theirs; None makes new ones.
            segmentation: node to write into; None takes the one made with ``table`` unless it was edited since or is
                the lesions, else makes a new one.
            report: ``.html`` file to write one page to: pictures, table, ROC, provenance; ``percent``: in percent.
            anyBrainVolume, wait, onProgress, onDone, onError: see :meth:`synthesize`.

        Raises:
            RunError: see :meth:`synthesize`.
        """
        self._runs.checkIdle()
        checkVolume(psr, NAMES["psr"])
        t1 = Volumes.t1wOf(psr) if t1 is None else t1
        uncertainty = Volumes.uncertaintyOf(psr) if uncertainty is None else uncertainty
        suggest = lesions is None and t1 is not None and flair is not None if suggest is None else bool(suggest)
        inputs = RunInputs(
            {
                "psr": psr,
                "lesions": lesions,
                "t1w": t1,
                "flair": flair,
                "brain_mask": brainMask,
                "uncertainty": uncertainty,
                "reference": reference,
            },
            frame=psr,
        )
        inputs.check()
        if suggest and lesions is not None:
            raise RunError("input", _("Give lesions, or ask for suggested ones, not both."))
        request = {
            "do": "statistics",
            "suggest": suggest,
            "unchecked": isSuggested(lesions),
            "distances": dict(distances or {}),
            "provenance": Volumes.provenanceOf(psr) or None,
            "any_brain_volume": bool(anyBrainVolume),
        }
        if report:
            request |= {"report": wholePath(report), "percent": bool(percent), "title": psr.GetName() or "PSR"}
        segmentation = self._statistics.unedited(table, lesions) if segmentation is None else segmentation
        task = Task(request, lambda message: self._statistics.make(message, psr, segmentation, table), inputs)
        return self._runs.run(task, wait, Callbacks(onProgress, onDone, onError))

    def suggestLesions(
        self,
        t1: vtkMRMLScalarVolumeNode,
        flair: vtkMRMLScalarVolumeNode,
        lesions: vtkMRMLSegmentationNode | vtkMRMLLabelMapVolumeNode | None = None,
        brainMask: vtkMRMLLabelMapVolumeNode | vtkMRMLScalarVolumeNode | vtkMRMLSegmentationNode | None = None,
        distances: Mapping[str, Any] | None = None,
        segmentation: vtkMRMLSegmentationNode | None = None,
        anyBrainVolume: bool = False,
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
            anyBrainVolume, wait, onProgress, onDone, onError: see :meth:`synthesize`.

        Returns:
            The segmentation node; a job with ``wait=False``, whose result has it as ``segmentation``.
        """
        self._runs.checkIdle()
        inputs = RunInputs({"t1w": t1, "flair": flair, "lesions": lesions, "brain_mask": brainMask}, frame=t1)
        inputs.check("t1w", "flair")
        request = {
            "do": "regions",
            "unchecked": isSuggested(lesions),
            "distances": dict(distances or {}),
            "any_brain_volume": bool(anyBrainVolume),
        }
        task = Task(request, lambda message: ResultNodes.makeRegions(message, t1, segmentation), inputs)
        outcome = self._runs.run(task, wait, Callbacks(onProgress, onDone, onError))
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
        self._runs.checkIdle()
        request = {
            "do": "brain_ldm",
            "age": age,
            "sex": sex,
            "ventricular_volume": ventricularVolume,
            "brain_volume": brainVolume,
            "steps": steps,
            "seed": seed,
            "bundle": bundleName(bundle),
            "device": device,
            "shape": None if shape is None else list(shape),
        }
        task = Task(request, ResultNodes.makeT1w)
        outcome = self._runs.run(task, wait, Callbacks(onProgress, onDone, onError))
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
        self._runs.checkIdle()
        task = Task({"do": "simulate", "seed": seed}, ResultNodes.makePatient)
        return self._runs.run(task, wait, Callbacks(onProgress, onDone, onError))

    def compareVisits(
        self,
        before: vtkMRMLTableNode,
        after: vtkMRMLTableNode,
        registered: bool = False,
        table: vtkMRMLTableNode | None = None,
    ) -> VisitsResult:
        """What changed between two visits of one patient, from their statistics tables; see :func:`.compareVisits`."""
        return _compareVisits(before, after, registered, table)

    def cancel(self) -> None:
        """Stop the job that runs, if there is one; takes effect within two seconds."""
        job = self.currentJob
        if job is not None:
            job.cancel()

    def shutdown(self) -> None:
        """Stop what runs, end the child, remove temporary files. A later run starts it again."""
        self._runs.shutdown()
