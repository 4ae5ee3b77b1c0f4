"""A run as the report sees it: the artifacts that its index names, opened, and what its recipe says of their makers.

In: the index artifact (`manifest["config"]` is the recipe, `manifest["inputs"]` the prefixes by stage and name).
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from retort.evaluation import Score
from retort.store import Store
from retort.store.artifacts import Artifact, open_artifact

Role = Literal["teacher", "base", "chains", "labels"]
"""What a model is in a run: a teacher, a student before training, or one taught by chains or by gold labels alone."""

ROLE_WORDS: dict[Role, str] = {
    "teacher": "teacher",
    "base": "before training",
    "labels": "student of labels",
    "chains": "student of chains",
}


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
        named = {"test-greedy": "test, greedy", "test-maj": "test, votes"}
        return named.get(self.plan, f"train + dev, {self.plan}")


@dataclass(frozen=True)
class Measured:
    """A score and whose it is."""

    model: str
    role: Role
    score: Score


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

    def role(self, model: str) -> Role:
        """A student may bear a teacher's id; it is the student then, whose results the index kept last."""
        if model in self.students:
            return "chains" if self.corpora[self.students[model]["corpus"]]["teachers"] else "labels"
        return "teacher" if model in self.teachers else "base"

    def engine(self, model: str) -> str:
        """The engine that sampled a model; every student is served by vLLM."""
        return self.teachers[model]["engine"] if self.role(model) == "teacher" else "vllm"

    @cached_property
    def teachers(self) -> dict[str, dict[str, Any]]:
        return {teacher["id"]: teacher for teacher in self.recipe["teacher"]}

    @cached_property
    def students(self) -> dict[str, dict[str, Any]]:
        return {student["id"]: student for student in self.recipe["student"]}

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
        found = [
            Measured(model, self.role(model), Score(**row))
            for model, artifact in self.stage("evaluation").items()
            for row in artifact.lines("scores.jsonl")
        ]
        return sorted(found, key=lambda measured: order.index(measured.role))


def open_run(store: Store, run: Artifact) -> Contents:
    """Open everything that an index names.

    Raises:
        ValueError: an artifact is not there.
    """
    artifacts: dict[str, dict[str, Artifact]] = {}
    called = call({student["base"] for student in run.manifest["config"]["student"]})
    for stage, prefixes in run.manifest["inputs"].items():
        for name, prefix in prefixes.items():
            artifact = open_artifact(store, prefix)
            if artifact is None:
                raise ValueError(
                    f"run {run.id}: {stage} {name!r} is not at {store.uri}/{prefix}; expected a finished artifact. "
                    f"Start the recipe again, which makes it anew"
                )
            model, slash, plan = name.rpartition("/") if stage in ("sampling", "verdicts") else (name, "", "")
            artifacts.setdefault(stage, {})[f"{called.get(model, model)}{slash}{plan}"] = artifact
    return Contents(run, artifacts)


def call(bases: Collection[str]) -> dict[str, str]:
    """What to call the bases that lie in directories: by the last part of the path, where it tells them apart.

    >>> call({"/models/small", "org/tiny"})
    {'base /models/small': 'base small'}
    """
    short = {base: base.rstrip("/").rsplit("/", 1)[-1] for base in bases if base.startswith(("/", ".", "~"))}
    names = [*short.values(), *(base for base in bases if base not in short)]
    return {f"base {base}": f"base {name}" for base, name in sorted(short.items()) if names.count(name) == 1}
