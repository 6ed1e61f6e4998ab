"""The one picture of the README: latency against load, ours and the others'."""

import json
from statistics import median
from typing import Any, Final

import pygal
from pygal.style import CleanStyle

TITLE: Final = "Append to client, p99 in ms (log scale), by streams of 50 tokens/s"


def draw_chart(measured: str) -> bytes:
    """Return an SVG of what `latency.json` says. A line ends where an arm lost its readers."""
    series: list[dict[str, Any]] = json.loads(measured)["series"]
    loads = sorted({one["logs"] for one in series})
    chart = pygal.Line(
        title=TITLE,
        logarithmic=True,
        style=CleanStyle,
        js=(),
        disable_xml_declaration=True,
        legend_at_bottom=True,
        legend_at_bottom_columns=1,
        truncate_legend=-1,
        width=820,
        height=460,
    )
    chart.y_labels = [step * 10**power for power in range(4) for step in (1, 2, 5)]
    chart.x_labels = [f"{load:,}" for load in loads]
    for arm in dict.fromkeys(one["arm"] for one in series):
        by_load = {one["logs"]: _p99_ms(one) for one in series if one["arm"] == arm}
        chart.add(arm.replace("*", "").replace("`", ""), [by_load.get(load) for load in loads])
    return str(chart.render()).encode()


def _p99_ms(series: dict[str, Any]) -> float | None:
    """The median of its runs that say something."""
    turns = [turn for turn in series["turns"] if turn["worthless"] is None]
    figures = [turn["seen"]["latency_us"]["p99"] / 1000 for turn in turns]
    return round(median(figures), 2) if figures else None
