"""Thoughts side by side: what each brings alone, what combiners make of them, and what happens within their chains.

In: `Score` rows of models that were asked in several ways, the dev weights and `questions.jsonl` of evaluations.
"""

import re
from collections.abc import Sequence

from retort.report import plots
from retort.report.blocks import Block, Column, Figure, Figures, Remark, Section, Table, table
from retort.report.contents import ROLE_WORDS, Contents, Measured
from retort.report.findings import ensembles, stated
from retort.report.formatting import ABSENT, count, interval, number, percent, share
from retort.report.recipes import is_bound, is_combiner, spaced, worded
from retort.report.scores import SEEDS, is_student, point, spoken

ALONE, COMBINED, BOUND = "sky", "blue", "grey"
LEGEND = (("a thought alone", ALONE), ("a combiner", COMBINED), ("an upper bound, which needs gold", BOUND))
COMBINING = (
    "Combiners choose among the answers of the same chains. fallback takes the first thought, in its order, that has "
    "an answer; majority the most frequent answer; weighted the one whose thoughts have the largest sum of dev "
    "accuracies; of ties the thought that is listed first wins. oracle is right if any thought is: it is told the gold "
    "answers, so that it bounds what combining can reach and is no method. No answer is the share of problems for "
    "which a thought failed: its program or its equations came to nothing, or its text says none."
)
STEPS = (
    "Of the calculator annotations <<12+5=17>> in the chains, those that could be recomputed, and how many of these "
    "were right. Of students: their first seed."
)
QUESTIONS = (
    "Sub-questions of Socratic chains against the data set's own. BLEU from 0 to 100 over all problems; #Q is the "
    "share of problems with as many questions; similarity is the cosine of sentence embeddings, matched in order, "
    "which compares runs with each other and not with other embeddings."
)


def thoughts(contents: Contents) -> list[Section]:
    """The section, or none where every model was asked in one way that has no steps to count."""
    sets = [in_order(contents, group) for group in _groups(contents.scores)]
    drawn = [group for group in sets if group[0].role == "chains" and group[0].score.problems]
    blocks: list[Block] = [Remark(told, is_finding=True) for told in ensembles(list(spoken(contents)))]
    blocks += [Figures(tuple(map(_figure, drawn)))] if drawn else []
    blocks += [_table(contents, group) for group in sets]
    blocks += [Remark(COMBINING)] if any(is_combiner(row.score.thought) for group in sets for row in group) else []
    blocks += [Remark(SEEDS)] if any(row.spread for group in sets for row in group) else []
    blocks += [*_steps(contents), *_questions(contents)]
    return [Section("thoughts", "Thoughts", tuple(blocks))] if blocks else []


def _groups(scores: Sequence[Measured]) -> list[list[Measured]]:
    """The scores of one model on one task under one decode, where there are several; those of students first."""
    combined = {row.model for row in scores if is_combiner(row.score.thought)}
    groups: dict[tuple[str, str, str], list[Measured]] = {}
    for row in sorted(scores, key=lambda row: not is_student(row)):
        if row.is_one_of_several and (is_student(row) or row.model in combined):
            groups.setdefault((row.model, row.score.task, row.score.decode), []).append(row)
    return list(groups.values())


def in_order(contents: Contents, rows: Sequence[Measured]) -> list[Measured]:
    """The scores of one model, thoughts before combiners, each in the recipe's order."""
    order = contents.thoughts(rows[0].model)
    return sorted(rows, key=lambda row: order.index(row.score.thought))


def _setting(rows: Sequence[Measured]) -> str:
    return f"{rows[0].model} on {rows[0].score.task}, {rows[0].score.decode}"


def _figure(rows: Sequence[Measured]) -> Figure:
    points: list[plots.Interval] = []
    for row in rows:
        thought = row.score.thought
        colour = BOUND if is_bound(thought) else COMBINED if is_combiner(thought) else ALONE
        points.append(point(spaced(thought), row, colour, is_hollow=is_bound(thought)))
    caption = f"Thoughts of {_setting(rows)}, alone and combined, with 95% intervals"
    told = (f"{worded(row.score.thought)} {stated(row)}" for row in rows)
    summary = f"{caption}: {', '.join(told)}"
    score = rows[0].score
    name = re.sub(r"[^a-z0-9_.-]", "-", f"thoughts.{rows[0].model}.{score.task}.{score.decode}")
    present = {point.colour for point in points}
    legend = tuple((word, colour) for word, colour in LEGEND if colour in present)
    return Figure(name, caption, summary, plots.intervals(name, summary, points), legend)


def _table(contents: Contents, rows: Sequence[Measured]) -> Table:
    """One model on one task under one decode. Weights are of its first seed, whose other figures stand here too."""
    evaluation = contents.stage("evaluation")[contents.first_run(rows[0].model)]
    weights: dict[str, float] = evaluation.stats.get("weights", {})
    names = ["accuracy", "95% interval", "correct", "answered", "no answer"]
    columns = [Column("thought", is_number=False), *map(Column, names)]
    columns += [Column("dev accuracy (weight)")] if weights else []
    cells: list[tuple[str, ...]] = []
    for row in rows:
        score, weight = row.score, weights.get(row.score.thought)
        cells.append(
            (
                worded(score.thought),
                stated(row) if score.problems else ABSENT,
                interval(score.low, score.high) if score.problems else ABSENT,
                f"{count(score.correct)} of {count(score.problems)}",
                percent(1 - score.no_answer),
                percent(score.no_answer),
                *([ABSENT if weight is None else percent(weight)] if weights else []),
            )
        )
    role = ROLE_WORDS[rows[0].role]
    return Table(f"{_setting(rows)} ({role})", tuple(columns), tuple(cells))


def _steps(contents: Contents) -> list[Block]:
    """The share of right calculator annotations, where chains have any."""
    rows = [
        [
            row.model,
            row.score.thought,
            row.score.task,
            row.score.decode,
            share(row.score.right_steps, row.score.steps),
            count(row.score.right_steps),
            count(row.score.steps),
        ]
        for row in contents.scores
        if row.score.steps and not is_combiner(row.score.thought)
    ]
    if not rows:
        return []
    words = ["model", "thought", "task", "decode"]
    return [table("Calculator annotations", words, ["right", "right ones", "recomputed"], rows), Remark(STEPS)]


def _questions(contents: Contents) -> list[Block]:
    """How close sub-questions are to the data set's own, run by run."""
    rows = [
        [
            name,
            asked["task"],
            count(asked["problems"]),
            number(asked["bleu"], 1),
            percent(asked["same_count"]),
            number(asked["similarity"], 3),
        ]
        for name, artifact in contents.stage("evaluation").items()
        if any(file["name"] == "questions.jsonl" for file in artifact.manifest["files"])
        for asked in artifact.lines("questions.jsonl")
    ]
    if not rows:
        return []
    numbers = ["problems", "BLEU", "#Q", "similarity"]
    return [table("Sub-questions", ["model", "task"], numbers, rows), Remark(QUESTIONS)]
