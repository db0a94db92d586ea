"""Small plots as SVG, drawn on the server; colours are the style sheet's."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Final

from shadow.markup import Markup, tag

__all__ = ["plot"]

WIDTH: Final = 320
HEIGHT: Final = 96
_BOTTOM: Final = HEIGHT - 14
_TOP: Final = 18


def plot(name: str, points: Sequence[tuple[float, float]]) -> Markup:
    """(epoch seconds, rate) as a line over its area, labelled with the current and the highest rate."""
    if len(points) < 2:
        return tag("figure", tag("figcaption", f"{name}: not enough samples yet"), class_="plot quiet")
    rates = [rate for _, rate in points]
    most = max(rates)
    label = f"{name}: {_figure(rates[-1])}/s now, at most {_figure(most)}/s"
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in _places(points, most))
    begin, end = (dt.datetime.fromtimestamp(points[i][0], dt.UTC).strftime("%H:%M") for i in (0, -1))
    svg = tag(
        "svg",
        tag("title", label),
        tag("line", x1=0, y1=_BOTTOM, x2=WIDTH, y2=_BOTTOM, class_="axis"),
        tag("polygon", points=f"0,{_BOTTOM} {line} {WIDTH},{_BOTTOM}", class_="area"),
        tag("polyline", points=line, class_="line"),
        tag("text", begin, x=0, y=HEIGHT - 2),
        tag("text", end, x=WIDTH, y=HEIGHT - 2, text_anchor="end"),
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=label,
    )
    return tag("figure", tag("figcaption", label), svg, class_=f"plot {name}")


def _places(points: Sequence[tuple[float, float]], most: float) -> list[tuple[float, float]]:
    begin, end = points[0][0], points[-1][0]
    return [
        (
            (at - begin) / ((end - begin) or 1.0) * WIDTH,
            _BOTTOM - (rate / most if most else 0.0) * (_BOTTOM - _TOP),
        )
        for at, rate in points
    ]


def _figure(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 10 else f"{rate:.2g}"
