"""How hard the problems are for the teachers, what their chains are by that, and how students do where they do well.

In: the tallies of all verdicts, and the predictions of students. A problem's pass rate is the share of right ones among
all chains of a teacher on it under a thought, or under all of its thoughts where students are measured by it.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

from retort.intervals import wilson
from retort.records import Prediction
from retort.report import plots
from retort.report.acceptance import counts_table, run_palette
from retort.report.blocks import Block, Figure, Figures, Remark, Section, Table, table
from retort.report.contents import Contents, Measured
from retort.report.findings import listed
from retort.report.formatting import ABSENT, count, counted, interval, percent, share
from retort.report.sample import shown
from retort.report.scores import ROLE_COLOURS, decodes, is_student, spoken
from retort.report.tallies import STRATA, WORDS, Asked, Tally, by_reason, stratum

COLOURS = dict(zip(STRATA, ("red", "orange", "sand", "sky", "blue", "green"), strict=True))
READING = (
    "The pass rate of a problem is the share of right ones among all chains of the model on it under the thought; "
    "those that are always or never right leave a rule of selection no right chains to prefer to wrong ones. From few "
    "chains a pass rate is coarse: of problems that are right half of the time, four chains see one in eight as never "
    "or always right."
)
BY_TEACHER = (
    "How often students are right on the test problems that the teacher, too, was asked, by the teacher's own pass "
    "rate on them, with 95% intervals. Of students: the first seed."
)

Groups = dict[tuple[str, str], dict[Asked, Tally]]
Split = dict[str, list[bool]]
"""Whether predictions are right, by stratum of their problems."""


def difficulty(contents: Contents, tallies: Mapping[Asked, Tally]) -> list[Section]:
    """The section, or none where no teacher's chain was compared with a gold answer."""
    groups = _groups(contents, tallies)
    blocks: list[Block] = []
    if groups:
        parts = run_palette(contents)
        blocks += [Remark(_finding(groups)), Figures((_problems_plot(groups),))]
        for (teacher, thought), group in groups.items():
            strata = by_stratum(group)
            whole = sum(tally.chains for tally in group.values())
            rows = [((name, *_sizes(chosen, len(group), whole)), by_reason(chosen)) for name, chosen in strata.items()]
            caption = f"Verdicts of {teacher}, {thought}, by pass rate"
            blocks.append(counts_table(caption, ["problem is"], ["problems", "chains", "of chains"], rows, parts))
        blocks += [*_selected(contents), Remark(READING)]
    blocks += _students(contents, tallies)
    return [Section("difficulty", "Difficulty", tuple(blocks))] if blocks else []


def by_stratum(group: Mapping[Asked, Tally]) -> dict[str, list[Tally]]:
    """Tallies by stratum, the hardest first; those of problems without gold answer are left out."""
    found: dict[str, list[Tally]] = {name: [] for name in STRATA}
    for tally in group.values():
        if tally.judged:
            found[tally.stratum].append(tally)
    return {name: chosen for name, chosen in found.items() if chosen}


def _groups(contents: Contents, tallies: Mapping[Asked, Tally]) -> Groups:
    """The problems that teachers were asked in order to teach, by teacher and thought."""
    groups: Groups = defaultdict(dict)
    for asked, tally in tallies.items():
        if contents.role(asked.model) == "teacher" and asked.split != "test" and tally.judged:
            groups[asked.model, asked.thought][asked] = tally
    return dict(groups)


def _selected(contents: Contents) -> list[Table]:
    """What selection made examples of, by corpus; nothing of corpora that were made before that was counted."""
    rows: list[list[str]] = []
    for name, artifact in contents.stage("corpus").items():
        sums: dict[str, Counter[str]] = {}
        for row in artifact.stats.get("difficulty", ()):
            numbers = {key: row[key] for key in ("problems", "chains", "selected")}
            sums.setdefault(WORDS[row["stratum"]], Counter()).update(numbers)
        chosen = sum(numbers["selected"] for numbers in sums.values())
        for word in (word for word in STRATA if word in sums):
            problems, chains, selected = (sums[word][key] for key in ("problems", "chains", "selected"))
            told = count(problems), count(chains), counted(selected, chains), share(selected, chosen)
            rows.append([word, name, *told])
    numbers = ["problems", "chains", "selected", "of the examples"]
    return [table("What selection took, by pass rate", ["problem is", "corpus"], numbers, rows)] if rows else []


def _sizes(chosen: Sequence[Tally], problems: int, chains: int) -> tuple[str, str, str]:
    number = sum(tally.chains for tally in chosen)
    return f"{count(len(chosen))} ({share(len(chosen), problems)})", count(number), share(number, chains)


