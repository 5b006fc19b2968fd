"""Where the results of a session go, by BIDS names."""

from __future__ import annotations

from os.path import expandvars
from pathlib import Path
from urllib.parse import quote

from .session import Session

#: What a person never looks at: records, locks. Validators pass over hidden folders.
HIDDEN = ".demist"


class SessionPaths:
    """Paths of a derivative data set, for one session.

    >>> from DEMISTCore.cohort.session import Session
    >>> places = SessionPaths(Path("out"), Session("sub-01", "ses-02"))
    >>> places.anat("desc-demist_PSRmap.nii.gz").as_posix()
    'out/sub-01/ses-02/anat/sub-01_ses-02_desc-demist_PSRmap.nii.gz'
    """

    def __init__(self, out: Path, session: Session, scratch: str | None = None) -> None:
        self.out, self.session = out, session
        #: For what is not kept. One that is given may name the worker's variables ("$TMPDIR").
        self.scratch = out / HIDDEN / "scratch" if scratch is None else Path(expandvars(scratch)).expanduser()
        self.folder = out / session.subject / session.session / "anat"
        self.figures = out / session.subject / "figures"
        self.records = hidden(out, session.subject)

    def anat(self, what: str) -> Path:
        """An image, its sidecar, or a table."""
        return self.folder / f"{self.session.name}_{what}"

    def figure(self, what: str) -> Path:
        """A picture of the report."""
        return self.figures / f"{self.session.name}_{what}.png"

    @property
    def page(self) -> Path:
        """The report."""
        return self.out / self.session.subject / f"{self.session.name}.html"

    def record(self, stage: str) -> Path:
        """What says that a stage is done."""
        return self.records / f"{safe(self.session.name)}.{stage}.json"

    @property
    def lock(self) -> Path:
        """The folder whose lock holds the session."""
        return self.records / f"{safe(self.session.name)}.lock"

    @property
    def inputs(self) -> Path:
        """Hashes of the inputs as they were."""
        return self.record("inputs")

    @property
    def handoff(self) -> Path:
        """The prepared images on their way from one worker to the next."""
        return self.records / f"{safe(self.session.name)}.prepared.npz"

    @property
    def log(self) -> Path:
        """The traceback of an error that nobody expected."""
        return self.records / f"{safe(self.session.name)}.log.txt"


def hidden(out: Path, subject: str) -> Path:
    """Where a person's records are: a folder each, for a folder of a million files is slow."""
    return out / HIDDEN / safe(subject)


def safe(name: str) -> str:
    """A name as a file's, whatever is in it."""
    return quote(name, safe="+ ", errors="surrogateescape")[:150].replace(" ", "%20")
