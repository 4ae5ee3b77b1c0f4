"""Figures of what swept parameters do: accuracy along numbers and by word, the map of two, and their importance."""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from retort.report import plots, sweep_plots
from retort.report.blocks import Column, Figure, Table
from retort.report.effects import (
    Estimate,
    Scored,
    against,
    apart,
    estimate,
    grouped,
    having,
    kinds,
    level_text,
    none_or,
    pairs,
    stated,
    told,
    varies,
)
from retort.report.formatting import ABSENT, count, percent
from retort.report.importance import EVALUATOR, Importance, by_weight
from retort.report.trials import NUM_CHAINS, SEED, Parameter, Sweep, worded

Cells = dict[tuple[int, int], Estimate]
"""What is known by level of the parameter across and of the one down."""
LINES = ("blue", "orange", "green", "purple")
"""Colours of the levels, and of the decodes, that stand in one plot."""
MOST_ROWS = 16
CHAINS = "N chains a problem (num_chains)"
UNPAIRED = " The trials differ in other parameters too, which may be behind it."


@dataclass(frozen=True)
class Line:
    """A line of a plot: its colour, what it stands for in words, and its trials by level of the parameter."""

    word: str
    colour: str
    levels: tuple[list[Scored], ...]

    def estimates(self) -> dict[int, Estimate]:
        """What is known at each level that has trials."""
        return {level: estimate(rows) for level, rows in enumerate(self.levels) if rows}


def plot_name(*parts: str) -> str:
    """An id for a figure, whatever stands in the names."""
    return re.sub(r"[^a-z0-9_-]", "-", "-".join(("sweep", *parts)).lower())


def effects(sweep: Sweep) -> list[Figure]:
    """A figure for each swept number and decode, then one for each parameter of words."""
    ordered = sorted(sweep.compared, key=lambda each: each.name != NUM_CHAINS)
    numbers = [figure for each in ordered if each.is_number for figure in _numbers(sweep, each)]
    return [*numbers, *(figure for each in ordered if not each.is_number for figure in _words(sweep, each))]


def _numbers(sweep: Sweep, parameter: Parameter) -> list[Figure]:
    """Accuracy along a number, a figure for each decode, all on one scale."""
    split = against(sweep, parameter)
    lines = {decode: _lines(sweep, parameter, split, decode) for decode in sweep.decodes}
    found = [line for each in lines.values() for line in each]
    ends = [bound for line in found for made in line.estimates().values() for bound in (made.low, made.high)]
    ends += [score.accuracy for line in found for rows in line.levels for _, score in rows]
    if not ends:
        return []
    pad = 0.06 * (max(ends) - min(ends)) or 0.01
    limits = min(ends) - pad, max(ends) + pad
    return [_along(sweep, parameter, split, decode, drawn, limits) for decode, drawn in lines.items() if drawn]


def _lines(sweep: Sweep, parameter: Parameter, split: Parameter | None, decode: str) -> list[Line]:
    """One line, or one for each level of the parameter that splits them."""
    levels = [having(sweep, parameter, level, decode) for level in range(len(parameter.levels))]
    if split is None:
        return [Line("", LINES[0], tuple(levels))] if any(levels) else []
    parted = [
        tuple([row for row in rows if split.level(row[0].params[split.name]) == level] for rows in levels)
        for level in range(len(split.levels))
    ]
    named = zip(split.levels, LINES, parted, strict=False)
    return [Line(f"{split.called} = {word}", colour, rows) for word, colour, rows in named if any(rows)]


def _along(
    sweep: Sweep,
    parameter: Parameter,
    split: Parameter | None,
    decode: str,
    lines: Sequence[Line],
    limits: tuple[float, float],
) -> Figure:
    summary = f"Accuracy on {sweep.where} against {parameter.called}, {decode}. {_ends(parameter, lines)}"
    name = plot_name(parameter.name, decode)
    axis = CHAINS if parameter.name == NUM_CHAINS else parameter.called
    scale = sweep_plots.Scale(axis, list(zip(parameter.places, parameter.levels, strict=True)))
    svg = sweep_plots.means(name, summary, scale, [_series(parameter, line) for line in lines], limits)
    legend = tuple((line.word, line.colour) for line in lines if line.word)
    differ = "" if UNPAIRED in summary else varies(sweep, parameter, [] if split is None else [split.name])
    estimates = [made for line in lines for made in line.estimates().values()]
    return Figure(
        name,
        " ".join(filter(None, (summary, differ, "Small dots are single trials.", kinds(estimates)))),
        summary,
        svg,
        legend,
    )


