"""The files of the derivative data set as a whole: what it is, what made it, and what validators should pass over."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import InputError
from ..files import atomic_path, write_json
from ..guards import protect_folder
from ..schema import read_json

BIDS_VERSION = "1.10.0"
#: PSR is in no schema of BIDS yet, nor are tables of regions and reports (docs/bids-psrmap.md proposes the map).
IGNORED = (
    "*_PSRmap.*",
    "*_PSRuncertainty.*",
    "*_regions.tsv",
    "*_statistics.json",
    "*.html",
    "sub-*/figures",
    "*_xfm.*",
    "status.tsv",
    "group",
    "sourcedata",
)
_README = """\
Myelin maps (pool size ratio, PSR; a fraction) synthesized from T1w and FLAIR by DEMIST. Research use only.

sub-*/[ses-*/]anat/*_desc-demist_PSRmap.nii.gz       the map, on the T1w's own grid
                  *_desc-demist_PSRuncertainty.nii.gz standard deviation of its error; of what kind: the map's .json
                  *_desc-brain_mask.nii.gz            brain
                  *_desc-regions_dseg.nii.gz          lesions, NAWM near and far, tissues
                  *_desc-demist_regions.tsv           PSR by region and lesion
sub-*/*.html                                         a report a session: open it in a browser
status.tsv                                           how each session went
group/                                               tables and comparisons of all of them
"""


def write_dataset(out: Path, source: Path, bundle: Mapping[str, Any], raw: Path | None = None) -> None:
    """Make the folder a BIDS derivative; what is there and right is left alone.

    Args:
        out: folder of the results; made if it is not there.
        source: the BIDS data set, or the table of paths.
        bundle: name and hash of the model.
        raw: the data set that the images are in, where it is another than ``source``.

    Raises:
        InputError: it cannot be written, lies where an input is, or belongs to another program.
    """
    protect_folder(out, [source], "output folder")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; give a folder for the results.")
    described = out / "dataset_description.json"
    try:
        before = read_json(described)
    except FileNotFoundError:
        before = None
    except (OSError, ValueError) as error:
        raise InputError(f"{described} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    if before is not None and not _is_ours(before):
        raise InputError(f"{out} is the data set of another program; choose another folder for the results.")
    told = {
        "Name": "DEMIST: myelin maps from T1w and FLAIR",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "License": "n/a",
        "GeneratedBy": [
            {
                "Name": "DEMIST",
                "Version": __version__,
                "Description": f"Model {bundle.get('name')} ({str(bundle.get('hash'))[:12]}). "
                "Research use only, not for clinical use.",
            }
        ],
        "SourceDatasets": [{"URL": source.absolute().as_uri()}],
        "DatasetLinks": {"raw": (raw or (source if source.is_dir() else source.parent)).absolute().as_uri()},
    }
    if before != told:
        write_json(described, told)
    ignored = out / ".bidsignore"
    lines = ignored.read_text(encoding="utf-8", errors="replace").splitlines() if ignored.is_file() else []
    if not set(IGNORED) <= set(lines):  # a person's own lines stay
        _write(ignored, "\n".join([*lines, *(line for line in IGNORED if line not in lines)]) + "\n")
    if not (out / "README").exists():
        _write(out / "README", _README)


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _is_ours(told: Any) -> bool:
    makers = told.get("GeneratedBy") if isinstance(told, dict) else None
    return isinstance(makers, list) and any(isinstance(m, dict) and m.get("Name") == "DEMIST" for m in makers)
