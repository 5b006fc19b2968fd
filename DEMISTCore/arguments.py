"""Options that several commands share, each written once; a command adds them to its parser or to a group of it."""

from __future__ import annotations

import argparse
from typing import Any

from .errors import InputError

#: A parser, or a group of options in one.
Options = argparse._ActionsContainer


def add_words(options: Options, quiet: bool = True) -> None:
    """``-v``, and ``-q`` where the command can be quiet."""
    options.add_argument("-v", "--verbose", action="store_true", help="say more")
    if quiet:
        options.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")


def add_device(options: Options, precision: bool = True) -> None:
    """``--device`` and ``--precision`` of the networks."""
    add = options.add_argument
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default: %(default)s)")
    if precision:
        add("--precision", default="auto", help="auto, fp32, bf16 or fp16 (default: %(default)s)")


def add_sampling(options: Options) -> None:
    """``--mode``, ``--seeds``, ``--steps`` and ``--sampler``, which the bundle recommends unless they are given."""
    options.add_argument(
        "--mode",
        choices=("mean", "sample"),
        help="mean: lowest error, one pass; sample: realistic detail, one map per seed, averaged",
    )
    options.add_argument(
        "--seeds",
        type=seed_list,
        metavar="N|A,B,...",
        help="number of samples to average, or the seeds themselves, as in 1,2,7 (one seed: 7,)",
    )
    options.add_argument("--steps", type=whole_number, metavar="N", help="sampling steps")
    options.add_argument("--sampler", metavar="NAME", help="name of a sampler, such as ddim (docs/model.md)")


def add_preparation(options: Options, **help: str) -> None:
    """What may be left out of the preparation of a T1w and a FLAIR.

    Args:
        options: where to.
        help: another sentence than usual for an option, by its name (``no_register="..."``).
    """
    told = {
        "no_register": "the FLAIR is aligned to the T1w already",
        "no_bias_correct": "leave the bias field in",
        "skull_strip": "auto looks whether the skull is off already (default: %(default)s)",
    } | help
    options.add_argument("--no-register", action="store_true", help=told["no_register"])
    options.add_argument("--no-bias-correct", action="store_true", help=told["no_bias_correct"])
    options.add_argument("--skull-strip", choices=("auto", "deepbet", "none"), default="auto", help=told["skull_strip"])
    add_any_brain_volume(options)


def add_any_brain_volume(options: Options) -> None:
    """``--any-brain-volume``."""
    options.add_argument(
        "--any-brain-volume", action="store_true", help="a brain of impossible volume is right, I looked at its mask"
    )


def preparation(args: argparse.Namespace) -> dict[str, Any]:
    """What :func:`add_preparation` has read, as keyword arguments of :func:`DEMISTCore.prepare`."""
    return {
        "register": not args.no_register,
        "skull_strip": args.skull_strip,
        "bias_correct": not args.no_bias_correct,
        "any_brain_volume": args.any_brain_volume,
    }


def whole_number(text: str) -> int:
    """An option that is a whole number; InputError for anything else."""
    try:
        return int(text)
    except ValueError:
        raise InputError(f"{text!r} is not a whole number.") from None


def seed_list(text: str) -> int | list[int]:
    """A number of samples, or the seeds themselves; InputError for anything else."""
    try:
        values = [int(word) for word in text.split(",") if word.strip()]
    except ValueError:
        raise InputError(f"--seeds takes a number of samples, or seeds as in 1,2,7, not {text!r}.") from None
    return values if "," in text else values[0] if values else 0
