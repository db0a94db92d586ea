"""SVG plots. Colours come from the style sheet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from shadow.markup import Markup, tag

__all__ = ["bars", "columns"]

_WIDTH: Final = 320
_HEIGHT: Final = 150
_FLOOR: Final = _HEIGHT - 30
_ROOF: Final = 16
_ROW: Final = 26


def columns(title: str, values: Sequence[tuple[str, int, bool]]) -> Markup:
    """(label, count, beyond the limit) from left to right; a count above zero is always visible."""
    most = max((count for _, count, _ in values), default=0) or 1
    step = _WIDTH / max(1, len(values))
    drawn: list[Markup] = []
    for place, (label, count, is_beyond) in enumerate(values):
        height = max(2.0, count / most * (_FLOOR - _ROOF)) if count else 0.0
        middle = place * step + step / 2
        if count:
            box = {"x": f"{place * step + 2:.1f}", "y": f"{_FLOOR - height:.1f}", "width": f"{step - 4:.1f}"}
            drawn.append(tag("rect", **box, height=f"{height:.1f}", class_="beyond" if is_beyond else "bar"))
            drawn.append(
                tag("text", _short(count), x=f"{middle:.1f}", y=f"{_FLOOR - height - 3:.1f}", text_anchor="middle")
            )
        drawn.append(tag("text", label, x=f"{middle:.1f}", y=_FLOOR + 12, text_anchor="middle"))
    limit = f"{(len(values) - 1) * step:.1f}"
    drawn += [
        tag("line", x1=0, y1=_FLOOR, x2=_WIDTH, y2=_FLOOR, class_="axis"),
        tag("line", x1=limit, y1=4, x2=limit, y2=_FLOOR, class_="limit"),
        tag("text", "upper bound in KB; the line is the limit of an item", x=0, y=_HEIGHT - 4),
    ]
    told = ", ".join(f"{count} up to {label} KB" for label, count, _ in values if count)
    return _figure(title, told, drawn, _HEIGHT)


def bars(title: str, values: Sequence[tuple[str, float, str]], most: float | None = None) -> Markup:
    """(label, value, the value as text) from top to bottom; `most`: the value of the whole width."""
    widest = most or max((value for _, value, _ in values), default=0.0) or 1.0
    drawn: list[Markup] = []
    for place, (label, value, said) in enumerate(values):
        top = place * _ROW
        width = max(1.0, value / widest * _WIDTH) if value else 0.0
        drawn += [
            tag("text", label, x=0, y=top + 11),
            tag("text", said, x=_WIDTH, y=top + 11, text_anchor="end"),
            tag("rect", x=0, y=top + 15, width=_WIDTH, height=6, class_="track"),
            tag("rect", x=0, y=top + 15, width=f"{width:.1f}", height=6, class_="bar"),
        ]
    return _figure(title, ", ".join(f"{label} {said}" for label, _, said in values), drawn, max(1, len(values)) * _ROW)


def _figure(title: str, told: str, drawn: Sequence[Markup], height: int) -> Markup:
    svg = tag(
        "svg", tag("title", f"{title}: {told}"), *drawn, viewBox=f"0 0 {_WIDTH} {height}", role="img", aria_label=title
    )
    return tag("figure", tag("figcaption", title), svg)


def _short(count: int) -> str:
    return (
        f"{count / 1_000_000:.1f}M" if count >= 1_000_000 else f"{count / 1000:.0f}k" if count >= 10_000 else str(count)
    )
