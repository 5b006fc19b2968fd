"""Templates that define a space: one from nilearn's wheel, others from files or TemplateFlow."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import InputError
from ...files import file_of_package, sha256
from ...volume import Volume

#: The space of the FLAIR as scanned, which needs no template.
FLAIR = "FLAIR"
#: ICBM 152 nonlinear symmetric, version 2009a: what nilearn carries.
IN_WHEEL = "MNI152NLin2009aSym"
#: Possible brains of templates, mL; more is a head.
_BRAIN_ML = (800.0, 2300.0)


@dataclass(frozen=True, eq=False)
class Template:
    """A brain that others are brought to.

    Attributes:
        space: its name, as BIDS and TemplateFlow have it.
        image: T1w of the brain alone, 0 outside.
        mask: uint8, 1 in the brain, on the same grid.
        named: name of the file, as sidecars tell it: a path says nothing on another machine.
    """

    space: str
    image: Volume
    mask: Volume
    named: str = ""


def check_spaces(spaces: Iterable[str], files: Mapping[str, str]) -> None:
    """Refuse, before the work, a space that nobody knows the template of.

    Raises:
        InputError: the sentence says where a template is looked for.
    """
    for space in spaces:
        if not re.fullmatch(r"[A-Za-z0-9]+", space):
            raise InputError(f"{space} is no name of a space; use letters and digits, as in MNI152NLin2009cAsym.")
    template_hashes(spaces, files)
    unused = sorted(set(files) - set(spaces))
    if unused:
        raise InputError(f"--template names {unused[0]}, which is not among --output-spaces; add it there.")


def template_hashes(spaces: Iterable[str], files: Mapping[str, str]) -> dict[str, str]:
    """What each space's results depend on: the hash of its template.

    Raises:
        InputError: there is no template for a space.
    """
    return {space: sha256(template_file(space, files)) for space in spaces if space != FLAIR}


def template_file(space: str, files: Mapping[str, str]) -> Path:
    """Where the T1w template of a space lies.

    Args:
        space: its name.
        files: given files by space.

    Raises:
        InputError: nowhere.
    """
    if space in files:
        given = Path(files[space])
        if not given.is_file():
            raise InputError(f"There is no file {given}; give the T1w template of {space}.")
        return given
    if space == IN_WHEEL:
        return _of_nilearn()
    home = Path(os.environ.get("TEMPLATEFLOW_HOME") or Path.home() / ".cache" / "templateflow")
    folder = home / f"tpl-{space}"
    names = [f"tpl-{space}{r}_desc-brain_T1w.nii.gz" for r in ("_res-01", "_res-1", "_res-02", "_res-2", "")]
    for name in names:
        if (folder / name).is_file() and (folder / name).stat().st_size:  # TemplateFlow's empty files: not fetched yet
            return folder / name
    raise InputError(
        f"There is no template of {space}: give its brain with --template {space}=FILE, or have TemplateFlow fetch it "
        f"(templateflow.api.get('{space}', resolution=1, desc='brain', suffix='T1w')), which puts it into {folder}. "
        f"{IN_WHEEL} is always there."
    )


def _of_nilearn() -> Path:
    """The file in nilearn's package, found without loading all of that."""
    path = file_of_package("nilearn", "datasets", "data", "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz")
    if path is not None:
        return path
    raise InputError(
        f'The template of {IN_WHEEL} is part of nilearn; pip install "demist[cohort]", or give --template.'
    )


def load_template(space: str, files: Mapping[str, str]) -> Template:
    """The template of a space.

    Raises:
        InputError: there is none, it cannot be read, or it is a whole head.
    """
    from scipy.ndimage import binary_fill_holes

    path = template_file(space, files)
    image = Volume.read(path).reoriented("RAS")
    inside = binary_fill_holes(image.array > 0.02 * np.percentile(image.array, 99.5))
    ml = float(inside.sum()) * image.grid.voxel_volume_ml
    if not _BRAIN_ML[0] < ml < _BRAIN_ML[1]:
        raise InputError(
            f"{path} is no template of a brain alone: {ml:.0f} mL of it are not 0; give one without the skull "
            "(desc-brain_T1w)."
        )
    array = np.where(inside, np.maximum(image.array, 0), 0).astype(np.float32)
    grid = image.grid
    return Template(space, Volume(array, grid.affine), Volume(inside.astype(np.uint8), grid.affine), path.name)
