"""What the BIDS validator says of a data set, in a few sentences; nothing is stopped by it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

#: A validator that follows links in circles does not end by itself.
_SECONDS = 600


def validate(root: Path) -> list[str]:
    """Errors of a BIDS data set, a sentence a kind; empty where there are none or no validator is installed.

    A fault of one subject must not stop the others: what cannot be worked on is found out session by session.

    Args:
        root: the data set; anything else than a folder is no business of the validator.
    """
    program = find_validator()
    if program is None or not root.is_dir():
        return []
    command = [program, str(root), "--format", "json", "--ignoreWarnings"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False, stdin=subprocess.DEVNULL)
        issues = json.loads(done.stdout)["issues"]["issues"]
        errors = [one for one in issues if one.get("severity") == "error"]
    except subprocess.TimeoutExpired:
        return [f"The BIDS validator did not end within {_SECONDS} s; look at {root} for links in circles."]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ["The BIDS validator could not be run; --skip-bids-validator leaves it out."]
    kinds: dict[str, list[str]] = {}
    for one in errors:
        kinds.setdefault(str(one.get("code")), []).append(str(one.get("location") or ""))
    return [
        f"{root} is not valid BIDS: {code}, {len(where)} time{'s' * (len(where) > 1)}, as in {where[0] or 'the whole'}."
        for code, where in sorted(kinds.items())
    ]


def find_validator() -> str | None:
    """The program ``bids-validator-deno`` (PyPI), beside this Python or on the path."""
    beside = Path(sys.executable).with_name("bids-validator-deno")
    return str(beside) if beside.is_file() else shutil.which("bids-validator-deno")
