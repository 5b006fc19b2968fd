"""The worker's sentences are found again, so that they can be told in the language of the application."""

from __future__ import annotations

from pathlib import Path

import pytest
import slicer_app

slicer_app.install()

from DEMISTSlicerLib.Run.Sentences import inLanguage  # noqa: E402
from DEMISTSlicerLib.Run.WorkerSentences import sentences  # noqa: E402
from slicer_app.sentences import collected  # noqa: E402

from DEMISTCore.errors import InputError  # noqa: E402
from DEMISTCore.volume import Volume  # noqa: E402

KNOWN = sentences(lambda text: text)


def test_the_list_is_that_of_the_core():
    """A sentence that is new is told in English, no more; but the list must not fall far behind.

    ``python -m slicer_app.sentences`` renews it.
    """
    now = set(collected())
    assert len(now) > 100
    assert len(now & set(KNOWN)) > 0.9 * len(now)
    assert len(now & set(KNOWN)) > 0.9 * len(KNOWN)


def test_every_sentence_is_recognized_with_whatever_is_filled_in():
    for template in KNOWN:
        told = template.format(*(f"a {i} (b).nii, {{c}}" for i in range(12)))
        assert inLanguage(told, lambda text: "~" + text) == "~" + told, template


def test_a_real_one_keeps_its_names_in_another_language(tmp_path):
    (tmp_path / "T1w.nii.gz").write_bytes(b"")
    with pytest.raises(InputError) as caught:
        Volume.read(tmp_path / "T1w.nii.gz")
    message = str(caught.value)
    told = inLanguage(message, lambda text: f"Fehler: {text[::-1] if '{' not in text else '{0} (leer)'}")
    assert told.startswith("Fehler:")
    assert str(Path(tmp_path) / "T1w.nii.gz") in told
    assert inLanguage(message) == message  # English, as long as there is no translation
    assert inLanguage("Nobody has ever said this.", lambda text: "x") == "Nobody has ever said this."
    assert inLanguage(message, lambda text: "{7} {oops}") == message
