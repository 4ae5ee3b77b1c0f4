"""The headline: how often each model is right, what that says in one sentence, and the figures behind it.

In: `Score` rows of every evaluated model. The sentence claims a difference only where two intervals do not overlap.
"""

import re
from collections.abc import Iterable, Sequence

from retort.evaluation import Score
from retort.report import plots
from retort.report.blocks import Block, Column, Figure, Figures, Remark, Section, Table
from retort.report.contents import ROLE_WORDS, Contents, Measured, Role
from retort.report.formatting import ABSENT, count, percent, tokens

ROLE_COLOURS: dict[Role, str] = {"teacher": "purple", "base": "grey", "labels": "orange", "chains": "blue"}
READING = (
    "Dots are accuracies, lines are Wilson's 95% intervals. Intervals that do not overlap show a difference; those "
    "that overlap leave it open. pass@k is the chance that at least one of the k chains is right; truncated chains "
    "were cut off at their budget."
)


def headline(contents: Contents) -> Section:
    """Accuracy of every model by task, thought and decode."""
    scores = contents.scores
    if not scores:
        return Section("result", "Result", (Remark("Nothing was evaluated in this run.", is_finding=True),))
    tasks = list(dict.fromkeys(measured.score.task for measured in scores))
    by_task = {task: [measured for measured in scores if measured.score.task == task] for task in tasks}
    findings = [Remark(finding(rows, decodes(contents, rows)[0]), is_finding=True) for rows in by_task.values()]
    figures = tuple(
        accuracy(rows, decode)
        for rows in by_task.values()
        for decode in decodes(contents, rows)
        if _has_gold(rows, decode)
    )
    blocks: list[Block] = [*findings, *_gaps(by_task), Figures(figures)]
    blocks += [_table(contents, task, rows) for task, rows in by_task.items()]
    return Section("result", "Result", (*blocks, Remark(READING)))


def decodes(contents: Contents, rows: Iterable[Measured]) -> list[str]:
    """The decodes that were measured, in the order of the recipe."""
    measured = {row.score.decode for row in rows}
    return [decode for decode in contents.recipe["evaluation"]["decodes"] if decode in measured]


def names(rows: Sequence[Measured]) -> dict[tuple[str, str], str]:
    """What to call a model under a thought: its name, and the thought where it was measured under several."""
    thoughts = {(row.model, row.score.thought) for row in rows}
    several = {model for model, _ in thoughts if sum(model == other for other, _ in thoughts) > 1}
    return {(model, thought): f"{model} · {thought}" if model in several else model for model, thought in thoughts}


def finding(rows: Sequence[Measured], decode: str) -> str:
    """One sentence on one task: the best student taught by chains against every other model, at its best thought."""
    named = names(rows)
    at_decode = [row for row in rows if row.score.decode == decode]
    students = [row for row in at_decode if row.role == "chains"] or [row for row in at_decode if row.role == "labels"]
    contenders = students or at_decode
    lead = max(contenders, key=lambda row: row.score.accuracy)
    score = lead.score
    setting = f"{score.task} ({count(score.problems)} test problems, {decode})"
    if not score.problems:
        return f"On {score.task} no test problem has a gold answer, so that nothing can be said of accuracy."
    num_models = len({row.model for row in contenders})
    chosen = f", the best here of {num_models} {'students' if students else 'models'}," if num_models > 1 else ""
    subject = f"{'student ' if students else ''}{named[lead.model, score.thought]}{chosen}"
    stated = f"On {setting}, {subject} is right on {percent(score.accuracy)} (95% interval {_interval(score)})"
    others = [
        best_of(at_decode, model) for model in dict.fromkeys(row.model for row in at_decode) if model != lead.model
    ]
    parts = [
        "beats {} beyond the intervals",
        "is behind {} beyond the intervals",
        "cannot be told from {}, whose intervals overlap with its own",
    ]
    clauses = [
        part.format(
            _listed([f"{named[row.model, row.score.thought]} ({percent(row.score.accuracy)})" for row in group])
        )
        for part, group in zip(parts, _compared(lead, others), strict=True)
        if group
    ]
    return f"{stated}: it {_listed(clauses)}." if clauses else f"{stated}."


