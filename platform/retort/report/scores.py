"""The headline: how often each model is right, what that says in one sentence, and the figures behind it.

In: `Score` rows of every evaluated model, each under what speaks for it.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

from retort.evaluation import Score
from retort.report import plots
from retort.report.blocks import Block, Column, Figure, Figures, Remark, Section, Table
from retort.report.comparisons import both_ways
from retort.report.contents import ROLE_WORDS, Contents, Measured, Role
from retort.report.findings import leader, listed, stated
from retort.report.formatting import ABSENT, count, interval, percent, tokens
from retort.report.recipes import is_combiner, worded

ROLE_COLOURS: dict[Role, str] = {"teacher": "purple", "base": "grey", "labels": "orange", "chains": "blue"}
READING = (
    "Dots are accuracies, lines are Wilson's 95% intervals. Intervals that do not overlap show a difference; those "
    "that overlap leave it open. pass@k is the chance that at least one of the k chains is right: it takes the gold "
    "answers to pick that one, so that it is an upper bound and no method. Truncated chains were cut off at their "
    "budget."
)
SEEDS = (
    "Where a student was trained from several seeds, its accuracy and its dot are the mean over them, ± their standard "
    "deviation; the interval, the stroke in it and the other columns are of its first seed alone."
)
PAIRED = (
    "Two students answered the same problems: the exact test on these, under Comparison, tells them apart where their "
    "intervals overlap, and what is said of them above goes by it."
)
SPOKEN = (
    "A student that was measured under several thoughts stands here under the one that the recipe names first, a "
    "combiner before a thought alone, and so does any model with combiners; all of them are below."
)


def headline(contents: Contents) -> Section:
    """Accuracy of every model by task and decode."""
    if not contents.scores:
        return Section("result", "Result", (Remark("Nothing was evaluated in this run.", is_finding=True),))
    scores = list(spoken(contents))
    tasks = list(dict.fromkeys(measured.score.task for measured in scores))
    by_task = {task: [measured for measured in scores if measured.score.task == task] for task in tasks}
    pairs = both_ways(contents.compared("pairs.jsonl"))
    findings = [
        Remark(told, is_finding=True)
        for rows in by_task.values()
        for told in leader(rows, decodes(contents, rows)[0], pairs)
    ]
    figures = tuple(
        accuracy(rows, decode)
        for rows in by_task.values()
        for decode in decodes(contents, rows)
        if _has_gold(rows, decode)
    )
    blocks: list[Block] = [*findings, *_gaps(by_task), Figures(figures)]
    blocks += [_table(contents, task, rows) for task, rows in by_task.items()]
    told = [READING, PAIRED] if pairs else [READING]
    if any(measured.spread for measured in scores):
        told.append(SEEDS)
    if len(scores) < len(contents.scores):
        told.append(SPOKEN)
    return Section("result", "Result", (*blocks, *map(Remark, told)))


def spoken(contents: Contents) -> Iterator[Measured]:
    """The scores of each model, task and decode under the thought or combiner that speaks for it.

    A teacher or a base without combiners stands under all of its thoughts: whom it is compared with meets the best.
    """
    present: dict[tuple[str, str, str], set[str]] = {}
    for measured in contents.scores:
        present.setdefault(_setting(measured), set()).add(measured.score.thought)
    for measured in contents.scores:
        thoughts = present[_setting(measured)]
        speaks = next(voice for voice in contents.voices(measured.model) if voice in thoughts)
        if measured.score.thought == speaks or not (is_student(measured) or is_combiner(speaks)):
            yield measured


def is_student(measured: Measured) -> bool:
    """Whether a score is of a model that this run trained."""
    return measured.role in ("labels", "chains")


def _setting(measured: Measured) -> tuple[str, str, str]:
    return measured.model, measured.score.task, measured.score.decode


def decodes(contents: Contents, rows: Iterable[Measured]) -> list[str]:
    """The decodes that were measured, in the order of the recipe."""
    measured = {row.score.decode for row in rows}
    return [decode for decode in contents.recipe["evaluation"]["decodes"] if decode in measured]


def point(name: str, row: Measured, colour: str, is_hollow: bool = False) -> plots.Interval:
    """A score as a row of a plot."""
    score, mean = row.score, None if row.spread is None else row.spread.mean
    return plots.Interval(name, score.accuracy, score.low, score.high, colour, stated(row), mean, is_hollow)


def accuracy(rows: Sequence[Measured], decode: str) -> Figure:
    """Accuracies on one task under one decode."""
    shown = [row for row in rows if row.score.decode == decode and row.score.problems]
    points = [point(row.name, row, ROLE_COLOURS[row.role]) for row in shown]
    caption = f"Accuracy on {shown[0].score.task}, {decode}, with 95% intervals"
    summary = f"{caption}: {', '.join(f'{point.name} {point.text}' for point in points)}"
    present = {row.role for row in shown}
    legend = tuple((ROLE_WORDS[role], colour) for role, colour in ROLE_COLOURS.items() if role in present)
    name = re.sub(r"[^a-z0-9_-]", "-", f"accuracy-{shown[0].score.task}-{decode}")
    return Figure(name, caption, summary, plots.intervals(name, summary, points), legend)


def _has_gold(rows: Iterable[Measured], decode: str) -> bool:
    return any(row.score.problems for row in rows if row.score.decode == decode)


def _table(contents: Contents, task: str, rows: Sequence[Measured]) -> Table:
    """Scores by decode. What is looked for first stands first, where a phone shows it."""
    order = decodes(contents, rows)
    has_seeds = any(row.spread for row in rows)
    numbers = ["accuracy", "95% interval", *(["seeds"] if has_seeds else []), "correct", "pass@k"]
    numbers += ["no answer", "truncated", "tokens a chain"]
    model, decode, thought, role = (Column(name, is_number=False) for name in ("model", "decode", "thought", "role"))
    columns = (model, decode, *map(Column, numbers), thought, role)
    ordered = sorted(rows, key=lambda row: order.index(row.score.decode))
    return Table(f"Scores on {task}", columns, tuple(tuple(_row(row, has_seeds)) for row in ordered))


def _row(row: Measured, has_seeds: bool) -> list[str]:
    score = row.score
    has_gold = score.problems > 0
    return [
        row.model,
        score.decode,
        stated(row) if has_gold else ABSENT,
        _interval(score),
        *([count(row.spread.seeds) if row.spread else "1" if is_student(row) else ABSENT] * has_seeds),
        f"{count(score.correct)} of {count(score.problems)}",
        # Of a combiner's chains not one but one a thought is drawn, so that pass@k says nothing of it.
        percent(score.pass_at_k) if has_gold and score.pass_at_k is not None else ABSENT,
        percent(score.no_answer),
        percent(score.truncated),
        tokens(score.mean_tokens, score.chains),
        worded(score.thought),
        ROLE_WORDS[row.role],
    ]


def _interval(score: Score) -> str:
    return interval(score.low, score.high) if score.problems else ABSENT


def _gaps(by_task: dict[str, list[Measured]]) -> list[Remark]:
    """A word on models that were measured on fewer problems than others: their accuracies are not on equal terms."""
    remarks: list[Remark] = []
    for task, rows in by_task.items():
        most = max(row.score.problems for row in rows)
        fewer = {row.model: row.score.problems for row in rows if row.score.problems < most}
        if fewer:
            told = listed([f"{model} {count(problems)}" for model, problems in fewer.items()])
            remarks.append(Remark(f"Not all answered the same problems of {task}: of {count(most)}, {told}."))
    return remarks
