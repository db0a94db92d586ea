"""Rates by hour as SVG; colours are the style sheet's."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Final

from shadow.markup import Markup, tag
from shadow.model.compared import Compared

__all__ = ["comparisons", "mismatches"]

_WIDTH: Final = 640
_HEIGHT: Final = 150
_FLOOR: Final = _HEIGHT - 18
_ROOF: Final = 18
_HOUR: Final = 3600


def comparisons(hours: Mapping[int, Compared], first: int, last: int) -> Markup:
    """How many were compared in each hour from `first` to `last` (hours since the epoch)."""
    values = {hour: float(each.decided) for hour, each in hours.items()}
    most = max(values.values(), default=0.0)
    return _figure(f"Comparisons an hour, at most {most:,.0f}", {"bar": values}, first, last, most)


def mismatches(hours: Mapping[int, Compared], first: int, last: int) -> Markup:
    """The share of comparisons that differed, against the share of the primary's comparisons with itself."""
    rates = {hour: each.differing / each.decided for hour, each in hours.items() if each.decided}
    noise = {hour: each.noisy / each.measured for hour, each in hours.items() if each.measured}
    most = max((*rates.values(), *noise.values()), default=0.0)
    title = f"Mismatches (red) and noise (blue), share of comparisons an hour, at most {most:.3%}"
    return _figure(title, {"noise": noise, "beyond": rates}, first, last, most)


def _figure(title: str, series: Mapping[str, Mapping[int, float]], first: int, last: int, most: float) -> Markup:
    step = _WIDTH / max(1, last - first + 1)
    share = step / len(series)
    drawn = [tag("line", x1=0, y1=_FLOOR, x2=_WIDTH, y2=_FLOOR, class_="axis")]
    for place, (kind, values) in enumerate(series.items()):
        for hour, value in values.items():
            if first <= hour <= last and value:
                height = max(2.0, value / most * (_FLOOR - _ROOF))
                box = {"x": f"{(hour - first) * step + place * share:.1f}", "y": f"{_FLOOR - height:.1f}"}
                drawn.append(
                    tag(
                        "rect",
                        tag("title", f"{_moment(hour)}: {value:,.6g}"),
                        **box,
                        width=f"{max(0.8, share):.1f}",
                        height=f"{height:.1f}",
                        class_=kind,
                    )
                )
    drawn.append(tag("text", _moment(first), x=0, y=_HEIGHT - 4))
    drawn.append(tag("text", _moment(last), x=_WIDTH, y=_HEIGHT - 4, text_anchor="end"))
    svg = tag("svg", tag("title", title), *drawn, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img", aria_label=title)
    return tag("figure", tag("figcaption", title), svg)


def _moment(hour: int) -> str:
    return dt.datetime.fromtimestamp(hour * _HOUR, dt.UTC).strftime("%Y-%m-%d %H:00")
