"""The report of a session: one HTML page beside its pictures, warnings first."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from .names import SessionPaths
from .session import Session

STYLE = """body{font:15px/1.45 system-ui,sans-serif;margin:2em auto;max-width:70em;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:.5em 0}td,th{padding:.15em .7em;text-align:left;border-bottom:1px solid #ddd;
vertical-align:top}td.n{text-align:right}.warning{color:#8a5a00}.error{color:#b00020}.good{color:#1b6e2c}
section{border-top:2px solid #ccc;margin-top:1.5em;overflow-x:auto}img{max-width:100%}
footer{margin-top:2em;color:#555}h1,p,.about td:last-child{overflow-wrap:anywhere}
@media(max-width:40em){body{margin:1em auto}td,th{padding:.15em .4em}}"""


def session_page(session: Session, places: SessionPaths, told: Mapping[str, Any], measured: Mapping[str, Any]) -> str:
    """The page's text. Every word that comes from a file or a name is shown as text, whatever is in it.

    Args:
        session: whose.
        places: of its files; pictures are linked where they lie.
        told: the map's sidecar.
        measured: the statistics; empty where none were made.
    """
    title = f"{session.shown or session.subject} {session.session}".strip()
    warnings = list(dict.fromkeys([*_list(told.get("warnings")), *_list(measured.get("notes"))]))
    parts = [head(f"PSR of {title}")]
    parts.append(f'<p class="warning"><b>{text(told.get("statement", "Research use only."))}</b></p>')
    parts += [f'<p class="warning">{text(sentence)}</p>' for sentence in warnings] or ["<p>No warnings.</p>"]
    summary, bundle = _map(told.get("summary")), _map(told.get("bundle"))
    rows = [
        ("Brain volume", f"{summary.get('brain_volume_ml', '-')} mL"),
        ("Median PSR", summary.get("psr_median", "-")),
        ("PSR, 5 to 95 %", _span(summary.get("psr_5_to_95_percentile"))),
        ("Model", f"{bundle.get('name')} {str(bundle.get('hash'))[:12]}"),
    ]
    rows += [(what, _map(entry).get("file") or "-") for what, entry in _map(told.get("inputs")).items()]
    parts.append(table((), rows, "about"))
    pictures = {
        "Does the FLAIR lie on the T1w?": "desc-registration_T1w",
        "The map": "desc-preview_PSRmap",
        "Regions": "desc-overlay_regions",
        "PSR by region": "desc-boxes_regions",
        "Lesions against NAWM": "desc-roc_regions",
    }
    for path in sorted(places.figures.glob(f"{places.session.name}_space-*_desc-registration_T1w.png")):
        space = path.name.split("_space-")[1].split("_")[0]
        pictures[f"Does the brain lie on {space}?"] = f"space-{space}_desc-registration_T1w"
    for heading, name in pictures.items():
        path = places.figure(name)
        parts.append(f"<section><h2>{heading}</h2>")
        if path.is_file():
            source = link(path.relative_to(places.page.parent).as_posix())
            parts.append(f'<a href="{source}"><img alt="{heading}" src="{source}"></a>')  # a phone shows it small
        elif heading == "Lesions against NAWM":
            parts.append(f"<p>{text(_map(measured.get('roc')).get('declined') or 'Not made.')}</p>")
        else:
            parts.append("<p>Not made.</p>")
        if heading == "PSR by region":
            parts.append(_regions(_list(measured.get("regions"))))
        parts.append("</section>")
    steps = _map(told.get("preparation"))
    if steps:
        parts += ["<section><h2>Preparation</h2>", table((), steps.items(), "about"), "</section>"]
    parts.append(f"<footer>{text(measured.get('uncertainty', ''))}</footer></html>")
    return "\n".join(parts) + "\n"


def _regions(rows: Sequence[Any]) -> str:
    """Regions as a table; single lesions stay in the TSV."""
    shown = []
    for row in (row for row in rows if isinstance(row, Mapping) and row.get("lesion") is None):
        ends = (row.get("mean_ci90_low"), row.get("mean_ci90_high"))
        span = "-" if None in ends else f"{number(ends[0])} to {number(ends[1])}"
        shown.append(
            (
                row.get("name"),
                number(row.get("volume_ml"), 2),
                number(row.get("mean")),
                span,
                number(row.get("sd")),
                number(row.get("median")),
            )
        )
    header = ("Region", "mL", "Mean PSR", "90 % interval of the mean", "SD", "Median")
    return table(header, shown) if shown else ""


def head(title: str) -> str:
    """The beginning of a page; nothing is fetched, and no script can run."""
    policy = "default-src 'none'; img-src 'self' data: file:; style-src 'unsafe-inline'"
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{text(title)}</title><style>{STYLE}</style><h1>{text(title)}</h1>"
    )


def table(header: Sequence[str], rows: Iterable[Sequence[Any]], kind: str = "") -> str:
    """An HTML table of texts; ``kind`` is its class in :data:`STYLE`."""
    top = f"<tr>{''.join(f'<th>{text(cell)}' for cell in header)}" if header else ""
    begin = f'<table class="{kind}">' if kind else "<table>"
    return f"{begin}{top}{''.join('<tr>' + ''.join(f'<td>{text(c)}' for c in row) for row in rows)}</table>"


def text(what: Any) -> str:
    """Any text as HTML that shows it."""
    return html.escape("" if what is None else str(what))


def link(path: str) -> str:
    """A relative path as an address."""
    return html.escape(quote(path, errors="surrogateescape"))


def number(value: Any, digits: int = 4) -> str:
    """A number for people; "-" for none."""
    return f"{value:.{digits}f}" if isinstance(value, (int, float)) and value == value else "-"


def _span(ends: Any) -> str:
    return f"{ends[0]} to {ends[1]}" if isinstance(ends, list) and len(ends) == 2 else "-"


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else []
