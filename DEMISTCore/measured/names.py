"""File names of BIDS: ``sub-01_ses-02_acq-mprage_T1w.nii.gz`` is entities, a suffix and an extension.

Names alone are read: no index of the whole data set, no database, and no package for what takes a page.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..files import is_hidden

_EXTENSIONS = (".nii.gz", ".nii")
_ENTITY = re.compile(r"^([a-zA-Z]+)-([a-zA-Z0-9+]+)$")
#: Spaces of a derivative that are a subject's own, in the T1w's place.
T1W_SPACES = ("T1w", "individual", "anat")
#: Spaces in which an image stays as it was acquired.
OWN_SPACES = ("orig", "native", "scanner", "PSR", "qmt", "qMT", "SIR")


@dataclass(frozen=True)
class Name:
    """A file name in its parts.

    Attributes:
        path: the file.
        entities: values by key (``{"sub": "01", "acq": "mprage"}``).
        suffix: what it is: ``T1w``, ``mask``.
    """

    path: Path
    entities: Mapping[str, str]
    suffix: str

    def __getitem__(self, key: str) -> str | None:
        return self.entities.get(key)

    @property
    def is_in_t1w_space(self) -> bool:
        """Whether it says that it lies where the T1w does."""
        return self["space"] in T1W_SPACES

    @property
    def is_elsewhere(self) -> bool:
        """Whether it says that it lies in a space that is not the person's own, such as a template's."""
        return self["space"] not in (None, *T1W_SPACES, *OWN_SPACES)


def parse(path: Path) -> Name | None:
    """The parts of an image's name; None where it is no BIDS name of a NIfTI image.

    >>> name = parse(Path("sub-01_ce-gadolinium_T1w.nii.gz"))
    >>> name.suffix, name["ce"], name["acq"]
    ('T1w', 'gadolinium', None)
    """
    extension = next((end for end in _EXTENSIONS if path.name.endswith(end)), None)
    if extension is None or is_hidden(path):
        return None
    *parts, suffix = path.name[: -len(extension)].split("_")
    pairs = [_ENTITY.match(part) for part in parts]
    if not parts or not all(pairs) or "-" in suffix:
        return None
    return Name(path, {pair[1]: pair[2] for pair in pairs if pair}, suffix)


def images(folder: Path) -> list[Name]:
    """All images of a folder with BIDS names, sorted by name."""
    if not folder.is_dir():
        return []
    return [name for path in sorted(folder.iterdir()) if (name := parse(path)) is not None and path.is_file()]
