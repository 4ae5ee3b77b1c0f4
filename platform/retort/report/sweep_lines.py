"""Every trial as a line: across its parameters to the metric, and by step along its dev loss."""

from collections.abc import Sequence

from retort.report import sweep_plots
from retort.report.blocks import Figure
from retort.report.formatting import count, number, percent
from retort.report.importance import Importance, by_weight
from retort.report.sweep_effects import plot_name
from retort.report.sweep_plots import Line, Scale
from retort.report.trials import Parameter, Sweep, Trial

BEST, UPPER, MIDDLE, LOWER, STOPPED = "red", "blue", "sky", "grey", "purple"
MOST_RAILS = 7
MOST_POINTS = 4000
"""Points of all dev losses of a plot: a few hundred curves of a dozen points are as much as it can show."""
LEAST_TRIALS = 8
"""Trials whose best quarter is more than one."""
BUNDLE = 0.09
"""Width, of 1, over which the trials of one level are spread, so that their number can be seen."""
OF_CORPUS = ("selection.", "tasks", "teachers", "thoughts")


def colours(sweep: Sweep) -> dict[str, str]:
    """The colour of each trial, by its place: the best, the rest of the best quarter, the second, and the others."""
    ranked = sweep.ranked
    found = dict.fromkeys((trial.id for trial in sweep.trials), STOPPED)
    for place, trial in enumerate(ranked):
        quarter = place * 4 // len(ranked)
        found[trial.id] = BEST if place == 0 else (UPPER, MIDDLE, LOWER, LOWER)[quarter]
    return found


def legend(sweep: Sweep) -> tuple[tuple[str, str], ...]:
    """What the colours of trials mean, as far as they occur."""
    words = {
        BEST: "the best trial",
        UPPER: "best quarter",
        MIDDLE: "second quarter",
        LOWER: "lower half",
        STOPPED: "stopped early",
    }
    present = set(colours(sweep).values())
    return tuple((word, colour) for colour, word in words.items() if colour in present)


def drawn(sweep: Sweep) -> list[Trial]:
    """The trials in the order in which they are drawn: what stands out comes last."""
    without = [trial for trial in sweep.trials if trial.value is None]
    return [*without, *reversed(sweep.ranked)]


def parallel(sweep: Sweep, weighed: Importance | str) -> list[Figure]:
    """Parallel coordinates; none where no parameter has two levels."""
    most = by_weight(sweep, weighed)[:MOST_RAILS]
    rails = [each for each in sweep.compared if each in most]
    if not rails or not sweep.ranked:
        return []
    spans = [_span(sweep, each) for each in rails]
    values = [trial.value or 0.0 for trial in sweep.ranked]
    low, high = min(values), max(values)
    reach = high - low or 1.0
    scales = [_scale(each, span) for each, span in zip(rails, spans, strict=True)]
    scales.append(Scale(f"accuracy, {sweep.metric.decode}", [((v - low) / reach, percent(v)) for v in (low, high)]))
    painted, lines = colours(sweep), list[Line]()
    order = {trial.id: place for place, trial in enumerate(reversed(sweep.ranked))}
    for trial in drawn(sweep):
        aside = BUNDLE * (order.get(trial.id, 0) / max(1, len(order) - 1) - 0.5)
        points = [_point(sweep, each, span, trial, aside) for each, span in zip(rails, spans, strict=True)]
        points.append(None if trial.value is None else ((trial.value - low) / reach, 0.0))
        colour = painted[trial.id]
        lines.append(Line(points, colour, is_strong=colour == BEST, is_cut=trial.value is None))
    summary = f"Every trial as a line through its parameters to its accuracy. {_typical(sweep)}".strip()
    few = f" Of {len(sweep.compared)} parameters the {MOST_RAILS} that matter most are shown." * (
        len(sweep.compared) > len(rails)
    )
    caption = f"{summary} Within a level the better trials stand further right.{few}"
    name = plot_name("trials")
    return [Figure(name, caption, summary, sweep_plots.parallel(name, summary, scales, lines), legend(sweep))]


def _span(sweep: Sweep, parameter: Parameter) -> tuple[float, float]:
    """The ends of a rail."""
    had = [parameter.place(sweep.value_of(trial, parameter.name)) for trial in sweep.trials]
    places = [place for place in had if place is not None]
    return min(places), max(places)