def best_of(rows: Iterable[Measured], model: str) -> Measured:
    """A model's highest score, over its thoughts."""
    return max((row for row in rows if row.model == model), key=lambda row: row.score.accuracy)


def _compared(lead: Measured, others: Iterable[Measured]) -> tuple[list[Measured], list[Measured], list[Measured]]:
    """Those below the lead's interval, those above it, and those whose intervals overlap with it."""
    below: list[Measured] = []
    above: list[Measured] = []
    open_: list[Measured] = []
    for other in others:
        is_below, is_above = other.score.high < lead.score.low, other.score.low > lead.score.high
        (below if is_below else above if is_above else open_).append(other)
    return below, above, open_


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _interval(score: Score) -> str:
    return f"{100 * score.low:.1f}–{100 * score.high:.1f}%"


def accuracy(rows: Sequence[Measured], decode: str) -> Figure:
    """Accuracies on one task under one decode."""
    named = names(rows)
    shown = [row for row in rows if row.score.decode == decode and row.score.problems]
    points = [
        plots.Interval(
            named[row.model, row.score.thought],
            row.score.accuracy,
            row.score.low,
            row.score.high,
            ROLE_COLOURS[row.role],
        )
        for row in shown
    ]
    caption = f"Accuracy on {shown[0].score.task}, {decode}, with 95% intervals"
    summary = f"{caption}: {', '.join(f'{point.name} {percent(point.value)}' for point in points)}"
    present = {row.role for row in shown}
    legend = tuple((ROLE_WORDS[role], colour) for role, colour in ROLE_COLOURS.items() if role in present)
    name = re.sub(r"[^a-z0-9-]", "-", f"accuracy-{shown[0].score.task}-{decode}")
    return Figure(name, caption, summary, plots.intervals(name, summary, points), legend)


def _has_gold(rows: Iterable[Measured], decode: str) -> bool:
    return any(row.score.problems for row in rows if row.score.decode == decode)


def _table(contents: Contents, task: str, rows: Sequence[Measured]) -> Table:
    """Scores by decode. What is looked for first stands first, where a phone shows it."""
    order = decodes(contents, rows)
    numbers = "accuracy", "95% interval", "correct", "problems", "pass@k", "no answer", "truncated", "tokens a chain"
    model, decode, thought, role = (Column(name, is_number=False) for name in ("model", "decode", "thought", "role"))
    columns = (model, decode, *map(Column, numbers), thought, role)
    ordered = sorted(rows, key=lambda row: order.index(row.score.decode))
    return Table(f"Scores on {task}", columns, tuple(tuple(_row(row)) for row in ordered))


def _row(row: Measured) -> list[str]:
    score = row.score
    has_gold = score.problems > 0
    return [
        row.model,
        score.decode,
        percent(score.accuracy) if has_gold else ABSENT,
        _interval(score) if has_gold else ABSENT,
        count(score.correct),
        count(score.problems),
        percent(score.pass_at_k) if has_gold else ABSENT,
        percent(score.no_answer),
        percent(score.truncated),
        tokens(score.mean_tokens, score.chains),
        score.thought,
        ROLE_WORDS[row.role],
    ]


def _gaps(by_task: dict[str, list[Measured]]) -> list[Remark]:
    """A word on models that were measured on fewer problems than others: their accuracies are not on equal terms."""
    remarks: list[Remark] = []
    for task, rows in by_task.items():
        most = max(row.score.problems for row in rows)
        fewer = {row.model: row.score.problems for row in rows if row.score.problems < most}
        if fewer:
            told = _listed([f"{model} {count(problems)}" for model, problems in fewer.items()])
            remarks.append(Remark(f"Not all answered the same problems of {task}: of {count(most)}, {told}."))
    return remarks
