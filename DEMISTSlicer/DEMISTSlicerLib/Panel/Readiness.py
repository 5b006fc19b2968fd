"""What can be pressed, and why not."""

from __future__ import annotations

from typing import Any

from ..I18n import _
from ..Nodes.Segmentation import isSuggested


def readiness(parameters: Any, confirmed: bool = True) -> list[tuple[str, bool, str]]:
    """For each button that starts something: its name, whether it can be pressed, and its tooltip.

    Args:
        parameters: the parameter node wrapper, or None.
        confirmed: nothing speaks against T1w and FLAIR, or the user has looked at them.
    """
    pair = bool(parameters and parameters.t1 and parameters.flair and parameters.t1 is not parameters.flair)
    psr = bool(parameters and parameters.psr)
    unchecked = bool(parameters) and isSuggested(parameters.lesions)
    return [
        (name, ready, tip if ready else why)
        for name, ready, tip, why in (
            (
                "applyButton",
                pair and confirmed,
                _("Synthesize the PSR map."),
                _("Confirm the images, or choose others.") if pair else _("Choose a T1w and a FLAIR first."),
            ),
            (
                "suggestButton",
                pair and confirmed,
                _("Suggest lesions from T1w and FLAIR. The result is an editable segmentation: check and correct it."),
                _("Choose a T1w and a FLAIR first."),
            ),
            (
                "checkedButton",
                unchecked,
                _("You have checked and corrected the suggested lesions: outputs no longer call them suggested."),
                _("The lesions chosen are no suggestion."),
            ),
            (
                "statisticsButton",
                psr,
                _("Measure the PSR map in lesions and in proximal and distal normal-appearing white matter."),
                _("Choose a PSR map under Advanced > Outputs, or press Apply to make one."),
            ),
            (
                "reportButton",
                psr,
                _("Measure the map and save one page: pictures, table, ROC curves, where the map came from (HTML)."),
                _("Choose a PSR map under Advanced > Outputs, or press Apply to make one."),
            ),
            (
                "dicomButton",
                psr,
                _("Write DICOM: map and uncertainty as Parametric Maps, regions as Segmentation, table as report."),
                _("Choose a PSR map under Advanced > Outputs, or press Apply to make one."),
            ),
            ("generateButton", True, _("Make the synthetic T1w."), ""),
            (
                "sampleButton",
                True,
                _("A simulated patient to try the module on, made on this computer; nothing is downloaded."),
                "",
            ),
        )
    ]
