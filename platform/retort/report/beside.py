"""The papers' accuracies on a task and a run's own, side by side, and in one sentence a paper what sets them apart."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from retort.evaluation import num_votes
from retort.report.blocks import Block, Column, Remark, Table
from retort.report.contents import Contents
from retort.report.findings import listed, stated
from retort.report.formatting import ABSENT, count, interval, share
from retort.report.placing import Placed, is_taught
from retort.report.published import BENCHMARKS, PAPERS, REMOVED, Chains, PaperName, Place, Published, published
from retort.report.recipes import base_name, call, worded
from retort.store.artifacts import Artifact

FILTERED_LATER = (
    "selected",
    "over_budget",
    "duplicate",
    "near_duplicate",
    "too_hard",
    "too_easy",
    "not_in_layout",
    "not_concluded",
)
"""Fates of chains that the filter by gold answers has passed."""
FILTERED_BEFORE = ("unlabelled", "contaminated")
"""Fates of chains that it never saw."""
SETTINGS = {"prompted teacher": "teacher, prompted", "prompted student": "student before training"}


class Line(NamedTuple):
    """A row of the table: a published value, a score of the run, or both."""

    place: Place
    kept: int | None
    published: Published | None
    here: Placed | None


def beside(contents: Contents, task: str, kind: str, rows: Sequence[Placed]) -> list[Block]:
    """The table and its sentences; nothing where the papers have no number, or the run no model to put beside it."""
    groups = list(dict.fromkeys(row.place[:2] for row in published(kind)))
    own = [row for row in rows if row.place[:2] in groups and is_taught(contents, kind, row)]
    if not own:
        return []
    settings = {"chance", *(row.place.setting for row in own)}
    known = [row for row in published(kind) if row.place.setting in settings]
    lines = sorted(align(known, own), key=lambda line: (groups.index(line.place[:2]), *_order(line)))
    told: list[Block] = []
    for name in PAPERS:
        theirs = {row.place[:2] for row in known if row.paper == name}
        if shared := [row for row in own if row.place[:2] in theirs]:
            told.append(Remark(_apart(contents, kind, name, shared)))
    removed = _removed(contents, kind, own)
    return [_table(task, lines), *told, *([Remark(removed)] if removed else [])]


def align(known: Sequence[Published], own: Sequence[Placed]) -> Iterator[Line]:
    """Each published value beside the first score that it fits and that stands beside none; then scores without one."""
    left = list(own)
    for row in known:
        here = next((one for one in left if _fits(row.place, one)), None)
        if here is not None:
            left.remove(here)
        yield Line(row.place, None, row, here)
    for one in left:
        yield Line(one.place, one.kept, None, one)


def _fits(place: Place, one: Placed) -> bool:
    """Whether a score is of a published place; what that leaves open fits any."""
    if place[:2] != one.place[:2] or place.decode not in (one.place.decode, ""):
        return False
    return place.chains is None or (place.chains == one.place.chains and one.kept is None)


def _order(line: Line) -> tuple[int, int]:
    """By decode, then by the number of chains."""
    chains = line.kept or line.place.chains
    number = chains if isinstance(chains, int) else {"greedy": 0, "gold": -1, None: -2}[chains]
    return ("", "greedy", "vote").index(line.place.decode), number


def _table(task: str, lines: Sequence[Line]) -> Table:
    rows = tuple((_described(line), *_published(line), *_here(line), *_origin(line)) for line in lines)
    words = ("who here", "who there", "where it stands")
    columns = (Column("what was taught or asked", False), *map(Column, ("paper", "here", "95% interval")))
    columns += tuple(Column(word, False) for word in words)
    return Table(f"Papers' accuracies on {task} and this run's", columns, rows)


def _described(line: Line) -> str:
    """What was done, in words: `supervised: cot, 30 chains, greedy`."""
    setting, thought, decode, _ = line.place
    if setting == "chance":
        return "chance"
    asked = thought if thought != "answer" else "labels alone" if "prompted" not in setting else "answer alone"
    parts = (worded(asked), _chains(line.place.chains, line.kept), decode)
    return f"{SETTINGS.get(setting, setting)}: {', '.join(filter(None, parts))}"


def _chains(chains: Chains, kept: int | None) -> str:
    if chains is None:
        return ""
    if isinstance(chains, str):
        return {"greedy": "one greedy chain", "gold": "human steps"}[chains]
    number = f"{count(chains)} chain{'s' * (chains > 1)}"
    return number if kept is None else f"{count(kept)} of {number}"


def _published(line: Line) -> tuple[str]:
    return (ABSENT if line.published is None else f"{line.published.value}%",)


def _here(line: Line) -> tuple[str, str]:
    if line.here is None:
        return ABSENT, ABSENT
    return stated(line.here.row), interval(line.here.row.score.low, line.here.row.score.high)


def _origin(line: Line) -> tuple[str, str, str]:
    """Who is behind the accuracies, here and there, and where the paper's stands."""
    here = ABSENT
    if line.here is not None:
        learned = _chains(line.here.place.chains, line.here.kept)
        here = ", ".join(filter(None, (line.here.row.name, line.here.row.score.decode, learned)))
    if line.published is None:
        return here, ABSENT, ABSENT
    row = line.published
    return here, row.model, f"{row.paper}, {listed(row.tables)} ({row.source})"


