"""What people read of the stages that the worker goes through."""

from __future__ import annotations

import re

from ..I18n import _

#: Names that the worker gives its stages, and what people read.
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
    "mean": _("Computing the mean"),
    "sampling": _("Sampling"),
    "write": _("Writing"),
    "sanity": _("Measuring white and grey matter"),
    "regions": _("Finding lesions and tissue"),
    "table": _("Measuring regions"),
    "curves": _("Computing ROC curves"),
    "comparison": _("Comparing maps"),
    "simulate": _("Simulating a patient"),
    "dicom": _("Writing DICOM files"),
    "done": _("Done"),
}
_SEED = re.compile(r"seed (\d+) of (\d+)")


def stageText(stage: str) -> str:
    """A stage in words for people; one that is not known is told as it is."""
    seed = _SEED.fullmatch(stage)
    if seed:
        return _("Sampling seed {i} of {n}").format(i=seed[1], n=seed[2])
    return STAGES.get(stage, stage)
