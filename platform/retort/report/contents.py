"""A run as the report sees it: the artifacts that its index names, opened, and what its recipe says of their makers.

In: the index artifact (`manifest["config"]` is the recipe, `manifest["inputs"]` the prefixes by stage and name).
A student that was trained from several seeds stands under its own name with its first seed's figures and the mean over
all; `student@seed` is one of its runs, `student@seed/ask` a checkpoint of such a run.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

from retort.combining import parse
from retort.evaluation import Score
from retort.report.recipes import base_name, call, is_bound, is_combiner, run_names, spaced, taught
from retort.store import Store, address
from retort.store.artifacts import Artifact, open_artifact

Role = Literal["teacher", "base", "chains", "labels"]
"""What a model is in a run: a teacher, a student before training, or one taught by chains or by labels alone."""

ROLE_WORDS: dict[Role, str] = {
    "teacher": "teacher",
    "base": "before training",
    "labels": "student of labels",
    "chains": "student of chains",
}
PLAN_WORDS = {"test-greedy": "test, greedy", "test-maj": "test, votes", "test-dev": "dev, for weights"}


@dataclass(frozen=True)
class Sampling:
    """One plan of one model: what sampling did for it, and the verdicts on its chains."""

    model: str
    plan: str
    sampled: Artifact | None
    verdicts: Artifact | None

    @property
    def wording(self) -> str:
        """The plan's name as a reader would put it."""
        return PLAN_WORDS.get(self.plan, f"train + dev, {self.plan}")


@dataclass(frozen=True)
class Spread:
    """An accuracy over the seeds of a student: `sd` is the sample standard deviation."""

    mean: float
    sd: float
    seeds: int


class Key(NamedTuple):
    """What was measured: a model on a task, under a thought or combiner and a decode."""

    model: str
    task: str
    thought: str
    decode: str


@dataclass(frozen=True)
class Measured:
    """A score and whose it is. Of a student with several seeds: the score of the first, and the spread over all.

    `is_one_of_several` tells whether its model is measured under other thoughts, or combiners, too.
    """

    model: str
    role: Role
    score: Score
    spread: Spread | None = None
    is_one_of_several: bool = False

    @property
    def key(self) -> Key:
        """By which pairs of students are found."""
        return Key(self.model, self.score.task, self.score.thought, self.score.decode)

    @property
    def name(self) -> str:
        """The model, and the thought where that is needed to know what was measured."""
        return f"{self.model} · {spaced(self.score.thought)}" if self.is_one_of_several else self.model

    @property
    def value(self) -> float:
        """The accuracy that stands for the model: the mean where there are several seeds."""
        return self.score.accuracy if self.spread is None else self.spread.mean


