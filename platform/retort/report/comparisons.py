"""Students side by side: means over their seeds, and pairs of students on the same problems.

In: `seeds.jsonl` and `pairs.jsonl` of the comparison.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from retort.intervals import Paired
from retort.report.blocks import Block, Column, Remark, Section, Table
from retort.report.contents import Contents, Key
from retort.report.formatting import count, percent, points, probability
from retort.report.recipes import run_names, worded

PAIRED = (
    "Two students are compared on the problems that both answered, each by the chains of its first seed and under the "
    "thought or combiner named beside it. Only the problems that one of them alone gets right tell them apart: p is "
    "McNemar's exact test on those. The difference is first minus second, in percentage points, with Newcombe's 95% "
    "interval for paired shares. The pairs share their test problems and their students, so that they are not "
    "independent of each other."
)
SPREAD = (
    "sd is the standard deviation over seeds (of a sample: n − 1). It shows how much a student varies by the chance of "
    "its training, and not by that of the test problems; from few seeds it is itself uncertain."
)

Pairs = Mapping[tuple[Key, Key], Paired]
"""What was measured of two students, by whose it is: each pair from either side."""


def both_ways(rows: Iterable[Mapping[str, Any]]) -> Pairs:
    """The rows of `pairs.jsonl`, as seen from the first student and from the second."""
    found: dict[tuple[Key, Key], Paired] = {}
    for row in rows:
        first, second = (
            Key(row[side], row["task"], row[f"{side}_thought"], row["decode"]) for side in ("first", "second")
        )
        pair = Paired(**{field.name: row[field.name] for field in fields(Paired)})
        found[first, second] = pair
        found[second, first] = Paired(
            both_right=pair.both_right,
            only_first=pair.only_second,
            only_second=pair.only_first,
            neither=pair.neither,
            difference=-pair.difference,
            low=-pair.high,
            high=-pair.low,
            p=pair.p,
        )
    return found


def comparison(contents: Contents) -> list[Section]:
    """The section, or none where there is one student of one seed, or no student at all."""
    blocks = [*_seeds(contents), *_pairs(contents)]
    return [Section("comparison", "Comparison", tuple(blocks))] if blocks else []


def _seeds(contents: Contents) -> list[Block]:
    rows = [
        row
        for id_ in contents.students
        for thought in contents.thoughts(id_)
        for row in contents.compared("seeds.jsonl")
        if (row["student"], row["thought"]) == (id_, thought) and row["sd"] is not None
    ]
    each = _by_seed(contents)
    cells = [
        [
            row["student"],
            worded(row["thought"]),
            percent(row["mean"]),
            percent(row["sd"]),
            count(row["seeds"]),
            ", ".join(each[row["student"], row["task"], row["thought"], row["decode"]]),
            row["task"],
            row["decode"],
        ]
        for row in rows
    ]
    if not cells:
        return []
    numbers = ["mean", "sd", "seeds", "each"]
    return [_table("Accuracy over seeds", ["student", "thought"], numbers, cells), Remark(SPREAD)]


def _by_seed(contents: Contents) -> dict[tuple[str, str, str, str], list[str]]:
    """The accuracies of every run of a student, in the order of its seeds."""
    found: dict[tuple[str, str, str, str], list[str]] = {}
    for id_, student in contents.students.items():
        for name in run_names(student):
            for row in contents.stage("evaluation")[name].lines("scores.jsonl"):
                key = id_, row["task"], row["thought"], row["decode"]
                found.setdefault(key, []).append(percent(row["accuracy"]))
    return found


def _pairs(contents: Contents) -> list[Block]:
    rows = contents.compared("pairs.jsonl")
    if not rows:
        return []
    cells = [
        [
            _speaker(contents, row["first"], row["first_thought"]),
            _speaker(contents, row["second"], row["second_thought"]),
            points(row["difference"]),
            f"{points(row['low'])} to {points(row['high'])}",
            probability(row["p"]),
            *(count(row[key]) for key in ("only_first", "only_second", "both_right", "neither")),
            row["task"],
            row["decode"],
        ]
        for row in rows
    ]
    numbers = ["difference", "95% interval", "p", "only first", "only second", "both right", "neither"]
    return [_table("Pairs of students", ["first", "second"], numbers, cells), Remark(f"{_listed(rows)} {PAIRED}")]


def _table(caption: str, words: Sequence[str], numbers: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Numbers stand before the task and the decode: a phone shows what comes first."""
    parts = ((words, False), (numbers, True), (("task", "decode"), False))
    return Table(
        caption, tuple(Column(name, is_number) for names, is_number in parts for name in names), tuple(map(tuple, rows))
    )


def _speaker(contents: Contents, student: str, thought: str) -> str:
    return f"{student} · {worded(thought)}" if len(contents.thoughts(student)) > 1 else student


def _listed(rows: list[dict[str, Any]]) -> str:
    if len(rows) == 1:
        return "One comparison is listed."
    return (
        f"{count(len(rows))} comparisons are listed, and p is not corrected for their number: if no two students "
        f"differed, p would still be below 0.05 in up to one of twenty."
    )
