"""The plot of how a student learned: losses, dev accuracy and speed by step, one above the other on one axis.

Drawn as in `plots`. Where training went on after it had died, a line goes through all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from retort.report.plots import COLOURS, WIDTH, style, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Point = tuple[float, float]
HEIGHTS = {"loss, nats a token": 200, "dev accuracy": 95, "tokens/s": 80}
"""Panels by their labels, and how high each is, in units of the SVG."""
BELOW = 36
"""Height of the ticks and the label of the common axis."""


@dataclass(frozen=True)
class Curve:
    """One training, as points by step. `kept` is the step of the measurement whose weights were kept."""

    losses: Sequence[Point]
    dev_losses: Sequence[Point]
    dev_accuracies: Sequence[Point]
    speeds: Sequence[Point]
    kept: int | None
    went_on_from: Sequence[int]


def curve(name: str, summary: str, runs: Sequence[Curve]) -> str:
    """Trainings that differ by their seed alone. The first stands out; the others lie behind it."""
    has_accuracy = any(run.dev_accuracies for run in runs)
    with style(name):
        figure, panels = _panels([label for label in HEIGHTS if has_accuracy or label != "dev accuracy"])
        # Without accuracies there is no panel for them, and nothing to draw there.
        losses, measured, speeds = panels[0], panels[-2], panels[-1]
        for place, run in reversed(list(enumerate(runs))):
            look: dict[str, Any] = {} if place == 0 else {"alpha": 0.35, "zorder": 1}
            for panel in panels:
                for step in run.went_on_from:
                    panel.axvline(step, color=COLOURS["purple"], linewidth=1, **look)
            losses.plot(*_columns(run.losses), color=COLOURS["blue"], linewidth=1.2, **look)
            speeds.plot(*_columns(run.speeds), color=COLOURS["stone"], linewidth=1.2, **look)
            for panel, points in ((losses, run.dev_losses), (measured, run.dev_accuracies)):
                panel.plot(*_columns(points), "o-", color=COLOURS["red"], linewidth=1.4, markersize=4, **look)
                kept = _columns([point for point in points if point[0] == run.kept])
                panel.plot(*kept, "o", markersize=9, color=COLOURS["red"], fillstyle="none", **look)
        if runs[0].kept is not None:
            for panel in panels:
                panel.axvline(runs[0].kept, color=COLOURS["red"], linewidth=1, linestyle=(0, (3, 3)))
        speeds.set_ylim(bottom=0)
        return svg(figure, name, summary)


def _panels(labels: Sequence[str]) -> "tuple[Figure, list[Axes]]":
    """A figure of panels with a common axis of steps."""
    from matplotlib.figure import Figure

    heights = [HEIGHTS[label] for label in labels]
    figure = Figure(figsize=(WIDTH / 72, (sum(heights) + BELOW) / 72), dpi=72, layout="constrained")
    figure.patch.set_visible(False)
    panels: list[Axes] = list(figure.subplots(len(labels), sharex=True, height_ratios=heights))
    for panel, label in zip(panels, labels, strict=True):
        panel.patch.set_visible(False)
        panel.set_axisbelow(True)
        panel.grid(axis="y")
        panel.margins(x=0.03, y=0.1)
        panel.set_ylabel(label)
        panel.tick_params(length=3)
    for panel in panels[1:]:
        panel.locator_params(axis="y", nbins=3)
    if "dev accuracy" in labels:
        panels[1].yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
    panels[-1].yaxis.set_major_formatter("{x:,.0f}")
    panels[-1].set_xlabel("step")
    figure.align_ylabels(panels)
    return figure, panels


def _columns(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]