@dataclass(frozen=True)
class Contents:
    """An index with its artifacts by stage and name, in the order in which the run made them."""

    run: Artifact
    artifacts: dict[str, dict[str, Artifact]]

    @property
    def recipe(self) -> dict[str, Any]:
        return self.run.manifest["config"]

    def stage(self, name: str) -> dict[str, Artifact]:
        """The artifacts of a stage by name; none where the run has not come so far."""
        return self.artifacts.get(name, {})

    def student(self, name: str) -> dict[str, Any] | None:
        """The student that a name is, or a run or a checkpoint of; None for other models."""
        return self.runs.get(name.split("/")[0]) or self.students.get(name)

    def role(self, model: str) -> Role:
        """A student may bear a teacher's id; it is the student then, whose results the index kept last."""
        student = self.student(model)
        if student is not None:
            return "labels" if taught(self.corpora[student["corpus"]]) == ["answer"] else "chains"
        return "teacher" if model in self.teachers else "base"

    def engine(self, model: str) -> str:
        """The engine that sampled a model: of students the one that their recipe names, or that serves their kind."""
        if self.role(model) == "teacher":
            return self.teachers[model]["engine"]
        student = self.student(model) or next(iter(self.students_of(model)))
        if student["engine"] is not None:
            return student["engine"]
        checkpoints = (made for name, made in self.stage("checkpoint").items() if self.student(name) == student)
        architecture = next((json.loads(made.read("config.json")) for made in checkpoints), {})
        return "hf" if architecture.get("is_encoder_decoder") else "vllm"

    def students_of(self, base: str) -> list[dict[str, Any]]:
        """The students that start from a base, by the name that the page gives it."""
        students = self.recipe["student"]
        called = call(students)
        return [student for student in students if called.get(base_name(student), base_name(student)) == base]

    def thoughts(self, model: str) -> list[str]:
        """What a model is measured under, in the recipe's order: the thoughts that it was asked, then combiners."""
        if self.role(model) == "teacher":
            corpora = [corpus for corpus in self.recipe["corpus"] if model in corpus["teachers"]]
            asked = [thought for corpus in corpora for thought in corpus["thoughts"]] or ["cot"]
        else:
            student = self.student(model)
            students = self.students_of(model) if student is None else [student]
            asked = [thought for one in students for thought in taught(self.corpora[one["corpus"]])]
        asked = list(dict.fromkeys(asked))
        combiners = [parse(text) for text in self.recipe["evaluation"]["combine"]]
        return [*asked, *(combiner.text for combiner in combiners if set(combiner.thoughts) <= set(asked))]

    def voices(self, model: str) -> list[str]:
        """What may speak for a model beside others, the first that was measured: the recipe's combiners, then thoughts.

        The recipe's order decides, not the scores: the best of several on the test problems would be flattered. A bound
        that is told the gold answers speaks for none.
        """
        thoughts = self.thoughts(model)
        combiners = [thought for thought in thoughts if is_combiner(thought) and not is_bound(thought)]
        return [*combiners, *(thought for thought in thoughts if not is_combiner(thought))]

    @cached_property
    def teachers(self) -> dict[str, dict[str, Any]]:
        return {teacher["id"]: teacher for teacher in self.recipe["teacher"]}

    @cached_property
    def students(self) -> dict[str, dict[str, Any]]:
        return {student["id"]: student for student in self.recipe["student"]}

    @cached_property
    def runs(self) -> dict[str, dict[str, Any]]:
        """Students by the names of their runs, one a seed."""
        return {name: student for student in self.recipe["student"] for name in run_names(student)}

    @cached_property
    def later_runs(self) -> set[str]:
        """Runs of students that are not of their first seed."""
        return {name for student in self.recipe["student"] for name in run_names(student)[1:]}

    @cached_property
    def corpora(self) -> dict[str, dict[str, Any]]:
        return {corpus["id"]: corpus for corpus in self.recipe["corpus"]}

    @cached_property
    def samplings(self) -> list[Sampling]:
        """Every plan of every model, as the index names them: `model/plan`, where a model's name may hold a slash."""
        sampled, verdicts = self.stage("sampling"), self.stage("verdicts")
        names = [*sampled, *(name for name in verdicts if name not in sampled)]
        found: list[Sampling] = []
        for name in names:
            model, plan = name.rsplit("/", 1)
            found.append(Sampling(model, plan, sampled.get(name), verdicts.get(name)))
        return found

    @cached_property
    def scores(self) -> list[Measured]:
        """Every score of every model: teachers, then bases, then students, each in the order of the run."""
        order: list[Role] = ["teacher", "base", "labels", "chains"]
        return sorted(self._scores(), key=lambda measured: order.index(measured.role))

    def _scores(self) -> Iterator[Measured]:
        spreads = {
            Key(row["student"], row["task"], row["thought"], row["decode"]): Spread(
                row["mean"], row["sd"], row["seeds"]
            )
            for row in self.compared("seeds.jsonl")
            if row["sd"] is not None
        }
        for name, artifact in self.stage("evaluation").items():
            if name in self.later_runs:
                continue
            student = self.student(name)
            model = name if student is None else student["id"]
            scores = [Score(**row) for row in artifact.lines("scores.jsonl")]
            is_one_of_several = len({score.thought for score in scores}) > 1
            for score in scores:
                spread = spreads.get(Key(model, score.task, score.thought, score.decode))
                yield Measured(model, self.role(name), score, spread, is_one_of_several)

    def compared(self, file: str) -> list[dict[str, Any]]:
        """Rows of the comparison of students; none where there is none."""
        return [row for artifact in self.stage("comparison").values() for row in artifact.lines(file)]

    def first_run(self, model: str) -> str:
        """The name under which stages keep what a model made: of a student that of its first seed."""
        return run_names(self.students[model])[0] if model in self.students else model


def open_run(store: Store, run: Artifact) -> Contents:
    """Open everything that an index names.

    Raises:
        ValueError: an artifact is not there.
    """
    artifacts: dict[str, dict[str, Artifact]] = {}
    called = call(run.manifest["config"]["student"])
    for stage, prefixes in run.manifest["inputs"].items():
        for name, prefix in prefixes.items():
            artifact = open_artifact(store, prefix)
            if artifact is None:
                raise ValueError(
                    f"run {run.id}: {stage} {name!r} is not at {address(store, prefix)}; expected a finished artifact. "
                    f"Start the recipe again, which makes it anew"
                )
            model, slash, plan = name.rpartition("/") if stage in ("sampling", "verdicts") else (name, "", "")
            artifacts.setdefault(stage, {})[f"{called.get(model, model)}{slash}{plan}"] = artifact
    return Contents(run, artifacts)
