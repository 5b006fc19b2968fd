"""Write results as DICOM: ``python -m DEMISTCore.dicom --psr psr.nii.gz --series T1W_FOLDER --out dicom``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from ..cli import run, set_up_logging
from ..guards import protect_folder


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="python -m DEMISTCore.dicom",
        description="Write a PSR map and its uncertainty as DICOM Parametric Maps, lesions as a DICOM Segmentation, "
        "into the study of the scans.",
        epilog="A synthesized map is a research estimate, not a measurement, and not for clinical use.",
    )
    p.add_argument("--psr", required=True, metavar="FILE", help="PSR map; its sidecar (.json) tells where it came from")
    p.add_argument("--uncertainty", metavar="FILE", help="its standard deviation")
    p.add_argument("--lesions", metavar="FILE", help="lesion mask on the map's grid")
    p.add_argument(
        "--series", metavar="DIR", help="folder of the T1w's DICOM series; without it a study of its own is made"
    )
    p.add_argument("--patient", default="Anonymous", metavar="NAME", help="whose it is, without --series")
    p.add_argument("--out", required=True, metavar="DIR", help="folder for psr.dcm, psr_uncertainty.dcm, regions.dcm")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, write, report."""
    args = parser().parse_args(argv)
    set_up_logging()
    from ..regions.masks import read_mask
    from ..volume import Volume
    from . import export

    protect_folder(args.out, [args.psr, args.uncertainty, args.lesions, args.series], "folder of DICOM files")
    psr = Volume.read(args.psr)
    sidecar = Path(str(args.psr).removesuffix(".gz")).with_suffix(".json")
    told = json.loads(sidecar.read_text(encoding="utf-8")) if sidecar.is_file() else None
    written = export(
        args.out,
        psr=psr,
        uncertainty=None if args.uncertainty is None else Volume.read(args.uncertainty),
        masks=None if args.lesions is None else {"lesion": read_mask(args.lesions, "lesion mask")},
        series=args.series,
        provenance=told if isinstance(told, dict) else None,
        patient=args.patient,
    )
    for kind, path in written.items():
        print(f"{kind + ':':<13}{path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(run(main))
