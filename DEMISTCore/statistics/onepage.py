"""One page for the file: pictures, table, ROC curves and where the map came from, in an HTML file that stands alone."""

from __future__ import annotations

import base64
import os
import tempfile
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from ..files import atomic_path
from ..preview import save_figure
from ..volume import Volume
from . import figures
from .report import Analysis

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLE = """
body { font: 14px/1.45 sans-serif; color: #1a1a1a; max-width: 62em; margin: 1.5em auto; padding: 0 1em }
h1 { font-size: 1.35em; margin: 0 0 .2em } h2 { font-size: 1.05em; margin: 1.3em 0 .3em }
.note { background: #fff6d6; border-left: 4px solid #e0a800; padding: .4em .7em; margin: .6em 0 }
table { border-collapse: collapse } td, th { padding: .15em .7em; text-align: right; border-bottom: 1px solid #ddd }
td:first-child, th:first-child { text-align: left } tr.lesion td { color: #555; font-size: .92em }
img { max-width: 100% } .pair img { width: 49% }
dl { display: grid; grid-template-columns: max-content auto; gap: .1em 1em }
dt { color: #555 } dd { margin: 0; overflow-wrap: anywhere } footer { color: #555; font-size: .9em; margin-top: 1.5em }
@media print { body { margin: 0; font-size: 11px } h2 { break-after: avoid } img { break-inside: avoid } }
"""


def write_page(
    analysis: Analysis,
    path: str | os.PathLike[str],
    *,
    backdrop: tuple[str, Volume] | None = None,
    percent: bool = False,
    title: str = "",
) -> Path:
    """Write the page; nothing in it is fetched from anywhere.

    Args:
        analysis: what was measured.
        path: ``.html`` file; replaced if it is there.
        backdrop: name and image under the outlines of the lesions, see :func:`.figures.overlay_figure`.
        percent: write PSR in percent instead of as a fraction.
        title: what the map is called.

    Raises:
        InputError: the name does not end in ``.html``, or the file cannot be written.
    """
    target = Path(path)
    if target.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"The report is a page: give {target.name} the ending .html.")
    name = title or (Path(analysis.psr.path).name if analysis.psr.path else "PSR map")
    text = _page(analysis, backdrop, percent, name)
    with atomic_path(target) as temporary:
        Path(temporary).write_text(text, encoding="utf-8")
    return target


def _page(analysis: Analysis, backdrop: tuple[str, Volume] | None, percent: bool, title: str) -> str:
    lesions = analysis.regions.lesions
    suggested = lesions is not None and lesions.suggested
    overlay = figures.overlay_figure(analysis.psr, analysis.regions, backdrop=backdrop, title=title)
    charts = []
    if any(contrast.voxel or contrast.lesion for contrast in analysis.contrasts):
        charts.append(_image(figures.roc_figure(analysis.contrasts, suggested=suggested), "ROC curves"))
    if any(row["lesion"] is None and np.isfinite(row["median"]) for row in analysis.table):
        charts.append(_image(figures.box_figure(analysis.table), "box plots of PSR by region"))
    remarks = [*([lesions.note] if suggested else []), *([analysis.roc_declined] if analysis.roc_declined else [])]
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>",
            f"<h1>PSR report: {escape(title)}</h1>",
            *(f'<p class="note">{escape(sentence)}</p>' for sentence in (analysis.statement, *remarks)),
            *(f'<p class="note">Warning: {escape(sentence)}</p>' for sentence in analysis.warnings),
            _image(overlay, "axial slices of the map"),
            "<h2>Regions</h2>",
            _table(analysis.table, percent),
            "<h2>Lesions against normal-appearing white matter</h2>" if charts else "",
            f'<div class="pair">{"".join(charts)}</div>' if charts else "",
            "<h2>Notes</h2><ul>" + "".join(f"<li>{escape(note)}</li>" for note in analysis.remarks) + "</ul>",
            "<h2>Where it came from</h2>",
            _facts(_provenance(analysis)),
            f"<footer>{escape(analysis.statement)}</footer></body></html>\n",
        ]
    )


def _table(rows: Iterable[Mapping[str, Any]], percent: bool) -> str:
    unit = "%" if percent else "fraction"
    rows = list(rows)
    intervals = any(_known(row["mean_ci90_low"]) for row in rows)
    heads = ["region", "volume (mL)", f"mean ({unit})", *(["90 % interval"] if intervals else []), "SD", "median"]
    lines = ["<table><thead><tr>" + "".join(f"<th>{head}</th>" for head in heads) + "</tr></thead><tbody>"]
    for row in rows:
        ends = (_psr(row["mean_ci90_low"], percent), _psr(row["mean_ci90_high"], percent))
        cells = [
            escape(str(row["name"])),
            f"{row['volume_ml']:.3g}",
            _psr(row["mean"], percent),
            *([" to ".join(ends) if all(ends) else ""] if intervals else []),
            _psr(row["sd"], percent),
            _psr(row["median"], percent),
        ]
        kind = ' class="lesion"' if row["lesion"] is not None else ""
        lines.append(f"<tr{kind}>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return "\n".join([*lines, "</tbody></table>"])


def _provenance(analysis: Analysis) -> dict[str, str]:
    told = analysis.summary()
    facts = {
        "software": "{name} {version}".format(**told["software"]),
        "lesions": "none given",
        "intervals": told["uncertainty"],
    }
    if told["lesions"] is not None:
        facts["lesions"] = told["lesions"]["note"] or "drawn or checked by a person"
    for key, value in (analysis.origin or {}).items():
        facts[f"map: {key}"] = value if isinstance(value, str) else repr(value)
    for key, value in analysis.inputs.items():
        words = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, Mapping) else str(value)
        facts[f"input: {key}"] = words
    facts["regions"] = ", ".join(f"{key} {value}" for key, value in told["settings"]["regions"].items())
    return facts


def _facts(facts: Mapping[str, str]) -> str:
    return "<dl>" + "".join(f"<dt>{escape(k)}</dt><dd>{escape(str(v))}</dd>" for k, v in facts.items()) + "</dl>"


def _image(figure: Figure, words: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        drawn = save_figure(figure, Path(folder) / "figure.png", dpi=110)
        coded = base64.b64encode(drawn.read_bytes()).decode("ascii")
    return f'<img alt="{escape(words)}" src="data:image/png;base64,{coded}">'


def _known(value: Any) -> bool:
    return value is not None and np.isfinite(value)


def _psr(value: Any, percent: bool) -> str:
    if not _known(value):
        return ""
    return f"{100 * value:.1f}" if percent else f"{value:.3f}"
