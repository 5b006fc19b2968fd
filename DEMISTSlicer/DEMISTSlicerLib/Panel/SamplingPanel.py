"""The section Sampling: the mean or samples, presets with the time each takes here, samplers, guidance."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import slicer

from ..I18n import _
from ..Run.Arguments import bundleName
from ..Run.Bundles import usualMode
from .BundleChooser import BundleChooser
from .Choice import Choice
from .Presets import CUSTOM, MEAN, SAMPLE, Preset, duration, matching, presets, recommended, recommendedGuidance

if TYPE_CHECKING:
    from DEMISTCore.options import SynthesisOptions

#: Widgets about samples, which the mean has no use for.
_OF_SAMPLES = (
    "seedsRowLabel",
    "seedsSpinBox",
    "firstSeedSpinBoxLabel",
    "firstSeedSpinBox",
    "stepsSpinBoxLabel",
    "stepsSpinBox",
    "samplerComboBoxLabel",
    "samplerComboBox",
    "guidanceSpinBoxLabel",
    "guidanceSpinBox",
    "livePreviewCheckBox",
)


class SamplingPanel:
    """Numbers that the chosen model recommends, or the user's own.

    Args:
        ui: the panel's widgets: ``presetComboBox``, and those of :data:`_OF_SAMPLES`.
        bundles: knows what the chosen model recommends.
        parameters: gives the parameter node wrapper, or None.
        expectedSeconds: as :meth:`.Logic.DEMISTSlicerLogic.expectedSeconds`.
        onChosen: called when a preset was chosen and its numbers are in the parameters.

    Attributes:
        advised: the preset that the model recommends which is shown.
    """

    def __init__(
        self,
        ui: Any,
        bundles: BundleChooser,
        parameters: Callable[[], Any],
        expectedSeconds: Callable[..., float | None],
        onChosen: Callable[[], object],
    ) -> None:
        self.ui, self.bundles = ui, bundles
        self._parameters, self._expectedSeconds, self._onChosen = parameters, expectedSeconds, onChosen
        self.advised = ""
        self._tips = {name: getattr(ui, name).toolTip for name in _OF_SAMPLES}
        self.preset = Choice(ui.presetComboBox, self.choose)
        self.sampler = Choice(ui.samplerComboBox, self._onSampler)

    def disconnect(self) -> None:
        """Hear no more of the widgets."""
        self.preset.disconnect()
        self.sampler.disconnect()

    @property
    def recommended(self) -> str:
        """The preset that the chosen model recommends."""
        return recommended(self.bundles.sampling)

    @property
    def mode(self) -> str:
        """``mean`` or ``sample``: what was chosen, else the chosen model's own; a model without a mean has samples."""
        wanted = self._parameters().mode or usualMode(self.bundles.sampling)
        return MEAN if wanted == MEAN and any(preset.mode == MEAN for preset in self._choices()) else SAMPLE

    @property
    def preview(self) -> bool:
        """Whether the running estimate is shown; the mean is made at once, so there is nothing to see before."""
        return bool(self._parameters().livePreview) and self.mode == SAMPLE

    def options(self) -> SynthesisOptions:
        """What the parameters say, in the object that goes to the sampler."""
        parameters = self._parameters()
        return self._options(parameters, self.mode, parameters.firstSeed, parameters.sampler)

    def _options(self, numbers: Any, mode: str, first: int = 0, sampler: str = "") -> SynthesisOptions:
        """The same with ``seeds``, ``steps`` and ``guidance`` of something else, a preset for example."""
        from DEMISTCore.options import SynthesisOptions

        parameters = self._parameters()
        given = {
            "bundle": bundleName(parameters.bundle),
            "device": parameters.device,
            "any_brain_volume": parameters.anyBrainVolume,
            "mode": mode,
        }
        if mode == MEAN:
            return SynthesisOptions(**given)
        return SynthesisOptions(
            **given,
            seeds=tuple(range(first, first + numbers.seeds)),
            steps=numbers.steps,
            sampler=sampler or None,
            guidance=self.weights(numbers.guidance),
        )

    def follow(self, before: str, preset: str) -> None:
        """Another model was chosen: take its numbers of the same preset, or its recommendation for that of the last.

        Args:
            before: the preset that the last model recommends.
            preset: the one that was chosen; the user's own numbers stay.
        """
        if preset != CUSTOM:
            offered = [choice.id for choice in self._choices()]
            self.choose(preset if preset in offered and preset != before else self.recommended)

    def choose(self, choice: str) -> None:
        """Take the numbers of a preset, as the chosen model means it; the user's own stay as they are."""
        parameters = self._parameters()
        if parameters is None:
            return
        parameters.preset = choice
        for preset in self._choices():
            if preset.id == choice:
                with slicer.util.NodeModify(parameters.parameterNode):
                    parameters.mode = preset.mode
                    parameters.seeds, parameters.steps, parameters.sampler = preset.seeds, preset.steps, preset.sampler
                    parameters.guidance = preset.guidance
        self._onChosen()

    def offerSamplers(self) -> None:
        """Offer all samplers, the chosen model's own first."""
        from DEMISTCore.samplers import SAMPLERS

        own = str(self.bundles.sampling.get("sampler") or "")
        names = {name: sampler.title for name, sampler in SAMPLERS.items()}
        text = _("Bundle's own ({name})").format(name=names.get(own, own)) if own else _("Bundle's own")
        items = [("", text, _("What the bundle recommends."))]
        self.sampler.fill(items + [(name, title, "") for name, title in names.items()], self._parameters().sampler)

    def update(self) -> None:
        """Show what the parameters say."""
        self.advised = self.recommended
        self.sampler.show(self._parameters().sampler)
        self._fillPresets()
        self._tellGuidance()
        self._enable()

    def weights(self, guidance: float) -> dict[str, float] | None:
        """None for the bundle's own, which may weigh each stream by itself; else one weight for all."""
        return None if abs(guidance - recommendedGuidance(self.bundles.sampling)) < 1e-6 else {"all": guidance}

    def _onSampler(self, sampler: str) -> None:
        parameters = self._parameters()
        if parameters is not None:
            parameters.sampler = sampler

    def _choices(self) -> list[Preset]:
        """The presets of the chosen model."""
        return presets(self.bundles.sampling, self.bundles.hasMean)

    def _enable(self) -> None:
        """What is about samples is out of use while the mean is chosen, and says why."""
        samples = self.mode == SAMPLE
        why = _("The mean is made in one pass, without seeds, steps or a preview; choose a sample as the preset.")
        for name in _OF_SAMPLES:
            widget = getattr(self.ui, name)
            widget.enabled = samples
            widget.toolTip = self._tips[name] if samples else why

    def _fillPresets(self) -> None:
        """Presets with the time each takes here; what is chosen by hand shows as Custom."""
        parameters, choices = self._parameters(), self._choices()
        shown = matching(
            choices, parameters.seeds, parameters.steps, parameters.sampler, parameters.guidance, self.mode
        )
        items = []
        for preset in choices:
            tip = _("{seeds} seeds, {steps} steps, guidance {guidance:g}").format(**vars(preset))
            if preset.mode == MEAN:
                tip = _("The mean of all maps that are plausible: the lowest error, less detail. One pass, no seeds.")
            items.append((preset.id, self._timed(preset.text, preset, preset.mode), tip))
        if shown == CUSTOM:
            items.append((CUSTOM, self._timed(_("Custom"), parameters, SAMPLE), _("Your own numbers, below.")))
        self.preset.fill(items, shown)
        if parameters.preset != shown:
            parameters.preset = shown

    def _timed(self, text: str, numbers: Any, mode: str) -> str:
        """A text with the time that ``seeds``, ``steps`` and ``guidance`` of something take here, or the mean does."""
        expected = duration(self._expectedSeconds(self._options(numbers, mode)))
        return f"{text} · {expected}" if expected else text

    def _tellGuidance(self) -> None:
        """What the number means for the bundle that is chosen."""
        own = recommendedGuidance(self.bundles.sampling)
        tip = _(
            "Weight of the T1w and FLAIR (classifier-free guidance). This model recommends {own:g}. 1 is plain: no "
            "guidance; any other weight takes a second evaluation of the network in each step, about twice the time."
        ).format(own=own)
        self._tips["guidanceSpinBox"] = self._tips["guidanceSpinBoxLabel"] = tip
