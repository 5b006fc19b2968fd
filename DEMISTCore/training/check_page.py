"""The page of a check: one HTML file that holds everything, a picture a session."""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..files import atomic_path
from ..preview import PSR_COLORS, PSR_LIMITS

if TYPE_CHECKING:
    from .check import Finding, Report

_STYLE = """body{font:15px/1.45 system-ui,sans-serif;margin:2em auto;max-width:70em;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:.5em 0}td,th{padding:.15em .7em;text-align:left;border-bottom:1px solid #ddd;
vertical-align:top}.error{color:#b00020}.warning{color:#8a5a00}.good{color:#1b6e2c}section{border-top:2px solid #ccc;
margin-top:1.5em}img{max-width:100%;background:#000}code{font-size:90%}details{margin:.4em 0}"""


def write_page(report: Report, path: Path) -> None:
    """Write the page, whole or not at all.

    Raises:
        InputError: it cannot be written.
    """
    head = f"Check of {report.root.name}"
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{_text(head)}</title><style>{_STYLE}</style>",
        f"<h1>{_text(head)}</h1>",
        f"<p>{len(report.usable)} of {len(report.findings)} sessions can be trained on.</p>",
    ]
    parts += _sentences(report.errors, "error") + _sentences(report.warnings, "warning")
    if report.groups:
        groups = ", ".join(f"{_text(name)}: {count}" for name, count in sorted(report.groups.items()))
        parts.append(f"<p>Usable sessions by group: {groups}.</p>")
    rows = [
        f'<tr><td><a href="#{_text(one.name)}">{_text(one.name)}</a><td class="{_class(one)}">{one.state}'
        f"<td>{_brief(one)}"
        for one in report.findings
    ]
    parts.append(f"<table><tr><th>Session<th>State<th>Map{''.join(rows)}</table>")
    parts += [_section(one) for one in report.findings]
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(parts) + "\n", encoding="utf-8", errors="backslashreplace")


def _section(one: Finding) -> str:
    choice = one.choice
    state = f'<span class="{_class(one)}">{one.state}</span>'
    parts = [f'<section id="{_text(one.name)}"><h2>{_text(one.name)} {state}</h2>']
    if choice.missing:
        parts.append(f"<p>Left out: it lacks {_text(' and '.join(choice.missing))}.</p>")
    parts += _sentences(one.errors, "error") + _sentences(one.warnings, "warning")
    if one.entry is not None:
        parts.append(f'<img alt="T1w, FLAIR and PSR of {_text(one.name)}" src="data:image/png;base64,{_picture(one)}">')
        parts.append(_table(_facts(one)))
    chosen = "".join(f"<tr><td>{what}<td><code>{_text(path)}</code>" for what, path in choice.files.items())
    passed = "".join(f"<tr><td>{r.what}<td><code>{_text(r.path)}</code><td>{_text(r.why)}" for r in choice.rejected)
    parts.append(
        f"<details{' open' if one.errors or choice.missing else ''}><summary>Files</summary>"
        f"<table><tr><th>Taken as<th>File{chosen}</table>"
    )
    if passed:
        parts.append(f"<table><tr><th>Not taken as<th>File<th>Why{passed}</table>")
    return "\n".join([*parts, "</details></section>"])


def _facts(one: Finding) -> list[tuple[str, str]]:
    facts = one.facts
    low, middle, high = facts["psr_percentiles"].values()
    rows = [
        ("Units", f"{facts['units']} (by {facts['units_by']})"),
        ("PSR is known in", f"{facts['coverage']:.1%} of the brain"),
        ("Median PSR (1 % to 99 %)", f"{middle:.3f} ({low:.3f} to {high:.3f})"),
        (
            "Voxels without a value",
            f"{facts['nan']:,} NaN, {facts['low']:,} too low, {facts['high']:,} too high, "
            f"{facts['rim']:,} in a bright rim, {facts['zero']:,} exactly 0",
        ),
        ("Brain mask, lesions", f"{facts['mask_ml']:.0f} mL, {facts['lesion_ml']:.1f} mL"),
        ("Tissue labels", "yes" if facts["segmented"] else "none"),
    ]
    placed = facts.get("registration")
    if placed:
        gain = placed.get("mutual_information_gain")
        rows.append(("Map off the T1w", f"{placed['moved_mm']:.1f} mm; mutual information +{(gain or 0):.0%} after"))
        told = [f"{placed['fit']:.0%} of the map's variance"] if placed.get("fit") is not None else []
        if placed.get("csf_mean") is not None:
            told.append(f"mean PSR in fluid {placed['csf_mean']:.3f}")
        rows.append(("T1w and FLAIR tell", "; ".join(told) or "-"))
    return rows


def _picture(one: Finding) -> str:
    """PNG in base64: axial and sagittal slices of T1w, FLAIR and PSR, tissue's outline on the map."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    entry = one.entry
    if entry is None:
        raise ValueError(f"{one.choice.name} could not be prepared, so there is nothing to draw.")
    t1w, flair = np.asarray(entry.x, np.float32)
    y, known = np.asarray(entry.y, np.float32), np.asarray(entry.known) > 0
    inside = np.asarray(entry.labels) > 0
    covered = np.argwhere(known & inside)
    middle = [int(np.median(covered[:, axis])) for axis in range(3)]
    shown = np.where(known & inside, y, np.nan)
    cuts = [lambda a: a[::-1, :, middle[2]].T, lambda a: a[middle[0] + (4 if middle[0] + 4 < a.shape[0] else 0)].T]
    figure = Figure(figsize=(11, 2.4), facecolor="black")
    panels = [(image, cut) for cut in cuts for image in ("T1w", "FLAIR", "PSR")]
    for place, (name, cut) in enumerate(panels):
        axes = figure.add_axes((place / 6, 0, 1 / 6, 0.9))
        axes.set_axis_off()
        axes.imshow(cut(t1w if name != "FLAIR" else flair), cmap="gray", vmin=0, vmax=1, origin="lower")
        if name == "PSR":
            axes.imshow(cut(shown), cmap=PSR_COLORS, vmin=PSR_LIMITS[0], vmax=PSR_LIMITS[1], origin="lower")
            axes.contour(cut(t1w), levels=[_white_level(t1w, inside)], colors="cyan", linewidths=0.4, origin="lower")
        axes.set_title("PSR, T1w's outline" if name == "PSR" else name, color="white", fontsize=8)
    stream = io.BytesIO()
    FigureCanvasAgg(figure).print_figure(stream, dpi=110, facecolor="black", metadata={"Software": None})
    return base64.b64encode(stream.getvalue()).decode("ascii")


def _white_level(t1w: np.ndarray, inside: np.ndarray) -> float:
    """A grey value between grey and white matter: a third of the brain is brighter."""
    return float(np.percentile(t1w[inside], 67))


def _brief(one: Finding) -> str:
    if not one.facts:
        return _text(f"lacks {' and '.join(one.choice.missing)}" if one.choice.missing else (one.errors or [""])[0])
    return f"{one.facts['units']}, known in {one.facts['coverage']:.0%}"


def _class(one: Finding) -> str:
    return {"good": "good", "error": "error"}.get(one.state, "warning")


def _sentences(sentences: list[str], kind: str) -> list[str]:
    return [f'<p class="{kind}">{_text(sentence)}</p>' for sentence in sentences]


def _table(rows: list[tuple[str, str]]) -> str:
    return "<table>" + "".join(f"<tr><th>{_text(a)}<td>{_text(b)}" for a, b in rows) + "</table>"


def _text(what: Any) -> str:
    return html.escape(str(what))
