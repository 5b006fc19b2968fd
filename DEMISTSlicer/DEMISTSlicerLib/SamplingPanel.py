"""The section Sampling: presets with the time each takes here, samplers, guidance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import slicer

from .BundleChooser import BundleChooser
from .Choice import Choice
from .I18n import _
from .Presets import CUSTOM, duration, matching, presets, recommendedGuidance

#: Samplers of DEMISTCore.diffusion (a test compares), with what to call them.
SAMPLERS = (("ddim", "DDIM"), ("dpmpp_2m", "DPM-Solver++ 2M"), ("ddpm", "DDPM (stochastic)"))


class SamplingPanel:
    """Numbers that the chosen model recommends, or the user's own.

    Args:
        ui: the panel's widgets: ``presetComboBox``, ``samplerComboBox``, ``guidanceSpinBox``, ``guidanceSpinBoxLabel``.
        bundles: knows what the chosen model recommends.
        parameters: gives the parameter node wrapper, or None.
        expectedSeconds: as :meth:`.Logic.DEMISTSlicerLogic.expectedSeconds`.
        onChosen: called when a preset was chosen and its numbers are in the parameters.
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
        self.preset = Choice(ui.presetComboBox, self.choose)
        self.sampler = Choice(ui.samplerComboBox, self._onSampler)

    def disconnect(self) -> None:
        """Hear no more of the widgets."""
        self.preset.disconnect()
        self.sampler.disconnect()

    def choose(self, choice: str) -> None:
        """Take the numbers of a preset, as the chosen model means it; the user's own stay as they are."""
        parameters = self._parameters()
        if parameters is None:
            return
        parameters.preset = choice
        for preset in presets(self.bundles.sampling):
            if preset.id == choice:
                with slicer.util.NodeModify(parameters.parameterNode):
                    parameters.seeds, parameters.steps, parameters.sampler = preset.seeds, preset.steps, preset.sampler
                    parameters.guidance = preset.guidance
        self._onChosen()

    def offerSamplers(self) -> None:
        """Offer all samplers, the chosen model's own first."""
        own = str(self.bundles.sampling.get("sampler") or "")
        names = dict(SAMPLERS)
        text = _("Bundle's own ({name})").format(name=names.get(own, own)) if own else _("Bundle's own")
        items = [("", text, _("What the bundle recommends."))]
        self.sampler.fill(items + [(key, name, "") for key, name in SAMPLERS], self._parameters().sampler)

    def update(self) -> None:
        """Show what the parameters say."""
        self.sampler.show(self._parameters().sampler)
        self._fillPresets()
        self._tellGuidance()

    def weights(self, guidance: float) -> dict[str, float] | None:
        """None for the bundle's own, which may weigh each stream by itself; else one weight for all."""
        return None if abs(guidance - recommendedGuidance(self.bundles.sampling)) < 1e-6 else {"all": guidance}

    def _onSampler(self, sampler: str) -> None:
        parameters = self._parameters()
        if parameters is not None:
            parameters.sampler = sampler

    def _fillPresets(self) -> None:
        """Presets with the time each takes here; what is chosen by hand shows as Custom."""
        parameters = self._parameters()
        choices = presets(self.bundles.sampling)
        shown = matching(choices, parameters.seeds, parameters.steps, parameters.sampler, parameters.guidance)
        items = []
        for preset in choices:
            tip = _("{seeds} seeds, {steps} steps, guidance {guidance:g}").format(**vars(preset))
            items.append((preset.id, self._timed(preset.text, preset), tip))
        if shown == CUSTOM:
            items.append((CUSTOM, self._timed(_("Custom"), parameters), _("Your own numbers, below.")))
        self.preset.fill(items, shown)
        if parameters.preset != shown:
            parameters.preset = shown

    def _timed(self, text: str, numbers: Any) -> str:
        """A text with the time that ``seeds``, ``steps`` and ``guidance`` of something take here."""
        parameters = self._parameters()
        expected = duration(
            self._expectedSeconds(
                seeds=numbers.seeds,
                steps=numbers.steps,
                guidance=self.weights(numbers.guidance),
                device=parameters.device,
                bundle=parameters.bundle or None,
            )
        )
        return f"{text} · {expected}" if expected else text

    def _tellGuidance(self) -> None:
        """What the number means for the bundle that is chosen."""
        own = recommendedGuidance(self.bundles.sampling)
        tip = _(
            "Weight of the T1w and FLAIR (classifier-free guidance). This model recommends {own:g}. 1 is plain: no "
            "guidance; any other weight takes a second evaluation of the network in each step, about twice the time."
        ).format(own=own)
        self.ui.guidanceSpinBox.toolTip = self.ui.guidanceSpinBoxLabel.toolTip = tip
