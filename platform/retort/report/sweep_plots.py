"""The plots of a sweep: means with intervals along an axis, a heat map, parallel coordinates, shares, dev losses.

Drawn as in `plots`. Axes hold plain coordinates: who asks for a plot takes logarithms, and words the ticks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from retort.report.formatting import label, percent
from retort.report.plots import COLOURS, ROW, WIDTH, bare, canvas, style, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RAIL = 72
"""Height of one parameter in parallel coordinates: its name, its line and its ticks, and lines on their way."""
ABOVE_AND_BELOW = (-0.3, 0.27)
"""The part of that which the texts take, above and below the line."""
CELL = 38
"""Height of a row of a heat map: two lines of text."""
TEXT = 6.2
"""Width of a character of 11 units, about: enough to see which texts would meet."""


@dataclass(frozen=True)
class Series:
    """Means of one colour, each (x, mean, low, high), joined by a line, and single trials (x, accuracy) around them."""

    colour: str
    means: Sequence[tuple[float, float, float, float]]
    trials: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Scale:
    """An axis: its name, and its ticks, each (place, text)."""

    name: str
    ticks: Sequence[tuple[float, str]]


@dataclass(frozen=True)
class Line:
    """A trial across plots: its points, None where it has no place; the strong ones lie above the others."""

    points: Sequence[tuple[float, float] | None]
    colour: str
    is_strong: bool = False
    is_cut: bool = False


def means(name: str, summary: str, scale: Scale, lines: Sequence[Series], limits: tuple[float, float]) -> str:
    """Accuracy along a parameter. Lines stand a little beside each other, so that no interval hides another."""
    with style(name):
        figure, axes = canvas(250)
        places = [x for x, _ in scale.ticks] + [x for line in lines for x, _ in line.trials]
        reach = max(places) - min(places) or 1.0
        for number, line in enumerate(lines):
            aside = (number - (len(lines) - 1) / 2) * 0.018 * reach
            look: dict[str, Any] = {"color": COLOURS[line.colour], "clip_on": False}
            xs = [x + aside for x, *_ in line.means]
            axes.plot(
                [x + aside + 0.012 * reach for x, _ in line.trials],
                [y for _, y in line.trials],
                "o",
                markersize=3,
                markeredgewidth=0,
                alpha=0.45,
                **look,
            )
            axes.plot(xs, [mean for _, mean, _, _ in line.means], "o-", linewidth=1.4, markersize=6, **look)
            for x, (_, _, low, high) in zip(xs, line.means, strict=True):
                axes.plot([x, x], [low, high], linewidth=2, solid_capstyle="round", **look)
        axes.set_xlim(min(places) - 0.07 * reach, max(places) + 0.07 * reach)
        axes.set_ylim(*limits)
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
        _ticks(axes, scale, WIDTH - 60)
        axes.set_xlabel(label(scale.name))
        axes.grid(axis="y")
        axes.tick_params(length=3)
        return svg(figure, name, summary)


def heat(
    name: str,
    summary: str,
    across: Scale,
    down: Scale,
    cells: Mapping[tuple[int, int], tuple[float, int]],
) -> str:
    """Mean and count by column and row: the higher the mean, the fuller the colour. Empty cells stay empty."""
    with style(name):
        figure, axes = canvas(len(down.ticks) * CELL + 56)
        values = [value for value, _ in cells.values()]
        reach = max(values) - min(values) or 1.0
        for (x, y), (value, trials) in cells.items():
            # Text must stay readable on the fullest.
            depth = 0.06 + 0.5 * (value - min(values)) / reach
            axes.barh(y, 0.96, 0.94, x - 0.48, color=COLOURS["blue"], alpha=depth, linewidth=0)
            axes.text(x, y - 0.02, percent(value), va="bottom", ha="center")
            axes.text(x, y + 0.08, f"n = {trials}", va="top", ha="center", fontsize=9)
        axes.set_xlim(-0.5, len(across.ticks) - 0.5)
        axes.set_ylim(len(down.ticks) - 0.5, -0.5)
        most = max(5, int((WIDTH - 110) / TEXT / len(across.ticks)))
        axes.set_xticks(range(len(across.ticks)), [label(text, most) for _, text in across.ticks])
        axes.set_yticks(range(len(down.ticks)), [label(text, 16) for _, text in down.ticks])
        axes.set_xlabel(label(across.name))
        axes.set_ylabel(label(down.name, 20))
        bare(axes)
        axes.spines["bottom"].set_visible(False)
        return svg(figure, name, summary)


def parallel(name: str, summary: str, scales: Sequence[Scale], lines: Sequence[Line]) -> str:
    """Every trial as a line down the parameters, each a rail from 0 to 1 with its name above and its ticks below."""
    with style(name):
        figure, axes = canvas((len(scales) - 0.3) * RAIL)
        for order, line in enumerate(lines):
            # Upright where names and ticks stand, so that what is slanted crosses no text.
            xs = [float("nan") if point is None else point[0] for point in line.points for _ in ABOVE_AND_BELOW]
            ys = [y + aside for y in range(len(line.points)) for aside in ABOVE_AND_BELOW]
            dashes = (0, (2, 2)) if line.is_cut else "solid"
            axes.plot(
                xs[1:-1], [0, *ys[2:-2], len(scales) - 1], zorder=2 + order / 1e4, linestyle=dashes, **_look(line)
            )
        for y, scale in enumerate(scales):
            axes.plot([0, 1], [y, y], color=COLOURS["grey"], linewidth=1, zorder=1)
            box = {"facecolor": COLOURS["paper"], "edgecolor": "none", "alpha": 0.85, "pad": 0.8}
            look: dict[str, Any] = {"zorder": 4, "bbox": box}
            axes.text(-0.05, y - 0.07, label(scale.name), va="bottom", ha="left", weight="bold", **look)
            most = max(4, int((WIDTH - 30) / (0.9 * TEXT) / max(1, len(scale.ticks))) - 1)
            for x, text in _apart(scale.ticks, 1.1, WIDTH - 20, most):
                axes.plot([x], [y], "|", color=COLOURS["stone"], markersize=6, zorder=3)
                axes.text(x, y + 0.07, text, va="top", ha="center", fontsize=10, **look)
        axes.set_xlim(-0.06, 1.06)
        axes.set_ylim(len(scales) - 0.68, -0.36)
        axes.set_yticks([])
        axes.set_xticks([])
        bare(axes)
        axes.spines["bottom"].set_visible(False)
        return svg(figure, name, summary)


def shares(name: str, summary: str, parts: Mapping[str, float]) -> str:
    """Shares of a whole as bars."""
    with style(name):
        figure, axes = canvas(len(parts) * ROW + 14)
        for y, value in enumerate(parts.values()):
            axes.barh(y, value, 0.62, color=COLOURS["blue"])
            axes.text(value + 0.012 * max(parts.values()), y, percent(value), va="center")
        axes.set_yticks(range(len(parts)), [label(part, 24) for part in parts])
        axes.set_ylim(len(parts) - 0.5, -0.5)
        # Room for the words at the end of the longest bar.
        axes.set_xlim(0, max(parts.values()) * 1.2)
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)
        bare(axes)
        return svg(figure, name, summary)


def losses(name: str, summary: str, lines: Sequence[Line], is_log: bool) -> str:
    """Dev loss by step of every trial, those of the strong above; one that was cut ends in a cross."""
    with style(name):
        figure, axes = canvas(280)
        for order, line in enumerate(lines):
            points = [point for point in line.points if point is not None]
            xs, ys = [x for x, _ in points], [y for _, y in points]
            axes.plot(xs, ys, zorder=2 + order / 1e4, **_look(line))
            if len(points) == 1:  # no line is seen of one
                axes.plot(xs, ys, "o", color=COLOURS[line.colour], markersize=4, zorder=3)
            if line.is_cut:
                axes.plot(xs[-1:], ys[-1:], "x", color=COLOURS[line.colour], markersize=5, zorder=3)
        if is_log:
            axes.set_yscale("log")
            low, high = axes.get_ylim()
            steps = [factor * 10.0**power for power in range(-4, 4) for factor in (1, 2, 3, 5)]
            axes.set_yticks([step for step in steps if low <= step <= high], minor=False)
            axes.set_yticks([], minor=True)
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.grid(axis="y")
        axes.margins(x=0.03)
        axes.set_xlabel("step")
        axes.set_ylabel("dev loss, nats a token")
        axes.tick_params(length=3)
        return svg(figure, name, summary)


def _look(line: Line) -> dict[str, Any]:
    """Thin and faint, or strong."""
    strength = {"linewidth": 2.4, "alpha": 1.0} if line.is_strong else {"linewidth": 0.9, "alpha": 0.5}
    return {"color": COLOURS[line.colour], "solid_capstyle": "round", **strength}


def _ticks(axes: "Axes", scale: Scale, width: float) -> None:
    low, high = axes.get_xlim()
    kept = _apart(scale.ticks, high - low, width, 24)
    axes.set_xticks([x for x, _ in kept], [text for _, text in kept])


def _apart(ticks: Sequence[tuple[float, str]], reach: float, width: float, most: int) -> list[tuple[float, str]]:
    """Ticks whose texts do not meet, from the left, each cut to `most` characters."""
    kept: list[tuple[float, str]] = []
    for x, text in ticks:
        word = label(text, most)
        if kept:
            room = (x - kept[-1][0]) / reach * width
            if room < (len(word) + len(kept[-1][1])) / 2 * TEXT + 3:
                continue
        kept.append((x, word))
    return kept