def table(sweep: Sweep) -> list[Table]:
    """The mean accuracy for each sample count under each decode, by the parameter that splits the lines."""
    parameter = next((each for each in sweep.compared if each.name == NUM_CHAINS), None)
    if parameter is None or parameter.is_binned:
        return []
    split = against(sweep, parameter)
    by_decode = [
        {line.word: line.estimates() for line in _lines(sweep, parameter, split, decode)} for decode in sweep.decodes
    ]
    rows: list[tuple[str, ...]] = []
    for word in by_decode[0]:
        for level, chains in enumerate(parameter.levels):
            made = [lines.get(word, {}).get(level) for lines in by_decode]
            if made[0] is not None:
                cells = [ABSENT if each is None else stated(each) for each in made]
                rows.append((*([word.rpartition(" = ")[2]] if split else []), chains, *cells))
    columns = [*([split.called] if split else []), parameter.called, *sweep.decodes]
    title = f"Mean accuracy on {sweep.where} by {parameter.called}"
    return [Table(title, tuple(Column(each, is_number=each == parameter.called) for each in columns), tuple(rows))]


def _series(parameter: Parameter, line: Line) -> sweep_plots.Series:
    means = [(parameter.places[at], made.value, made.low, made.high) for at, made in line.estimates().items()]
    single = [
        (parameter.place(trial.params[parameter.name]) or 0.0, score.accuracy)
        for rows in line.levels
        for trial, score in rows
    ]
    return sweep_plots.Series(line.colour, means, single)


def _ends(parameter: Parameter, lines: Sequence[Line]) -> str:
    """What lies between the ends of an axis, for each line: chosen before looking, unlike the highest point."""
    clauses: list[str] = []
    has_pairs = True
    for line in lines:
        made = line.estimates()
        least, most = min(made), max(made)
        if least == most:
            continue
        found = pairs(parameter, line.levels[most], line.levels[least])
        names = f"{parameter.called} = {parameter.levels[most]}", parameter.levels[least]
        # Bins hold different numbers, so that a pair or two meet in them by chance.
        is_paired = bool(found.scores) and (found.interval is not None or not parameter.is_binned)
        words = told(*names, found) if is_paired else apart(*names, made[most], made[least])
        clauses.append(f"at {line.word}, {words}" if line.word else words)
        has_pairs = has_pairs and is_paired
    sentence = "; ".join(clauses)
    # A name at the start keeps its letters.
    start = sentence[:1].upper() if lines[0].word else sentence[:1]
    return f"{start}{sentence[1:]}.{'' if has_pairs else UNPAIRED}" if clauses else "There is one level to see."


def _words(sweep: Sweep, parameter: Parameter) -> list[Figure]:
    """Accuracy by level of a parameter that is no number, under each decode where there is room."""
    fits = len(parameter.levels) * len(sweep.decodes) <= MOST_ROWS
    decodes = sweep.decodes[: len(LINES)] if fits else sweep.decodes[:1]
    rows: list[plots.Interval] = []
    estimates: list[Estimate] = []
    for level, word in enumerate(parameter.levels):
        for number, decode in enumerate(decodes):
            scored = having(sweep, parameter, level, decode)
            if scored:
                made = estimate(scored)
                estimates.append(made)
                text = level_text(made)
                name = word if number == 0 else ""
                rows.append(plots.Interval(name, made.value, made.low, made.high, LINES[number], text))
    if not rows:
        return []
    title = f"Accuracy on {sweep.where} by {parameter.called}"
    summary = f"{title}. {_beside(sweep, parameter)}".strip()
    name = plot_name(parameter.name)
    differ = "" if UNPAIRED in summary else varies(sweep, parameter, [])
    caption = f"{summary} {differ} In brackets: the number of trials."
    legend = tuple((decode, LINES[number]) for number, decode in enumerate(decodes))
    return [Figure(name, f"{caption} {kinds(estimates)}", summary, plots.intervals(name, summary, rows), legend)]


