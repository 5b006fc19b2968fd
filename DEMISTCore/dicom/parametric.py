"""A PSR map, or its uncertainty, as a DICOM Parametric Map."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import __version__
from ..errors import InputError
from ..files import atomic_path
from ..volume import Volume
from .place import as_dicom_volume, missing_package

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

#: What the numbers measure (code, scheme, meaning), and the label of the map. DICOM has no code for the pool size
#: ratio, hence a private scheme (PS3.3, 8.2: private schemes start with 99).
QUANTITIES = {
    "psr": (("PSR", "99DEMIST", "Pool size ratio"), "PSR"),
    "uncertainty": (("PSR-SD", "99DEMIST", "Standard deviation of the pool size ratio"), "PSR_SD"),
}
#: Display range (window centre and width) of each, a fraction.
_WINDOWS = {"psr": (0.1, 0.2), "uncertainty": (0.015, 0.03)}
MAKER = {
    "manufacturer": "DEMIST",
    "manufacturer_model_name": "DEMIST",
    "software_versions": __version__,
    "device_serial_number": "0",
}


def write_parametric_map(
    volume: Volume,
    out: str | os.PathLike[str],
    series: Sequence[Dataset],
    *,
    kind: str = "psr",
    provenance: Mapping[str, Any] | None = None,
    series_number: int = 901,
) -> Path:
    """Write a map as one multi-frame file: float32 values as they are, real-world value mapping of slope 1.

    Args:
        volume: (X, Y, Z) PSR or its SD, a fraction.
        out: file to write; replaced if it is there.
        series: headers of the T1w's series, see :func:`.study.read_series`: patient, study and frame of reference.
        kind: a key of :data:`QUANTITIES`.
        provenance: of the map; its sentence becomes the description of the content.
        series_number: of the new series.

    Returns:
        The path.

    Raises:
        InputError: values that are not finite, a sheared grid, or a package is missing.
    """
    try:
        from highdicom import UID, VOILUTTransformation
        from highdicom.pm import ParametricMap, RealWorldValueMapping
        from highdicom.sr import CodedConcept
    except ModuleNotFoundError as error:
        raise missing_package(error) from error
    code, label = QUANTITIES[kind]
    values = np.asarray(volume.array, np.float32)
    if not np.isfinite(values).all():
        raise InputError("The map has values that are not finite, which DICOM cannot hold; give one without.")
    mapping = RealWorldValueMapping(
        lut_label=label,
        lut_explanation=code[2],
        unit=CodedConcept("1", "UCUM", "no units"),
        value_range=(float(min(values.min(), 0.0)), float(max(values.max(), 1.0))),
        slope=1.0,
        intercept=0.0,
        quantity_definition=CodedConcept(*code),
    )
    centre, width = _WINDOWS[kind]
    made = ParametricMap(
        list(series),
        as_dicom_volume(values, volume, series[0].FrameOfReferenceUID),
        UID(),
        series_number,
        UID(),
        1,
        **MAKER,
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[mapping],
        voi_lut_transformations=[VOILUTTransformation(window_center=centre, window_width=width)],
        content_label=label,
        content_description=_described(code, provenance),
    )
    made.SeriesDescription = f"{code[2]} (synthesized, research only)"[:64]
    return save(made, out)


def save(made: Any, out: str | os.PathLike[str]) -> Path:
    """Write a dataset, whole or not at all."""
    with atomic_path(out) as temporary:
        made.save_as(temporary)
    return Path(out)


def _described(code: tuple[str, str, str], provenance: Mapping[str, Any] | None) -> str:
    """At most 64 letters, as DICOM wants it: the model; the whole statement would not fit."""
    bundle = (provenance or {}).get("bundle")
    name = bundle.get("name") if isinstance(bundle, Mapping) else bundle
    return f"{code[2]}, {name}, research only"[:64] if name else f"{code[2]}, research only"[:64]
