"""Whether a run shows the papers' directions: by two of its students, or by trials of its sweep.

Students are compared on the problems that both answered, by their first seeds, and only those of one base; trials are
compared where they are alike in all else. An interval that leaves both open decides nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from retort.evaluation import num_votes
from retort.intervals import paired
from retort.records import Prediction
from retort.report.claims import DIRECTIONS, Direction, Expected, Side
from retort.report.contents import Contents, Measured
from retort.report.differences import elements
from retort.report.effects import Pairs, Scored, having, judged, pairs
from retort.report.findings import LEVEL
from retort.report.formatting import count, points, probability
from retort.report.placing import Placed, setting_of
from retort.report.trials import NUM_CHAINS, SEED, Parameter, Sweep, Trial, key, open_sweep

MARGIN = 0.03
"""Within this a difference is about zero: more than the most that SCoTD reports where voting is no help (2.2 points),
less than its gains where it is (4.5 and 13.4, Table 3a). It is no number of the papers'."""

Verdict = Literal["holds", "does not hold", "cannot tell"]


@dataclass(frozen=True)
class Found:
    """What a run shows of a direction: by which two, how far apart they are, and what else sets them apart."""

    direction: Direction
    verdict: Verdict
    difference: str
    between: str
    by: str
    differs: str = ""


def by_students(contents: Contents, kind: str, rows: Sequence[Placed]) -> Iterator[Found]:
    """What the students among some scores on one task show of each direction."""
    for direction in DIRECTIONS:
        if direction.applies(kind):
            for first, second in _pairs(contents, direction, rows):
                made = _compared(contents, direction, first, second)
                if made is not None:
                    yield made


def weigh(expected: Expected, low: float, high: float) -> Verdict:
    """What an interval of the first side minus the second says of a direction.

    >>> weigh("ahead", 0.01, 0.09), weigh("ahead", -0.01, 0.09), weigh("level", -0.02, 0.01)
    ('holds', 'cannot tell', 'holds')
    """
    inner, outer = (-MARGIN, MARGIN) if expected == "level" else (0.0, float("inf"))
    if inner < low and high < outer:
        return "holds"
    return "does not hold" if high < inner or low > outer else "cannot tell"


def _pairs(contents: Contents, direction: Direction, rows: Sequence[Placed]) -> list[tuple[Placed, Placed]]:
    """Students of one base for a direction: of many chains, and of votes, the most alone."""
    firsts, seconds = (_largest(side, _of(contents, side, rows)) for side in (direction.first, direction.second))
    return [
        (first, second)
        for first in firsts
        for second in seconds
        if first.place.setting == second.place.setting
        and _base(contents, first) == _base(contents, second)
        and (first.row.model == second.row.model) == direction.is_of_decodes
    ]


def _of(contents: Contents, side: Side, rows: Sequence[Placed]) -> list[Placed]:
    return [
        one
        for one in rows
        if contents.student(one.row.model) is not None
        and side.fits(one.place, one.kept)
        and side.is_pair in (None, one.is_pair)
    ]


def _largest(side: Side, rows: Sequence[Placed]) -> list[Placed]:
    """Chosen before any accuracy is looked at."""
    if side.chains == "many":
        most = max((row.budget for row in rows), default=0)
        rows = [row for row in rows if row.budget == most]
    if side.decode == "vote":
        votes = max((num_votes(row.row.score.decode) for row in rows), default=0)
        rows = [row for row in rows if num_votes(row.row.score.decode) == votes]
    return list(rows)


def _base(contents: Contents, one: Placed) -> tuple[Any, ...]:
    student = contents.students[one.row.model]
    return student["base"], student["revision"], student["init"]


def _compared(contents: Contents, direction: Direction, first: Placed, second: Placed) -> Found | None:
    """The two on the problems that both answered, by their first seeds; None where there is none.

    Where means over seeds say something else than these, nothing is decided.
    """
    right = [_rightness(contents, one.row) for one in (first, second)]
    if not right[0].keys() & right[1].keys():
        return None
    pair = paired(*right)
    verdict = weigh(direction.expected, pair.low, pair.high)
    if direction.expected == "ahead" and pair.p >= LEVEL:
        verdict = "cannot tell"
    by = f"{count(pair.problems)} problems, p {probability(pair.p)}"
    if first.row.spread or second.row.spread:
        mean = first.row.value - second.row.value
        by += f"; means over seeds {points(mean)}"
        if weigh(direction.expected, mean, mean) != verdict:
            verdict = "cannot tell"
    difference = f"{points(pair.difference)} ({points(pair.low)} to {points(pair.high)})"
    between = f"{_named(first)} – {_named(second)}"
    return Found(direction, verdict, difference, between, by, _differing(contents, direction, first, second))


def _named(one: Placed) -> str:
    return f"{one.row.name}, {one.row.score.decode}"