def _finding(groups: Groups) -> str:
    told: list[str] = []
    for (teacher, thought), group in groups.items():
        sizes = {name: len(chosen) for name, chosen in by_stratum(group).items()}
        never, always = (share(sizes.get(name, 0), len(group)) for name in (STRATA[0], STRATA[-1]))
        told.append(
            f"{teacher}, {thought}, is never right on {never} of {count(len(group))} problems, always on {always}"
        )
    return f"{'; '.join(told)}."


def _problems_plot(groups: Groups) -> Figure:
    bars: list[plots.Bar] = []
    for (teacher, thought), group in groups.items():
        rates = [tally.right / tally.judged for tally in group.values()]
        sizes = {name: len(chosen) for name, chosen in by_stratum(group).items()}
        bars.append(plots.Bar(f"{teacher} · {thought}", sizes, percent(sum(rates) / len(rates))))
    caption = "Train and dev problems by the pass rate of their teacher, as shares; at the right the mean pass rate."
    told = (f"{bar.name}: {', '.join(f'{part} {n:g}' for part, n in bar.parts.items())}" for bar in bars)
    summary = f"{caption} {'; '.join(told)}"
    present = {part for bar in bars for part in bar.parts}
    colours = {name: colour for name, colour in COLOURS.items() if name in present}
    drawn = plots.stacked("difficulty", summary, bars, colours)
    return Figure("difficulty", caption, summary, drawn, tuple(colours.items()))


def _students(contents: Contents, tallies: Mapping[Asked, Tally]) -> list[Block]:
    """Students by the pass rate of a teacher that answered test problems: a table each, the lead student drawn."""
    blocks: list[Block] = []
    for teacher, task, rates in _rates(contents, tallies):
        rows = [row for row in spoken(contents) if is_student(row) and row.score.task == task and row.score.problems]
        first = decodes(contents, rows)[:1]
        known = [(row, _split(contents, row, rates)) for row in rows if row.score.decode in first]
        known = [(row, split) for row, split in known if split]
        if known:
            lead = max(known, key=lambda one: (one[0].role == "chains", one[0].value))
            blocks += [Figures((_figure(teacher, *lead),)), _table(teacher, known)]
    return [*blocks, Remark(BY_TEACHER)] if blocks else []


def _rates(contents: Contents, tallies: Mapping[Asked, Tally]) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Strata of the test problems of a task that a teacher was asked, by problem."""
    found: dict[tuple[str, str], dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter[str]))
    for asked, tally in tallies.items():
        if contents.role(asked.model) == "teacher" and asked.split == "test" and tally.judged:
            found[asked.model, asked.task][asked.problem].update(right=tally.right, judged=tally.judged)
    for (teacher, task), problems in found.items():
        yield teacher, task, {problem: stratum(n["right"], n["judged"]) for problem, n in problems.items()}


def _split(contents: Contents, row: Measured, rates: Mapping[str, str]) -> Split:
    """A student's predictions on the problems whose stratum is known."""
    evaluation = contents.stage("evaluation")[contents.first_run(row.model)]
    found: Split = {name: [] for name in STRATA}
    for prediction in evaluation.records(Prediction):
        key, problem = (prediction.task, prediction.thought, prediction.decode), shown(prediction.problem_id)
        if key == row.key[1:] and problem in rates and prediction.is_correct is not None:
            found[rates[problem]].append(prediction.is_correct)
    return {name: rights for name, rights in found.items() if rights}


def _figure(teacher: str, row: Measured, split: Split) -> Figure:
    points: list[plots.Interval] = []
    for name, rights in split.items():
        low, high = wilson(sum(rights), len(rights))
        value, text = sum(rights) / len(rights), f"{share(sum(rights), len(rights))} of {count(len(rights))}"
        points.append(plots.Interval(name, value, low, high, ROLE_COLOURS[row.role], text))
    caption = (
        f"Accuracy of {row.name} on {row.score.task}, {row.score.decode}, by how often {teacher} is right on the same "
        f"problem, with 95% intervals"
    )
    summary = f"{caption}: {listed([f'{point.name} {point.text}' for point in points])}"
    name = re.sub(r"[^a-z0-9_.-]", "-", f"difficulty.{teacher}.{row.score.task}")
    return Figure(name, caption, summary, plots.intervals(name, summary, points))


def _table(teacher: str, known: Sequence[tuple[Measured, Split]]) -> Table:
    present = [name for name in STRATA if any(name in split for _, split in known)]
    rows = [[row.name, row.score.decode, *(_cell(split.get(name, [])) for name in present)] for row, split in known]
    task = known[0][0].score.task
    caption = f"Students on test problems of {task}, where {teacher} is …"
    return table(caption, ["student", "decode"], present, rows)


def _cell(rights: Sequence[bool]) -> str:
    if not rights:
        return ABSENT
    return f"{share(sum(rights), len(rights))} of {count(len(rights))} ({interval(*wilson(sum(rights), len(rights)))})"