def _scale(parameter: Parameter, span: tuple[float, float]) -> Scale:
    low, high = span
    ticks = list(zip(parameter.places, parameter.levels, strict=True))
    if parameter.is_binned:
        ends = [level.partition("–") for level in (parameter.levels[0], parameter.levels[-1])]
        ticks = [(low, ends[0][0]), (high, ends[1][2])]
    return Scale(parameter.called, [((place - low) / (high - low or 1.0), word) for place, word in ticks])


def _point(
    sweep: Sweep, parameter: Parameter, span: tuple[float, float], trial: Trial, aside: float
) -> tuple[float, float] | None:
    """Where a trial meets a rail: at its level, a little aside, or at its very number where there are many."""
    place = parameter.place(sweep.value_of(trial, parameter.name))
    if place is None:
        return None
    low, high = span
    is_level = not parameter.is_binned
    return (place - low) / (high - low or 1.0) + aside * is_level, 0.0


def _typical(sweep: Sweep) -> str:
    """The level that the best quarter has more often than all trials: counts, and no claim beyond them."""
    ranked = sweep.ranked
    if len(ranked) < LEAST_TRIALS:
        return ""
    top = ranked[: len(ranked) // 4]
    found: list[tuple[float, int, int, str]] = []
    for each in sweep.compared:
        for level, word in enumerate(each.levels):
            at_top, overall = (
                sum(each.level(sweep.value_of(trial, each.name)) == level for trial in trials)
                for trials in (top, ranked)
            )
            found.append((at_top / len(top) - overall / len(ranked), at_top, overall, f"{each.called} = {word}"))
    if not found:
        return ""
    _, at_top, overall, words = max(found)
    return (
        f"Of the best {count(len(top))} trials {count(at_top)} have {words}, of all {count(len(ranked))} "
        f"{count(overall)} do."
    )


def curves(sweep: Sweep) -> list[Figure]:
    """The dev losses of all trials; none where none was measured."""
    measured = [trial for trial in drawn(sweep) if trial.curve]
    if not measured:
        return []
    painted = colours(sweep)
    most = max(8, MOST_POINTS // len(measured))
    lines = [
        Line(thinned(trial.curve, most), painted[trial.id], painted[trial.id] == BEST, trial.state == "stopped")
        for trial in measured
    ]
    heights = [loss for trial in measured for _, loss in trial.curve]
    is_log = min(heights) > 0 and max(heights) / min(heights) >= 4
    summary = f"Dev loss of {count(len(measured))} trials by step. {_lowest(sweep, measured)}"
    caption = summary
    if any(each.name.startswith(OF_CORPUS) for each in sweep.compared):
        caption += (
            " Trials of other corpora measure their dev loss on other chains: compare the heights of trials that "
            "learned from the same."
        )
    name = plot_name("losses")
    return [Figure(name, caption, summary, sweep_plots.losses(name, summary, lines, is_log), legend(sweep))]


def thinned(points: Sequence[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """At most `most` of some points, evenly, the first and the last among them: an average would move the end."""
    if len(points) <= most:
        return list(points)
    return [points[round(place * (len(points) - 1) / (most - 1))] for place in range(most)]


def _lowest(sweep: Sweep, measured: Sequence[Trial]) -> str:
    """Whose dev loss is lowest, and whether that is the best by accuracy too; which trials were stopped."""
    lowest = min(measured, key=lambda trial: min(loss for _, loss in trial.curve))
    loss = number(min(loss for _, loss in lowest.curve), 3)
    ranks = {trial.id: place for place, trial in enumerate(sweep.ranked, start=1)}
    place = ranks.get(lowest.id)
    stands = "was stopped early" if place is None else f"is number {count(place)} of {count(len(ranks))} by accuracy"
    stopped = [trial.step for trial in measured if trial.state == "stopped"]
    told = f"The lowest, {loss}, is that of trial {lowest.id}, which {stands}."
    if stopped:
        steps = f"{count(min(stopped))} to {count(max(stopped))}" if min(stopped) < max(stopped) else count(stopped[0])
        told += f" {count(len(stopped))} were stopped early, after {steps} steps; a cross marks where."
    return told