def _beside(sweep: Sweep, parameter: Parameter) -> str:
    """Every level against the recipe's own, or against the one that the recipe lists first: not against the best."""
    scored = {
        word: rows
        for level, word in enumerate(parameter.levels)
        if (rows := having(sweep, parameter, level, sweep.metric.decode))
    }
    if len(scored) < 2:
        return ""
    own = worded(sweep.base.get(parameter.name))
    usual = own if own in scored else next(iter(scored))
    found = {word: pairs(parameter, rows, scored[usual]) for word, rows in scored.items() if word != usual}
    if all(each.scores for each in found.values()):
        return grouped(f"{usual}, in points of {sweep.metric.decode}", found)
    made = {word: estimate(rows) for word, rows in scored.items()}
    clauses = [apart(word, usual, made[word], made[usual]) for word in found]
    return f"Under {sweep.metric.decode} {'; '.join(clauses)}.{UNPAIRED}"


def heat(sweep: Sweep, weighed: Importance | str) -> list[Figure]:
    """The metric over two parameters: of those that trials have together the two that matter most."""
    for one, other in itertools.combinations(by_weight(sweep, weighed), 2):
        # What has more levels goes across; but the names of bins are long, and read better at the side.
        down, across = sorted((one, other), key=lambda each: (not each.is_binned, len(each.levels)))
        cells = _cells(sweep, across, down)
        if len({x for x, _ in cells}) > 1 and len({y for _, y in cells}) > 1:
            return [_map(sweep, across, down, cells)]
    return []


def _cells(sweep: Sweep, across: Parameter, down: Parameter) -> Cells:
    found: Cells = {}
    for x in range(len(across.levels)):
        columns = having(sweep, across, x, sweep.metric.decode)
        for y in range(len(down.levels)):
            scored = [row for row in columns if _at(row[0].params, down, y)]
            if scored:
                found[x, y] = estimate(scored)
    return found


def _map(sweep: Sweep, across: Parameter, down: Parameter, cells: Cells) -> Figure:
    title = f"Mean accuracy on {sweep.where}, {sweep.metric.decode}, by {down.called} and {across.called}"
    summary = f"{title}. {_highest(across, down, cells)}"
    name = plot_name("heat")
    svg = sweep_plots.heat(
        name,
        summary,
        sweep_plots.Scale(across.called, list(zip(across.places, across.levels, strict=True))),
        sweep_plots.Scale(down.called, list(zip(down.places, down.levels, strict=True))),
        {place: (made.value, made.trials) for place, made in cells.items()},
    )
    chosen = "Of the parameters that trials have together these two matter most."
    return Figure(name, f"{summary} {chosen} n: trials of a cell, whatever else they have.", summary, svg)


def _at(params: Mapping[str, Any], parameter: Parameter, level: int) -> bool:
    return parameter.name in params and parameter.level(params[parameter.name]) == level


def _highest(across: Parameter, down: Parameter, cells: Cells) -> str:
    (x, y), best = max(cells.items(), key=lambda cell: cell[1].value)
    where = f"{down.called} = {down.levels[y]}, {across.called} = {across.levels[x]}"
    sentence = f"The highest cell is {where}: {stated(best)}"
    if best.kind == "range" or len(cells) == 1:
        return f"{sentence}."
    within = sum(made.value >= best.low for made in cells.values()) - 1
    return f"{sentence}; {none_or(within)} of the other {count(len(cells) - 1)} lie within that interval."


def weights(sweep: Sweep, weighed: Importance) -> Figure:
    """The importance of the parameters."""
    called = {each.name: each.called for each in sweep.parameters}
    shares = {called[name]: share for name, share in weighed.shares.items()}
    (first, most), *_ = shares.items()
    finding = f"{first} explains {percent(most)} of what the parameters explain one by one"
    if SEED in weighed.shares:
        chance = weighed.shares[SEED]
        below = [called[name] for name, share in weighed.shares.items() if name != SEED and share <= chance]
        finding += f", the seed, which stands for chance, {percent(chance)}"
        finding += f"; no more than the seed: {', '.join(below)}" if below else ""
    of_all = (
        "" if weighed.trials == len(sweep.ranked) else f" of {count(len(sweep.ranked))}, those of the largest table"
    )
    name = plot_name("importance")
    summary = f"Importance of parameters for {sweep.metric.decode}: {finding}."
    caption = (
        f"{summary} {EVALUATOR}, over {count(weighed.trials)} trials{of_all}: the share of the forest's variance that "
        f"is owed to a parameter alone, of all such shares."
    )
    svg = sweep_plots.shares(name, summary, shares)
    return Figure(name, caption, summary, svg)
