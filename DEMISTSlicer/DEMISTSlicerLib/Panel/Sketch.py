"""A sketch of what gap, proximal, distal and depth mean: a strip through white matter from a lesion to the cortex."""

from __future__ import annotations

from typing import Any

import qt

from ..I18n import _
from ..RegionColors import REGION_COLORS

#: Size in pixels; fits the narrowest panel that Slicer has.
WIDTH, HEIGHT = 328, 48
_STRIP = 26
_PAPER, _INK, _PLAIN = "#ffffff", "#202020", "#e4e4e4"
_WHITE_INK = "#ffffff"


class Sketch:
    """Shows the strip in a label, with the distances that are chosen.

    Args:
        label: a QLabel.
    """

    def __init__(self, label: Any) -> None:
        self._label = label
        self._drawn: tuple[float, ...] = ()

    def update(self, gap: float, proximal: float, distal: float, depth: float) -> None:
        """Draw it for these distances (mm), if they are others than those that it was drawn for."""
        told = (gap, proximal, distal, depth)
        if told != self._drawn:
            self._drawn = told
            self._label.setPixmap(_strip(*told))


def pieces(gap: float, proximal: float, distal: float, depth: float) -> list[tuple[str, int, str, str, str]]:
    """The strip from left to right: name, width in pixels, color, color of the name, distance at its right edge.

    Widths are not to scale; what has no extent (no gap, nothing between proximal and distal) is left out.
    """
    between = distal > proximal
    found = [
        (_("lesion"), 50, REGION_COLORS["lesion"], _INK, "0"),
        (_("gap"), 34, _PLAIN, _INK, f"{gap:g}"),
        (_("proximal"), 68, REGION_COLORS["nawm_proximal"], _INK, f"{proximal:g}"),
        ("", 38, _PLAIN, _INK, f"{distal:g} mm"),
        (_("distal"), 0, REGION_COLORS["nawm_distal"], _WHITE_INK, ""),
        (_("depth"), 42, _PLAIN, _INK, f"{depth:g} mm"),
        (_("cortex"), 48, REGION_COLORS["grey_matter"], _WHITE_INK, ""),
    ]
    left_out = {1: gap <= 0, 3: not between, 5: depth <= 0}
    if not between:  # distal begins where proximal ends, or before: what is told is where it begins
        found[2] = (*found[2][:4], f"{distal:g} mm")
    kept = [piece for index, piece in enumerate(found) if not left_out.get(index)]
    rest = WIDTH - sum(piece[1] for piece in kept)
    return [(name, width or rest, *others) for name, width, *others in kept]


def _strip(*distances: float) -> Any:
    """The picture as a QPixmap, at twice the resolution for fine screens."""
    scale = 2
    pixmap = qt.QPixmap(scale * WIDTH, scale * HEIGHT)
    pixmap.fill(qt.QColor(_PAPER))
    painter = qt.QPainter(pixmap)
    painter.scale(scale, scale)
    font = painter.font()
    font.setPixelSize(11)
    painter.setFont(font)
    left, centered = 0, int(qt.Qt.AlignCenter)
    ends = pieces(*distances)
    for index, (name, width, color, ink, distance) in enumerate(ends):
        painter.fillRect(qt.QRectF(left, 0, width, _STRIP), qt.QColor(color))
        painter.setPen(qt.QColor(ink))
        painter.drawText(qt.QRectF(left, 0, width, _STRIP), centered, name)
        left += width
        painter.setPen(qt.QColor(_INK))
        if distance and index == len(ends) - 2:  # the depth is a width of its own, not a distance from the lesion
            painter.drawText(qt.QRectF(left - width - 10, _STRIP + 4, width + 20, 16), centered, distance)
        elif distance:
            painter.drawLine(qt.QPointF(left, _STRIP), qt.QPointF(left, _STRIP + 4))
            painter.drawText(qt.QRectF(left - 35, _STRIP + 4, 70, 16), centered, distance)
    painter.end()
    pixmap.setDevicePixelRatio(scale)
    return pixmap
