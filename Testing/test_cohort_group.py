"""All sessions together: tables, patients against controls, change over time, what stands out, the report."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from cohort_data import write_json

from DEMISTCore import cli
from DEMISTCore.cohort import status
from DEMISTCore.cohort.__main__ import main
from DEMISTCore.cohort.group import change, compare, outliers, people, tables
from DEMISTCore.cohort.group.people import Person
from DEMISTCore.cohort.group.tables import Measured
from DEMISTCore.cohort.status import Status
from DEMISTCore.errors import InputError
from DEMISTCore.statistics import write_table

HOSTILE = '<img src=x onerror="alert(1)">'
REGIONS = {"nawm": 0.12, "grey_matter": 0.06}


def write_session(out: Path, subject: str, session: str, means: dict[str, float], half: float | None = 0.004) -> None:
    """The two files of a session that a group reads, as the level participant writes them."""
    name = f"{subject}_{session}" if session else subject
    anat = out / subject / session / "anat"
    anat.mkdir(parents=True)
    rows = [
        {
            "region": region,
            "lesion": None,
            "name": region.replace("_", " "),
            "voxels": 1000,
            "missing": 0,
            "volume_ml": 300.0,
            "mean": mean,
            "sd": 0.01,
            "median": mean,
            "mean_ci90_low": None if half is None else mean - half,
            "mean_ci90_high": None if half is None else mean + 2 * half,
        }
        for region, mean in means.items()
    ]
    rows.append({"region": "lesion", "lesion": 1, "name": "Lesion 1", "black_hole": False, "mean": 0.05})
    write_table(anat / f"{name}_desc-demist_regions.tsv", rows)
    write_json(
        anat / f"{name}_desc-demist_PSRmap.json",
        {
            "summary": {"brain_volume_ml": 1200.0},
            "warnings": ["It moved."],
            "bundle": {"hash": "a"},
            "statement": "An estimate, not for clinical use.",
        },
    )


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> tuple[Path, Path]:
    """40 people: patients have 0.01 less, PSR falls with age, men have more; ten come again after two years."""
    root = tmp_path_factory.mktemp("group")
    bids, out = root / "bids", root / "out"
    rng = np.random.default_rng(1)
    lines = ["participant_id\tage\tsex\tgroup"]
    for i in range(40):
        subject, patient, age, male = f"sub-{i:02d}", i % 2 == 1, rng.uniform(20, 60) + 5 * (i % 2), i % 4 > 1
        lines.append(f"{subject}\t{age:.1f}\t{'M' if male else 'F'}\t{'MS' if patient else 'control'}")
        means = {
            region: base - 0.01 * patient - 2e-4 * age + 0.004 * male + rng.normal(0, 0.002)
            for region, base in REGIONS.items()
        }
        if i == 7:
            means["nawm"] = 0.02
        write_session(out, subject, "ses-1", means)
        if i >= 30:
            write_session(out, subject, "ses-2", {region: mean - 0.004 for region, mean in means.items()})
            (bids / subject).mkdir(parents=True)
            (bids / subject / f"{subject}_sessions.tsv").write_text(
                "session_id\tacq_time\nses-1\t2020-01-01T10:00:00\nses-2\t2022-01-01T10:00:00\n"
            )
        status.save(out, Status(subject, "ses-1", "done", "report", shown=HOSTILE if i == 7 else subject))
    status.save(out, Status("sub-99", "", "failed", "files", f"It has no FLAIR {HOSTILE}.", shown=HOSTILE))
    (bids / "participants.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert main([str(bids), str(out), "group", "-q"]) == 0
    return bids, out


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines(), delimiter="\t"))


def test_tables_long_and_wide(cohort):
    _, out = cohort
    long, wide = table(out / "group/psr_long.tsv"), table(out / "group/psr_wide.tsv")
    assert len(long) == 2 * 50
    assert len(wide) == 50
    first = next(row for row in wide if row["subject"] == "sub-03")
    assert (first["group"], first["sex"], first["lesions"], first["warnings"]) == ("MS", "M", "1", "1")
    [same] = [row for row in long if row["subject"] == "sub-03" and row["region"] == "nawm"]
    assert first["nawm_mean"] == same["mean"]
    assert {"nawm_volume_ml", "grey_matter_mean", "brain_volume_ml", "age"} <= set(first)
    told = json.loads((out / "group/group.json").read_text())
    assert (told["sessions"], told["persons"], told["groups"]) == (50, 40, {"MS": 20, "control": 20})


def test_patients_against_controls_at_equal_age_and_sex(cohort):
    """The effect that was put in lies in the interval; age alone would have made it larger."""
    _, out = cohort
    rows = {row["region"]: row for row in table(out / "group/comparison.tsv")}
    grey = rows["grey_matter"]
    assert (grey["patients"], grey["controls"], grey["covariates"]) == ("20", "20", "age sex")
    assert float(grey["ci95_low"]) < -0.01 < float(grey["ci95_high"])
    assert float(grey["ci95_high"]) - float(grey["ci95_low"]) < 0.005
    assert float(grey["p"]) < 1e-6
    assert float(grey["p_fdr"]) >= float(grey["p"])


def test_the_model_is_that_of_statsmodels_by_formula():
    import pandas as pd
    import statsmodels.formula.api as by_formula

    rng = np.random.default_rng(0)
    measured, persons, frame = [], {}, []
    for i in range(14):
        subject, age, sex = f"sub-{i}", float(rng.uniform(20, 70)), "MF"[i % 2]
        mean = 0.1 + rng.normal(0, 0.01)
        measured.append(Measured(subject, "", {"nawm": {"mean": mean}}))
        persons[subject] = Person(subject, "MS" if i % 3 else "HC", bool(i % 3), age, sex)
        frame.append({"y": mean, "g": int(bool(i % 3)), "age": age, "sex": sex})
    [row], notes = compare.compare(measured, persons)
    fit = by_formula.ols("y ~ g + age + sex", pd.DataFrame(frame)).fit(cov_type="HC3", use_t=True)
    assert not notes
    np.testing.assert_allclose(row["difference"], fit.params["g"], rtol=1e-9)
    np.testing.assert_allclose([row["ci95_low"], row["ci95_high"]], fit.conf_int().loc["g"], rtol=1e-9)
    np.testing.assert_allclose(row["p"], fit.pvalues["g"], rtol=1e-9)


def test_few_people_are_not_compared():
    measured = [Measured(f"sub-{i}", "", {"nawm": {"mean": 0.1}}) for i in range(4)]
    persons = {one.subject: Person(one.subject, "MS", i > 0) for i, one in enumerate(measured)}
    rows, [note] = compare.compare(measured, persons)
    assert not rows
    assert "there are 3 and 1" in note


def test_change_has_years_and_an_interval(cohort):
    _, out = cohort
    rows = table(out / "group/change.tsv")
    assert len(rows) == 10 * 2
    one = rows[0]
    assert (one["first"], one["last"]) == ("ses-1", "ses-2")
    assert float(one["change"]) == pytest.approx(-0.004, abs=1e-6)
    assert float(one["years"]) == pytest.approx(2.0, abs=0.01)
    assert float(one["per_year"]) == pytest.approx(-0.002, abs=2e-5)
    half = math.hypot(0.004, 0.008)  # each interval reaches 0.004 down and 0.008 up
    assert float(one["ci90_low"]) == pytest.approx(-0.004 - half, abs=1e-5)
    assert float(one["ci90_high"]) == pytest.approx(-0.004 + half, abs=1e-5)
    means = table(out / "group/mean_change.tsv")
    assert {row["group"] for row in means} == {"n/a", "MS", "control"}
    assert all(row["what"] == "per_year" for row in means)


def test_change_without_calibration_or_dates_has_no_interval_and_no_rate():
    means = {"ses-1": 0.1, "ses-2": 0.09}
    measured = [Measured("sub-1", session, {"nawm": {"mean": mean}}) for session, mean in means.items()]
    [row] = change.changes(measured, {})
    assert row["change"] == pytest.approx(-0.01)
    assert row["ci90_low"] is None
    assert row["years"] is None
    assert "per_year" not in row
    dated = {"sub-1": Person("sub-1", ages={"ses-1": 40.0, "ses-2": 40.5})}
    assert change.changes(measured, dated)[0]["per_year"] == pytest.approx(-0.02)


def test_what_stands_out_comes_first(cohort):
    _, out = cohort
    rows = table(out / "group/outliers.tsv")
    assert (rows[0]["subject"], rows[0]["by"], rows[0]["value"]) == ("sub-07", "nawm_mean", "0.02")
    assert len(rows) == 50
    distances = [float(row["distance"]) for row in rows]
    assert distances == sorted(distances, reverse=True)
    assert outliers.rank([Measured("sub-1", "", {})]) == []


def test_the_report_shows_hostile_names_as_text(cohort):
    _, out = cohort
    page = (out / "group/index.html").read_text(encoding="utf-8")
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=&quot;alert(1)&quot;&gt;" in page
    assert "Not done: 1" in page
    assert 'href="../sub-07/sub-07_ses-1.html"' in page
    assert (out / "group/psr_by_region.png").is_file()
    assert page.index("Not done") < page.index("What stands out") < page.index("Patients against controls")


def test_the_same_tables_give_the_same_bytes(cohort):
    bids, out = cohort
    before = {path.name: path.read_bytes() for path in (out / "group").iterdir()}
    assert main([str(bids), str(out), "group", "-q"]) == 0
    assert {path.name: path.read_bytes() for path in (out / "group").iterdir()} == before


def test_columns_and_controls_can_be_named(cohort, tmp_path):
    bids, _ = cohort
    other = tmp_path / "people.csv"
    other.write_text("participant_id,Age,Sex,arm\nsub-01,89+,male,A\nsub-02,n/a,woman,B\nsub-03,x,,\n")
    known, notes = people.read_people(bids, other, "arm", ["b"])
    assert not notes
    assert [(p.group, p.patient, p.age, p.sex) for p in known.values()] == [
        ("A", True, 89.0, "M"),
        ("B", False, None, "F"),
        ("", None, None, ""),
    ]
    with pytest.raises(InputError, match="no column kind"):
        people.read_people(bids, other, "kind")
    with pytest.raises(InputError, match="Nobody in"):
        people.read_people(bids, other, "arm", ["zzz"])
    with pytest.raises(InputError, match="There is no table"):
        people.read_people(bids, tmp_path / "none.tsv")
    known, notes = people.read_people(tmp_path)
    assert not known
    assert "participants.tsv" in notes[0]


def test_without_tables_it_is_refused(cohort, tmp_path, capsys):
    bids, _ = cohort
    assert cli.run(main, [str(bids), str(tmp_path), "group"]) == 2
    assert "run the level participant first" in capsys.readouterr().err
    with pytest.raises(InputError):
        tables.collect(tmp_path)
