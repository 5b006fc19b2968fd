"""``python -m DEMISTCore.cohort BIDS_DIR OUT_DIR {participant,group}``: a whole data set, as a BIDS App."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..arguments import seed_list, whole_number
from ..cli import hushed, run, set_up_logging, terminate_cleanly
from ..errors import InputError
from ..guards import protect_folder
from .workers import QUEUES

if TYPE_CHECKING:
    from .options import Options
    from .session import Session
    from .workers import Engine

_DESCRIPTION = """\
Synthesize myelin (PSR) maps of all sessions of a BIDS data set, measure them, and compare groups. "participant" makes
maps, region masks, tables and a report a session; "group" makes tables, comparisons and a report of all of them.
"""
_EXAMPLES = """\
examples:
  python -m DEMISTCore.cohort bids derivatives/demist participant
  python -m DEMISTCore.cohort bids derivatives/demist participant --participant-label 01 02 --workers 2
  python -m DEMISTCore.cohort archive.csv results participant --shard 3/10
  python -m DEMISTCore.cohort bids derivatives/demist group

What is done is not done again: stop a run whenever you like, and start it again, on several machines at once, too.
status.tsv says how each session went. Exit code 0: all done; 1: some failed; 2: it could not be run at all.
Research use only.
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="python -m DEMISTCore.cohort",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument(
        "bids_dir",
        type=Path,
        metavar="BIDS_DIR",
        help="BIDS data set, a table of paths (.csv, .tsv), or a folder of DICOM studies",
    )
    p.add_argument("out_dir", type=Path, metavar="OUT_DIR", help="folder of the results, a BIDS derivative data set")
    p.add_argument("level", choices=("participant", "group"), help="what to do")
    which = p.add_argument_group("which sessions")
    which.add_argument("--participant-label", nargs="+", default=[], metavar="LABEL", help="only these, without sub-")
    which.add_argument("--session-label", nargs="+", default=[], metavar="LABEL", help="only these, without ses-")
    which.add_argument("--bids-filter-file", metavar="FILE", help="entities that images must have, as JSON")
    which.add_argument(
        "--derivatives",
        nargs="+",
        default=[],
        type=Path,
        metavar="DIR",
        help="data sets with brain masks, lesion masks, tissue labels in the T1w's space",
    )
    which.add_argument("--dicom", action="store_true", help="BIDS_DIR holds DICOM studies, whatever it looks like")
    which.add_argument("--skip-bids-validator", action="store_true", help="do not validate BIDS_DIR first")
    which.add_argument("--shard", metavar="i/n", help="only every n-th session from the i-th on, for job arrays")
    how = p.add_argument_group("engine")
    how.add_argument(
        "--workers",
        type=whole_number,
        default=1,
        metavar="N",
        help="processes side by side, or jobs of a queue (default: 1)",
    )
    how.add_argument(
        "--gpus",
        type=whole_number,
        default=0,
        metavar="N",
        help="further ones with a GPU each, for the networks; the others prepare images",
    )
    how.add_argument("--cluster", choices=sorted(QUEUES), help="the processes are jobs of this queue (dask-jobqueue)")
    how.add_argument("--cluster-options", type=Path, metavar="FILE", help="what a job gets: queue, memory ... (YAML)")
    how.add_argument("--scheduler", metavar="tcp://..", help="workers of a Dask cluster that runs already")
    how.add_argument("--dashboard", action="store_true", help="serve Dask's page of what goes on, and say where")
    how.add_argument(
        "--scratch", metavar="DIR", help="a disk of the worker's own for what is not kept, such as '$TMPDIR'"
    )
    how.add_argument(
        "--threads",
        type=whole_number,
        default=0,
        metavar="N",
        help="threads of each worker (default: all cores, shared among the workers)",
    )
    how.add_argument("--retry-failed", action="store_true", help="work again on what the same inputs failed for")
    model = p.add_argument_group("map (defaults are the bundle's recommendations)")
    model.add_argument("--bundle", metavar="NAME", help="name, folder or Hugging Face id of the model")
    model.add_argument("--mode", choices=("mean", "sample"), help="lowest error, or realistic detail")
    model.add_argument("--seeds", type=seed_list, metavar="N|A,B,...", help="number of samples, or the seeds")
    model.add_argument("--steps", type=whole_number, metavar="N", help="sampling steps")
    model.add_argument("--sampler", metavar="NAME", help="name of a sampler, such as ddim (docs/model.md)")
    model.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default: %(default)s)")
    model.add_argument("--precision", default="auto", help="auto, fp32, bf16 or fp16 (default: %(default)s)")
    model.add_argument("--no-register", action="store_true", help="FLAIRs are aligned to the T1w already")
    model.add_argument("--no-bias-correct", action="store_true", help="leave the bias field in")
    model.add_argument(
        "--skull-strip",
        choices=("auto", "deepbet", "none"),
        default="auto",
        help="auto looks whether the skull is off already (default: %(default)s)",
    )
    model.add_argument("--any-brain-volume", action="store_true", help="brains of impossible volume are right")
    model.add_argument(
        "--output-spaces",
        nargs="+",
        default=[],
        metavar="SPACE",
        help="results in these spaces, too: FLAIR, MNI152NLin2009cAsym, MNI152NLin2009aSym",
    )
    model.add_argument("--template", nargs="+", default=[], metavar="SPACE=FILE", help="the T1w template of a space")
    regions = p.add_argument_group("regions")
    regions.add_argument("--no-regions", action="store_true", help="maps only: no masks, tables, ROC curves")
    regions.add_argument("--no-suggestions", action="store_true", help="no suggested lesions where no mask is given")
    regions.add_argument("--proximal", nargs=2, type=float, metavar=("LO", "HI"), help="proximal NAWM, mm from lesions")
    regions.add_argument("--distal", type=float, metavar="MM", help="distal NAWM lies farther than this from lesions")
    regions.add_argument("--gap", type=float, metavar="MM", help="NAWM keeps this distance from lesions")
    regions.add_argument("--depth", type=float, metavar="MM", help="NAWM keeps this off grey matter and fluid")
    regions.add_argument("--min-lesion", type=float, metavar="ML", help="smaller lesions are left out")
    regions.add_argument("--method", choices=("network", "hmrf"), help="how tissue and lesions are found")
    group = p.add_argument_group("group")
    group.add_argument("--participants", type=Path, metavar="FILE", help="table of people (default: participants.tsv)")
    group.add_argument("--group-column", metavar="NAME", help="its column that tells patients from controls")
    group.add_argument("--control-label", nargs="+", default=[], metavar="NAME", help="what it calls controls")
    p.add_argument("-v", "--verbose", action="store_true", help="say more")
    p.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, call, report."""
    args = parser().parse_args(argv)
    set_up_logging(args.verbose)
    terminate_cleanly()
    out = args.out_dir.absolute()
    protect_folder(
        out,
        [
            args.bids_dir,
            args.derivatives,
            args.bundle,
            args.participants,
            args.bids_filter_file,
            args.cluster_options,
            [word.partition("=")[2] for word in args.template],
        ],
    )
    with hushed(args.verbose):  # the bar shows sessions, the summary says what failed
        return _group(args, out) if args.level == "group" else _participants(args, out)


def _group(args: argparse.Namespace, out: Path) -> int:
    from .group.run import run_group

    if not args.bids_dir.exists():
        raise InputError(f"There is no {args.bids_dir}; give the BIDS data set, or the table of paths.")
    from .archive.studies import RAW

    source = out / RAW if _is_archive(args) and (out / RAW).is_dir() else args.bids_dir.absolute()
    done = run_group(out, source, participants=args.participants, column=args.group_column, controls=args.control_label)
    if not args.quiet:
        print(f"{done.sessions} sessions of {done.persons} people.")
        print("\n".join([f"note: {sentence}" for sentence in done.notes] + [f"{path}" for path in done.files.values()]))
    return 0


def _participants(args: argparse.Namespace, out: Path) -> int:
    from ..bundle import find_folder, read_description
    from . import status
    from .dataset import write_dataset
    from .engine import Ledger, run_here, shard

    engine = _engine(args)
    chosen = options(args)
    chosen.settings()
    if chosen.spaces:
        from .spaces.templates import check_spaces

        check_spaces(chosen.spaces, chosen.templates)
    folder = find_folder(chosen.bundle)
    described = read_description(folder)
    archive = _is_archive(args)
    if not args.skip_bids_validator and not archive:
        from .validate import validate

        for sentence in validate(args.bids_dir):
            print(f"warning: {sentence}", file=sys.stderr)
    sessions = shard(_studies(args, out) if archive else _sessions(args), args.shard)
    write_dataset(
        out,
        args.bids_dir.absolute(),
        {"name": folder.name, "hash": described["hash"]},
        sessions[0].root if archive and sessions else None,
    )
    with _Bar(len(sessions), args.quiet) as bar:
        ledger = Ledger(out, sessions, bar)
        if engine.distributed:
            from .cluster import run_cluster

            run_cluster(sessions, chosen, out, ledger, engine)
        else:
            run_here(sessions, chosen, out, ledger)
    rows = ledger.rows()
    failed = any(one.state == "failed" for one in rows)
    if failed or not args.quiet:
        print(status.summary(rows), file=sys.stderr if failed else sys.stdout)
    return 1 if failed else 0


def _engine(args: argparse.Namespace) -> Engine:
    """Which workers, of a command line."""
    from .workers import Engine

    if args.workers < 1:
        raise InputError(f"--workers takes a number of at least 1, not {args.workers}.")
    if args.cluster and args.scheduler:
        raise InputError("--cluster starts workers, and --scheduler uses those of others; give one of them.")
    if args.cluster_options and not args.cluster:
        raise InputError("--cluster-options are those of a queue; give --cluster, too.")
    if args.gpus and args.scheduler:
        raise InputError(
            "Workers of a cluster that runs already say themselves what they have (dask worker "
            "--resources GPU=1); leave --gpus out."
        )
    return Engine(
        args.workers, args.gpus, args.scheduler, args.cluster, args.cluster_options, args.threads, args.dashboard
    )


def options(args: argparse.Namespace) -> Options:
    """Settings of a command line."""
    import os

    from ..bundle import DEFAULT_BUNDLE
    from .options import Options

    regions = {
        "proximal_mm": args.proximal and tuple(args.proximal),
        "distal_mm": args.distal,
        "lesion_gap_mm": args.gap,
        "depth_mm": args.depth,
        "min_lesion_ml": args.min_lesion,
        "method": args.method,
    }
    seeds = tuple(args.seeds) if isinstance(args.seeds, list) else args.seeds
    threads = args.threads
    here = args.workers + args.gpus if not args.cluster and not args.scheduler else 1
    if not threads and here > 1 and not os.environ.get("OMP_NUM_THREADS"):
        threads = max(1, (os.cpu_count() or 1) // here)
    return Options(
        args.bundle or DEFAULT_BUNDLE,
        args.mode,
        seeds,
        args.steps,
        args.sampler,
        args.device,
        args.precision,
        not args.no_register,
        args.skull_strip,
        not args.no_bias_correct,
        args.any_brain_volume,
        not args.no_regions,
        not args.no_suggestions,
        {name: value for name, value in regions.items() if value is not None},
        args.retry_failed,
        threads,
        tuple(args.output_spaces),
        _templates(args.template),
        args.scratch,
    )


def _sessions(args: argparse.Namespace) -> list[Session]:
    labels: dict[str, Any] = {"participants": args.participant_label, "sessions": args.session_label}
    if args.bids_dir.suffix.lower() in (".csv", ".tsv") and not args.bids_dir.is_dir():
        from .table import read_table

        return read_table(args.bids_dir, **labels)
    from ..measured.choice import read_filters
    from .index import index_bids

    filters = read_filters(args.bids_filter_file)
    return index_bids(args.bids_dir, **labels, filters=filters, derivatives=args.derivatives)


def _templates(given: Sequence[str]) -> dict[str, str]:
    """``SPACE=FILE``, as a mapping."""
    found = {}
    for one in given:
        space, equals, file = one.partition("=")
        if not (space and equals and file):
            raise InputError(f"--template takes SPACE=FILE, as in MNI152NLin2009cAsym=t1.nii.gz, not {one!r}.")
        found[space] = str(Path(file).absolute())
    return found


def _is_archive(args: argparse.Namespace) -> bool:
    from .archive.headers import is_archive

    return bool(args.dicom or (args.bids_dir.is_dir() and is_archive(args.bids_dir)))


def _studies(args: argparse.Namespace, out: Path) -> list[Session]:
    from .archive.headers import read_archive
    from .archive.people import write_people
    from .archive.studies import sessions_of

    found = read_archive(args.bids_dir.absolute(), leave_out=out)
    sessions = sessions_of(found, out, participants=args.participant_label, sessions=args.session_label)
    write_people(found, out)
    return sessions


class _Bar:
    """A progress bar over sessions."""

    def __init__(self, total: int, hidden: bool) -> None:
        self._total, self._hidden = total, hidden

    def __enter__(self) -> _Bar:
        from tqdm import tqdm

        self._bar = tqdm(total=self._total, unit="session", disable=self._hidden or None, file=sys.stderr, leave=False)
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()

    def __call__(self, outcome: Any) -> None:
        self._bar.set_postfix_str(f"{outcome.status.name} {outcome.status.state}", refresh=False)
        self._bar.update(1)


def entry() -> int:
    """The console script ``demist-bids``."""
    return run(main)


if __name__ == "__main__":
    raise SystemExit(run(main))
