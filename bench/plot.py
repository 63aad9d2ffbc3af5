"""Pictures for the docs: small SVG without a script or a font of its own, readable on light and on dark pages."""

from collections.abc import Sequence
from html import escape
from typing import Final, NamedTuple

_WIDTH: Final = 760
_LABEL: Final = 230  # room for names on the left
_VALUE: Final = 150  # room for numbers on the right
_ROW: Final = 34
_INK, _PALE, _MARK, _GRID = "#6b7280", "#d1d5db", "#2563eb", "#9ca3af"


class Bar(NamedTuple):
    """A rate, drawn over the paler bar of the most it could be."""

    name: str
    value: float
    ceiling: float
    said: str  # what stands to the right of it


class Line(NamedTuple):
    """A panel: one quantity over the minutes, from nought."""

    name: str
    points: Sequence[tuple[float, float]]
    unit: str


def bars(title: str, rows: Sequence[Bar]) -> str:
    """Each row has a scale of its own: its ceiling is as long as every other's."""
    room = _WIDTH - _LABEL - _VALUE
    body = [_text(0, 16, title, weight="600")]
    for nth, row in enumerate(rows):
        top = 30 + nth * _ROW
        longest = max(row.ceiling, row.value) or 1
        body.append(_text(_LABEL - 10, top + 16, row.name, anchor="end"))
        body.append(_rect(_LABEL, top + 4, room * row.ceiling / longest, 16, _PALE))
        body.append(_rect(_LABEL, top + 7, room * row.value / longest, 10, _MARK))
        body.append(_text(_LABEL + room + 10, top + 16, row.said))
    return _svg(30 + len(rows) * _ROW + 4, body)


def lines(title: str, panels: Sequence[Line]) -> str:
    """One below the other, over the same minutes."""
    height, room = 120, _WIDTH - 90
    last = max((x for panel in panels for x, _ in panel.points), default=0.0) or 1.0
    body = [_text(0, 16, title, weight="600")]
    for nth, panel in enumerate(panels):
        top = 40 + nth * (height + 50)
        highest = max((y for _, y in panel.points), default=0.0) or 1.0
        body.append(_text(0, top - 4, panel.name))
        for share in (0.0, 0.5, 1.0):
            y = top + 10 + (height - 10) * (1 - share)
            body.append(f'<path d="M80 {y:.1f}H{80 + room}" stroke="{_GRID}" stroke-width="0.5"/>')
            body.append(_text(74, y + 4, f"{highest * share:,.4g} {panel.unit}", anchor="end", size=11))
        at = (
            f"{80 + room * x / last:.1f},{top + 10 + (height - 10) * (1 - y / highest):.1f}"
            for x, y in panel.points
        )
        body.append(f'<polyline points="{" ".join(at)}" fill="none" stroke="{_MARK}" stroke-width="1.5"/>')
        body.append(_text(80 + room, top + height + 16, f"{last:.4g} min", anchor="end", size=11))
    return _svg(40 + len(panels) * (height + 50), body)


def _svg(height: int, body: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" '
        f'height="{height}" font-family="system-ui, sans-serif" font-size="13" fill="{_INK}">'
    )
    return "\n".join([head, *(f"  {each}" for each in body), "</svg>", ""])


def _rect(x: float, y: float, width: float, height: float, fill: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="2" fill="{fill}"/>'


def _text(
    x: float, y: float, said: str, *, anchor: str = "start", weight: str = "400", size: int = 13
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" font-size="{size}">'
        f"{escape(said)}</text>"
    )