def _rightness(contents: Contents, row: Measured) -> dict[str, bool]:
    """Whether the first seed of a model is right, by problem."""
    evaluation = contents.stage("evaluation")[contents.first_run(row.model)]
    found = (each for each in evaluation.records(Prediction) if each.is_correct is not None)
    return {
        each.problem_id: bool(each.is_correct)
        for each in found
        if (each.task, each.thought, each.decode) == row.key[1:]
    }


def _differing(contents: Contents, direction: Direction, first: Placed, second: Placed) -> str:
    """Fields of two students, and of their corpora, that differ beside those that the direction is about."""
    parts = elements(contents.recipe)
    told: list[str] = []
    students = [contents.students[one.row.model] for one in (first, second)]
    sides = (
        [parts[f"corpus.{student['corpus']}"] for student in students],
        [parts[f"student.{student['id']}"] for student in students],
    )
    unlike = ("id", "corpus", "training.seeds", *direction.about)
    for one, other in sides:
        for name in dict.fromkeys([*one, *other]):
            is_left_out = any(name == field or name.startswith(f"{field}.") for field in unlike)
            if one.get(name) != other.get(name) and not is_left_out:
                told.append(".".join(name.split(".")[:2]))
    return ", ".join(dict.fromkeys(told))


def by_trials(contents: Contents, kind: str, task: str) -> Iterator[Found]:
    """What trials of a sweep over the number of chains show of the directions that are about it, or about votes."""
    sweep = open_sweep(contents)
    if sweep is None or sweep.metric.task != task:
        return
    number = next((each for each in sweep.parameters if each.name == NUM_CHAINS), None)
    if number is None or number.is_binned or len(number.levels) < 2:
        return
    corpus = contents.corpora[sweep.corpus]
    for direction in DIRECTIONS:
        first, second = direction.first, direction.second
        is_of_counts = first.chains == "many" and first.thought == second.thought == sweep.metric.thought
        if is_of_counts and direction.applies(kind):
            made = _of_trials(sweep, number, corpus, direction)
            if made is not None:
                yield made


def _of_trials(sweep: Sweep, number: Parameter, corpus: Mapping[str, Any], direction: Direction) -> Found | None:
    """Trials of the most chains against those of one, or those of the most under a vote against greedy decoding."""
    votes = [decode for decode in sweep.decodes if decode != "greedy" and num_votes(decode) > 1]
    named = {"greedy": "greedy", "vote": max(votes, key=num_votes, default="")}
    decodes = [named[side.decode] for side in (direction.first, direction.second)]
    if not set(decodes) <= set(sweep.decodes):
        return None
    most, least = (
        [row for row in having(sweep, number, level, decodes[0]) if _is_of(row[0], corpus, direction.first)]
        for level in (len(number.levels) - 1, 0)
    )
    if direction.is_of_decodes:
        found = _decoded(sweep, most, least, decodes[1])
        between = f"{decodes[0]} – {decodes[1]}, num_chains = {number.levels[-1]}"
    elif number.levels[0] == "1":
        found = pairs(number, most, least)
        between = f"num_chains = {number.levels[-1]} – 1, {decodes[0]}"
    else:
        return None
    if not found.scores:
        return None
    num_pairs = len(found.scores)
    by = f"{count(num_pairs)} pair{'s' * (num_pairs > 1)} of trials"
    known = "" if found.interval is None else f" ({points(found.interval[0])} to {points(found.interval[1])})"
    return Found(direction, _judge(direction.expected, found), f"{points(found.mean)}{known}", between, by)


def _is_of(trial: Trial, corpus: Mapping[str, Any], side: Side) -> bool:
    """Whether a trial learned what a side is about, from as many chains as its number says."""
    selection = {f"selection.{name}": value for name, value in corpus["selection"].items()}
    has = {"thoughts": corpus["thoughts"], **selection, **trial.params}
    return (
        setting_of(has["selection.rule"]) == side.setting
        and has["selection.target"] == "chain"
        and has["selection.chains_per_problem"] != 1
        and list(has["thoughts"]) == [side.thought]
    )


def _decoded(sweep: Sweep, most: Sequence[Scored], least: Sequence[Scored], decode: str) -> Pairs:
    """Trials beside themselves under another decode: those of the most chains that have a twin of the least."""
    twins = {trial.rest(NUM_CHAINS) for trial, _ in least}
    both = [(trial, score, sweep.score(trial, decode)) for trial, score in most if trial.rest(NUM_CHAINS) in twins]
    met = [(trial, (score, other)) for trial, score, other in both if other is not None]
    return Pairs(tuple(each for _, each in met), tuple(key(trial.params.get(SEED)) for trial, _ in met))


def _judge(expected: Expected, found: Pairs) -> Verdict:
    """A single pair, whose intervals overlap where it is level, cannot show that it is."""
    if expected == "level":
        return "cannot tell" if found.interval is None else weigh(expected, *found.interval)
    words: dict[str, Verdict] = {"ahead": "holds", "behind": "does not hold"}
    return words.get(judged(found), "cannot tell")
