"""The papers beside a run: their accuracies on its tasks next to its own, and which of their directions it shows.

In: the scores, predictions and ledger of the run, and what `published` and `claims` know of the papers. A task that no
paper measured has directions alone. No run here is a reproduction, and the page says what sets it apart.
"""

from collections import Counter
from collections.abc import Sequence

from retort.report.beside import beside
from retort.report.blocks import Block, Remark, Section, Table, table
from retort.report.claims import Direction
from retort.report.contents import Contents
from retort.report.directions import MARGIN, Found, by_students, by_trials
from retort.report.findings import listed
from retort.report.formatting import ABSENT, count
from retort.report.placing import kind_of, placed
from retort.report.published import BENCHMARKS, SOURCES, Chains, published

READING = (
    "A direction holds where a 95% interval lies wholly on its side, and cannot be told where it does not decide. "
    "Differences are of the first minus the second, in points. Students are compared by their first seeds on the same "
    "problems: the interval is Newcombe's for paired shares, McNemar's exact test must agree, and so must the means "
    "over seeds where there are several; of many chains and of votes the largest number stands for all. Trials are "
    "compared in pairs that are alike in all else, with Student's interval over their seeds. Nothing is corrected for "
    "the number of comparisons."
)
LEVEL = (
    f"Level means within {100 * MARGIN:.0f} points, a margin of this page's own; few problems cannot show it, however "
    f"small the difference is."
)
ELSEWHERE = (
    "No paper measured {tasks}: that a direction fails there does not refute it, and that it holds does not confirm it."
)
VOUCHED = f"Who vouches for what is said of the papers: {'; '.join(f'{key} {told}' for key, told in SOURCES.items())}."


def papers(contents: Contents) -> list[Section]:
    """The section; none where no task is the papers' and no two models of the run can be compared as they did."""
    findings: list[Block] = []
    blocks: list[Block] = []
    shown: list[Found] = []
    elsewhere: list[str] = []
    for task, kind in ((task["id"], kind_of(task)) for task in contents.recipe["task"]):
        rows = placed(contents, task)
        found = [*by_students(contents, kind, rows), *by_trials(contents, kind, task)]
        own = beside(contents, task, kind, rows)
        if found:
            findings.append(Remark(_finding(task, found), is_finding=True))
            own.append(_directions(task, kind, found))
            shown += found
            elsewhere += [] if kind in BENCHMARKS else [task]
        blocks += [*own, *([Remark(" ".join(BENCHMARKS[kind].notes))] if own and kind in BENCHMARKS else [])]
    if not blocks:
        return []
    remarks = [ELSEWHERE.format(tasks=listed(elsewhere))] if elsewhere else []
    remarks += [READING] if shown else []
    remarks += [LEVEL] if any(each.direction.expected == "level" for each in shown) else []
    return [Section("papers", "Papers", (*findings, *blocks, *map(Remark, (*remarks, VOUCHED))))]


def _finding(task: str, found: Sequence[Found]) -> str:
    """How many comparisons go which way; which they are stands in the table."""
    verdicts = Counter(each.verdict for each in found)
    whole = f"the {count(len(found))} comparisons that look" if len(found) > 1 else "the one comparison that looks"
    words = {"holds": "shows it", "does not hold": "goes against it", "cannot tell": "cannot tell"}
    if len(found) == 1:
        return f"On {task}, {whole} for a direction of the papers {words[found[0].verdict]}."
    many = {"holds": "show it", "does not hold": "go against it", "cannot tell": "cannot tell"}
    numbers = {verdict: verdicts[verdict] for verdict in words}
    told = [f"{n or 'none'} {(words if n == 1 else many)[verdict]}" for verdict, n in numbers.items()]
    return f"On {task}, of {whole} for a direction of the papers, {listed(told)}."


def _directions(task: str, kind: str, found: Sequence[Found]) -> Table:
    """Every comparison, with the paper's own figures where the task is one of its."""
    rows = [
        [
            each.direction.claim,
            each.verdict,
            each.difference,
            each.between,
            f"{each.by}; they also differ in {each.differs}" if each.differs else each.by,
            _claimed(each.direction, kind),
        ]
        for each in found
    ]
    words = ["direction", "here", "difference (95% interval)", "first – second", "by", "whose"]
    return table(f"The papers' directions on {task}", words, [], rows)


def _claimed(direction: Direction, kind: str) -> str:
    """Whose claim it is, and who vouches for it: `SCoTD (P): 63.0 → 67.0 (+4.0)`."""
    whose, own = f"{direction.paper} ({direction.source})", figures(direction, kind)
    return whose if own == ABSENT else f"{whose}: {own}"


def figures(direction: Direction, kind: str) -> str:
    """The paper's own figures on a task, from the second side to the first, as one table of it has them."""
    known = [row for row in published(kind) if row.paper == direction.paper]
    both = [
        (first, second)
        for first in known
        if direction.first.fits(first.place)
        for second in known
        if direction.second.fits(second.place) and first != second and set(first.tables) & set(second.tables)
    ]
    if kind not in direction.kinds or not both:
        return ABSENT
    # Of several numbers of chains the largest.
    first, second = max(both, key=lambda pair: [_number(row.place.chains) for row in pair])
    difference = f"{first.value - second.value:+}".replace("-", "−")
    return f"{second.value} → {first.value} ({difference})"


def _number(chains: Chains) -> int:
    return chains if isinstance(chains, int) else 0
