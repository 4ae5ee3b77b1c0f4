"""Plots as inline SVG: drawn by matplotlib, coloured by the page's style sheet, equal bytes for equal numbers.

Every colour is one of `COLOURS`; the SVG names a CSS variable in its place, so that light and dark are the page's
business. Texts stay texts (`svg.fonttype = none`) and take the page's font.
"""

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from retort.report.formatting import duration, label, visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, which the colour-blind can tell apart, three of Paul Tol's, and greys. The values only mark
# the places.
COLOURS = {
    "ink": "#1a1a1b",
    "rule": "#c8c8c9",
    "paper": "#fefefd",
    "grey": "#8a8a8b",
    "stone": "#4a4a4b",
    "blue": "#0072b2",
    "orange": "#e69f00",
    "green": "#009e73",
    "red": "#d55e00",
    "purple": "#cc79a7",
    "sky": "#56b4e9",
    "indigo": "#332288",
    "sand": "#ddcc77",
    "wine": "#882255",
}
WIDTH = 430
"""Width in the units of the SVG. Fonts are 11 units: 9 pixels on a phone that shows it 358 wide, 13 on a desktop."""
ROW = 22
"""Height of one row of a bar plot."""
_STYLE: dict[Any, Any] = {
    "axes.edgecolor": COLOURS["rule"],
    "axes.labelcolor": COLOURS["ink"],
    "axes.labelsize": 11,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 11,
    "grid.color": COLOURS["rule"],
    "grid.linewidth": 0.6,
    "svg.fonttype": "none",
    "text.color": COLOURS["ink"],
    "text.parse_math": False,
    "xtick.color": COLOURS["rule"],
    "xtick.labelcolor": COLOURS["ink"],
    "ytick.color": COLOURS["rule"],
    "ytick.labelcolor": COLOURS["ink"],
    "ytick.major.pad": 7,
}


@dataclass(frozen=True)
class Interval:
    """A share with the interval that holds it, and perhaps the mean of several such shares, where the dot then stands.

    `text` stands beside it; a hollow dot is a bound that nothing reaches by itself.
    """

    name: str
    value: float
    low: float
    high: float
    colour: str
    text: str
    mean: float | None = None
    is_hollow: bool = False


@dataclass(frozen=True)
class Bar:
    """A bar of parts, which add up to its length, and what stands at its end."""

    name: str
    parts: Mapping[str, float]
    end: str


