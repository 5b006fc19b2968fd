"""Every state of the panel at 400 pixels: nothing is wider, no button is cut, the numbers asked for are in sight."""

from __future__ import annotations

import json

import numpy as np
import pytest
import slicer_app
from slicer_app import states

slicer_app.install()

from PySide6.QtWidgets import QAbstractButton, QComboBox  # noqa: E402
from test_slicer_charts import brain  # noqa: E402, F401  (a fixture)

from DEMISTCore.volume import Volume  # noqa: E402

WIDTH = 400


@pytest.fixture
def demo(tmp_path, brain):  # noqa: F811
    """A folder as ``python -m DEMISTCore.demo`` writes it, of a few voxels."""
    rows, summary, _found = brain
    shape, rng = (30, 30, 20), np.random.default_rng(1)
    for name, high in (("T1w", 400.0), ("FLAIR", 300.0), ("psr", 0.2), ("psr_uncertainty", 0.02)):
        Volume(rng.uniform(0, high, shape).astype(np.float32), np.eye(4)).write(tmp_path / f"{name}.nii.gz")
    (tmp_path / "psr.json").write_text(json.dumps({"bundle": {"name": "demist"}, "warnings": ["One sentence."]}))
    out = tmp_path / "statistics"
    out.mkdir()
    # Volumes as they come: of a few voxels, and of a whole brain.
    sizes = dict(zip((row["name"] for row in rows), (1045.2, 0.005894, 271.83, 52.04)))
    told = [{**row, "mean_ci90_low": row["mean"] - 0.01, "mean_ci90_high": row["mean"] + 0.012} for row in rows]
    told = [{**row, "volume_ml": sizes.get(row["name"], row["volume_ml"])} for row in told]
    (out / "statistics.json").write_text(json.dumps({**summary, "regions": told}, default=float))
    numbers = np.zeros(shape, np.uint8)
    numbers[5:8, 5:8, 5:8] = 1
    Volume(numbers, np.eye(4)).write(out / "lesions_dseg.nii.gz")
    return tmp_path


def test_nothing_is_cut_in_a_narrow_panel(demo):
    seen = []

    def see(name: str, parent) -> None:
        image = states.picture(parent, WIDTH)
        assert image.shape[1] == WIDTH, f"{name}: {image.shape[1]} pixels; widest: {states.widest(parent)}"
        for button in parent.findChildren(QAbstractButton):
            if button.isVisible() and not isinstance(button.parentWidget(), QComboBox):
                words = button.fontMetrics().horizontalAdvance(str(button.text))
                assert words <= button.width, f"{name}: {button.objectName} is cut"
        table = parent.self().ui.statisticsTable
        if table.isVisible():
            headings = [table.horizontalHeaderItem(i).text() for i in range(table.columnCount)]
            last = headings.index("90 % interval")
            room = table.viewport().width()
            end = table.columnViewportPosition(last) + table.columnWidth(last)
            assert end <= room + 1, f"{name}: the interval ends at {end} of {room} pixels"
            for row in range(table.rowCount):
                for place in range(1, last + 1):
                    words = table.fontMetrics().horizontalAdvance(table.item(row, place).text())
                    assert words < table.columnWidth(place), f"{name}: {table.item(row, place).text()} is cut"
        seen.append(name.split("_")[0])

    states.walk(demo, see)
    assert seen == [f"{number:02d}" for number in range(1, 16)]