def _apart(contents: Contents, kind: str, name: PaperName, own: Sequence[Placed]) -> str:
    """What differs between a run and a paper, from the recipe, so that nobody takes one for the other."""
    paper, benchmark = PAPERS[name], BENCHMARKS[kind]
    students = [contents.students[one] for one in dict.fromkeys(row.row.model for row in own) if contents.student(one)]
    corpora = [contents.corpora[student["corpus"]] for student in students]
    asked = [row.row.model for row in own if row.place.setting == "prompted teacher"]
    teachers = dict.fromkeys([*(teacher for corpus in corpora for teacher in corpus["teachers"]), *asked])
    learned = dict.fromkeys(_chains(row.place.chains, row.kept) for row in own)
    votes = dict.fromkeys(count(num_votes(row.row.score.decode)) for row in own if row.place.decode == "vote")
    evaluation = contents.recipe["evaluation"]
    temperature, split = evaluation["temperature"], evaluation.get("split", "test")
    trained = sum(
        _trained(contents, one) for one in dict.fromkeys(one for corpus in corpora for one in corpus["tasks"])
    )
    phrases = (
        ("the teacher is", _listed(_teacher(contents.teachers[one]) for one in teachers), paper.teacher),
        ("students are", _listed(dict.fromkeys(_student(contents, student) for student in students)), paper.student),
        ("of a problem they learn", _listed(filter(None, learned)), paper.chains),
        ("a vote is over", f"{_listed(votes)} samples at temperature {temperature:g}" if votes else "", paper.votes),
        ("training problems are", count(trained) if students else "none", benchmark.train),
        (f"{split} problems are", count(max(row.row.score.problems for row in own)), benchmark.test),
    )
    parts = [f"{what} {here}, there {there}" for what, here, there in phrases if here]
    return f"This run is no reproduction of {name} ({paper.authors}): here {'; '.join(parts)}."


def _listed(parts: Iterable[str]) -> str:
    return listed(list(parts) or ["none"])


def _teacher(teacher: Mapping[str, Any]) -> str:
    exemplars = teacher["lesson"]["exemplars"]
    shown = f"{count(exemplars)} exemplar{'s' * (exemplars != 1)}" if exemplars else "no exemplars"
    model = teacher["settings"].get("model", f"{teacher['id']}, recorded,")
    return f"{model} with {shown}, at temperature {teacher['temperature']:g}"


def _student(contents: Contents, student: Mapping[str, Any]) -> str:
    """Its base, and the size of one of its checkpoints."""
    base = call(contents.recipe["student"]).get(base_name(student), base_name(student)).removeprefix("base ")
    made = next((one for name, one in contents.stage("checkpoint").items() if contents.student(name) == student), None)
    return base if made is None else f"{base} ({count(made.stats['parameters'])} parameters)"


def _trained(contents: Contents, task: str) -> int:
    frozen = contents.stage("problems").get(task)
    return 0 if frozen is None else frozen.stats.get("train", 0)


def _removed(contents: Contents, kind: str, own: Sequence[Placed]) -> str:
    """How much the filter by gold answers took away, where a student learned what it left."""
    students = [contents.student(row.row.model) for row in own if row.place.setting == "supervised"]
    names = dict.fromkeys(student["corpus"] for student in students if student is not None)
    made = [(name, contents.stage("corpus").get(name)) for name in names if contents.corpora[name]["teachers"]]
    told = [f"{share(*_filtered(artifact))} ({name})" for name, artifact in made if artifact is not None]
    if kind not in REMOVED or not told:
        return ""
    return (
        f"The filter by gold answers took away {REMOVED[kind]}% of the teacher's chains in SCoTD (P), and here "
        f"{listed(told)} of those on training problems."
    )


def _filtered(corpus: Artifact) -> tuple[int, int]:
    """Training chains that the filter took away, of those that it saw."""
    fates = {name.removeprefix("train/"): n for name, n in corpus.stats["fates"].items() if name.startswith("train/")}
    seen = sum(number for fate, number in fates.items() if fate not in FILTERED_BEFORE)
    return seen - sum(fates.get(fate, 0) for fate in FILTERED_LATER), seen