def intervals(name: str, summary: str, rows: Sequence[Interval]) -> str:
    """Shares as dots with their intervals, a row each, from 0 to 100%; a stroke for the share whose mean is the dot."""
    with style(name):
        figure, axes = canvas(len(rows) * ROW + 34)
        for y, row in enumerate(rows):
            look: dict[str, Any] = {"color": COLOURS[row.colour], "clip_on": False, "solid_capstyle": "round"}
            axes.plot([row.low, row.high], [y, y], linewidth=2.4, **look)
            if row.mean is not None:
                axes.plot([row.value], [y], "|", markersize=11, markeredgewidth=2, **look)
            filled = COLOURS["paper"] if row.is_hollow else COLOURS[row.colour]
            stands = row.value if row.mean is None else row.mean
            axes.plot([stands], [y], "o", markersize=7, markerfacecolor=filled, **look)
            _beside(axes, row, y)
        axes.set_yticks(range(len(rows)), [label(row.name) for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(0, 1)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100%"])
        axes.grid(axis="x")
        bare(axes)
        return svg(figure, name, summary)


def _beside(axes: "Axes", interval: Interval, y: int) -> None:
    """The value, on the side of the interval that has room, or above it where none has."""
    low, high = (bound([end, interval.mean or end]) for bound, end in ((min, interval.low), (max, interval.high)))
    room = 0.02 + 0.018 * len(interval.text)
    is_left = high > 1 - room
    if is_left and low < room:
        at = interval.value, y
        axes.annotate(interval.text, at, xytext=(0, 4), textcoords="offset points", ha="center", va="bottom")
        return
    axes.text(low - 0.02 if is_left else high + 0.02, y, interval.text, va="center", ha="right" if is_left else "left")


def stacked(name: str, summary: str, bars: Sequence[Bar], colours: Mapping[str, str]) -> str:
    """Bars of equal length, each cut into the shares of its parts, in the order of `colours`."""
    with style(name):
        figure, axes = canvas(len(bars) * ROW + 30)
        for y, bar in enumerate(bars):
            whole, left = sum(bar.parts.values()), 0.0
            for part, colour in colours.items():
                width = bar.parts.get(part, 0) / whole if whole else 0.0
                if width:
                    axes.barh(y, width, 0.62, left, color=COLOURS[colour], edgecolor=COLOURS["paper"], linewidth=1)
                    left += width
            axes.text(1.015, y, bar.end, va="center")
        axes.set_yticks(range(len(bars)), [label(bar.name) for bar in bars])
        axes.set_ylim(len(bars) - 0.5, -0.5)
        axes.set_xlim(0, 1)
        axes.set_xticks([0, 0.5, 1], ["0", "50", "100%"])
        bare(axes)
        return svg(figure, name, summary)


def durations(name: str, summary: str, seconds: Mapping[str, float]) -> str:
    """A bar for each duration."""
    with style(name):
        figure, axes = canvas(len(seconds) * ROW + 12)
        most = max(*seconds.values(), 1e-9)
        for y, value in enumerate(seconds.values()):
            axes.barh(y, value, 0.62, color=COLOURS["blue"])
            axes.text(value + most * 0.015, y, duration(value), va="center")
        axes.set_yticks(range(len(seconds)), [label(key) for key in seconds])
        axes.set_ylim(len(seconds) - 0.5, -0.5)
        # Room for the words at the end of the longest bar.
        axes.set_xlim(0, most * 1.25)
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)
        bare(axes)
        return svg(figure, name, summary)


def style(name: str) -> Any:
    """The look of every plot, as a context; its name decides the ids within."""
    import matplotlib

    # The salt decides the ids of clip paths and markers, which are random otherwise.
    return matplotlib.rc_context({**_STYLE, "svg.hashsalt": name})


def canvas(height: float) -> "tuple[Figure, Axes]":
    """A figure of the common width, in units of the SVG, and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72, layout="constrained")
    figure.patch.set_visible(False)
    axes = figure.add_subplot()
    axes.patch.set_visible(False)
    axes.set_axisbelow(True)
    return figure, axes


def bare(axes: "Axes") -> None:
    """Rows need no axis at their left."""
    axes.spines["left"].set_visible(False)
    axes.tick_params(length=0)


def svg(figure: "Figure", name: str, summary: str) -> str:
    """The figure as an SVG element that lives among others in one page: ids of its own, colours by name, a label."""
    sink = io.StringIO()
    with warnings.catch_warnings():
        # The browser draws the texts; matplotlib only measures them, and its own font lacks most scripts.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(sink, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    drawn = sink.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    for noise in (r"<metadata>.*?</metadata>", r"<style.*?</style>", r"<!--.*?-->", r"^<svg[^>]*>"):
        drawn = re.sub(noise, "", drawn, flags=re.DOTALL)
    drawn = re.sub(r"<[^>]*>", lambda tag: _tag(tag[0], name), drawn)
    width, height = (72 * inches for inches in figure.get_size_inches())
    named = f'role="img" aria-label="{escape(visible(summary))}"'
    return f'<svg class="plot" viewBox="0 0 {width:g} {height:g}" {named}>{drawn.strip()}\n'


def _tag(tag: str, name: str) -> str:
    """One tag with ids of the plot's own, variables for colours, and the page's font."""
    tag = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{name}-", tag)
    tag = re.sub(r"font-family: [^;]*; ", "", tag)
    for colour, value in COLOURS.items():
        tag = tag.replace(value, "currentColor" if colour == "ink" else f"var(--{colour})")
    return tag
