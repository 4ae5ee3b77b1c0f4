"""A run's accuracies in the papers' terms: what each student learned from and how it answered, as `published` has it.

student `label-free`, greedy  →  Place("label-free", "cot", "greedy", 8)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from retort.evaluation import num_votes
from retort.report.contents import Contents, Measured
from retort.report.published import BENCHMARKS, Chains, Decode, Place, Setting
from retort.report.recipes import is_combiner, taught


@dataclass(frozen=True)
class Placed:
    """A model's score and its place. Of the chains of a problem that were sampled a corpus may take `kept` at most."""

    row: Measured
    place: Place
    kept: int | None = None
    is_pair: bool = False

    @property
    def budget(self) -> int:
        """The most chains of a problem, and of a thought, that were learned from; none where they were not sampled."""
        sampled = self.place.chains if isinstance(self.place.chains, int) else 0
        return sampled if self.kept is None else self.kept


def kind_of(task: Mapping[str, Any]) -> str:
    """The kind of a task, as `published` names it: of the contrast sets, which part."""
    return f"{task['kind']}:{task['part']}" if "part" in task else task["kind"]


def setting_of(rule: str) -> Setting:
    """The papers' word for a rule of selection: only `correct` looks at gold answers."""
    return "supervised" if rule == "correct" else "label-free"


def placed(contents: Contents, task: str) -> list[Placed]:
    """The scores on a task that have a place, in the order of the page."""
    rows = [row for row in contents.scores if row.score.task == task and row.score.problems]
    return [made for row in rows if (made := _place(contents, row)) is not None]


def is_taught(contents: Contents, kind: str, found: Placed) -> bool:
    """Whether a model stands beside the papers': of students, one that was taught the task, as theirs were."""
    student = contents.student(found.row.model)
    if student is None or BENCHMARKS[kind].is_transfer:
        return True
    return found.row.score.task in contents.corpora[student["corpus"]]["tasks"]


def _place(contents: Contents, row: Measured) -> Placed | None:
    """None for what no paper has: one thought of a student of several, and a vote of one."""
    decode = row.score.decode
    if decode != "greedy" and num_votes(decode) == 1:
        return None
    how: Decode = "greedy" if decode == "greedy" else "vote"
    thought = row.score.thought
    student = contents.student(row.model)
    if student is None:
        asked: Setting = "prompted teacher" if row.role == "teacher" else "prompted student"
        return Placed(row, Place(asked, thought, how))
    corpus = contents.corpora[student["corpus"]]
    if len(taught(corpus)) > 1 and not is_combiner(thought):
        return None
    chains = learned(contents, corpus)
    kept = corpus["selection"]["chains_per_problem"]
    is_less = isinstance(chains, int) and kept is not None and kept < chains
    setting = setting_of(corpus["selection"]["rule"]) if corpus["teachers"] else "supervised"
    is_pair = student["rollout"]["iterative"] is not None
    return Placed(row, Place(setting, thought, how, chains), kept if is_less else None, is_pair)


def learned(contents: Contents, corpus: Mapping[str, Any]) -> Chains:
    """Chains of a problem and thought that a corpus looks at, of all its teachers; None of labels, which have none."""
    teachers: Sequence[Mapping[str, Any]] = [contents.teachers[name] for name in corpus["teachers"]]
    if not teachers:
        return None if taught(corpus) == ["answer"] else "gold"
    if taught(corpus) == ["answer"] and setting_of(corpus["selection"]["rule"]) == "label-free":
        return None
    wanted = corpus["selection"].get("num_chains")  # earlier releases had none
    sampled = sum(wanted or teacher["num_chains"] for teacher in teachers)
    return "greedy" if sampled == 1 and teachers[0]["temperature"] == 0 else sampled
