"""The recipe as typed data: frozen models of its parts, and the checks that its names meet.

    [[teacher]]
    id = "tiny"
    num_chains = 8

`loading` makes one of a TOML file.
"""

import difflib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

import platformdirs
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    SerializeAsAny,
    field_validator,
    model_validator,
)

from retort.asking import Lesson
from retort.combining import parse
from retort.engines import ENGINES, models
from retort.engines.interface import EngineConfig, SamplingDistribution
from retort.evaluation import EvaluationConfig, num_votes
from retort.rollouts import Rollout
from retort.sampling import Model, SamplingConfig
from retort.selection import SelectionConfig
from retort.store import check_uri
from retort.sweep.config import SweepConfig
from retort.tasks import TASKS
from retort.tasks.config import TaskConfig
from retort.thoughts import THOUGHTS
from retort.thoughts.socratic import Role
from retort.training.config import TrainingConfig
from retort.verification import VerificationConfig

GOLD_THOUGHTS = {"answer", "cot", "socratic"}
"""Thoughts that gold annotations can teach."""
ID = r"^[a-z0-9][a-z0-9_-]*$"


class RecipeModel(BaseModel):
    """A part of a recipe: frozen, and closed to keys that it does not know."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")


class Teacher(SamplingDistribution):
    """A model whose chains are learned from. The engine's own settings stand beside these in the recipe."""

    id: str = Field(pattern=ID)
    engine: str
    num_chains: int = Field(ge=1, le=10_000)
    """Chains of each problem and thought; the most of them under `until_correct`."""
    policy: Literal["fixed", "until_correct", "greedy"] = "fixed"
    """`fixed`: so many chains. `until_correct`: draw until `num_correct` are verified. `greedy`: one chain, at
    temperature 0; both may then be left out."""
    num_correct: int | None = Field(default=None, ge=1)
    """Verified chains of a problem and thought that `until_correct` stops at."""
    max_new_tokens: int = Field(ge=1)
    """Token budget of a chain."""
    lesson: Lesson = Lesson()
    """How it is asked. Its fields stand beside these in the recipe."""
    settings: SerializeAsAny[EngineConfig]
    """The engine's settings."""

    @property
    def model(self) -> Model:
        return Model(self.engine, (self.settings.pinned(),))

    @property
    def distribution(self) -> SamplingDistribution:
        return SamplingDistribution(**{name: getattr(self, name) for name in SamplingDistribution.model_fields})

    @model_validator(mode="before")
    @classmethod
    def _gather_settings(cls, fields: Any) -> Any:
        """Sort the flat fields of a recipe into ours and the engine's."""
        if not isinstance(fields, dict) or isinstance(fields.get("settings"), EngineConfig):
            return fields
        if fields.get("policy") == "greedy":
            fields = {"temperature": 0, "num_chains": 1} | fields
        name = fields.get("engine")
        if not isinstance(name, str) or name not in ENGINES:
            got = repr(name) if "engine" in fields else "is missing"
            raise ValueError(f"engine {got}: {expected(name, ENGINES)}")
        config: type[EngineConfig] = ENGINES[name].Config
        own, lesson, settings = (
            {key: fields[key] for key in fields.keys() & known}
            for known in (own_keys(cls), Lesson.model_fields.keys(), config.model_fields.keys())
        )
        for key in fields.keys() - own.keys() - lesson.keys() - settings.keys():
            known = [*own_keys(cls), *Lesson.model_fields, *config.model_fields]
            raise ValueError(f"unknown key {key!r}: {expected(key, known)}")
        return own | {"lesson": Lesson.model_validate(lesson), "settings": config.model_validate(settings)}

    @model_validator(mode="after")
    def _policy_is_whole(self) -> Self:
        """A policy has what it needs, and nothing that it does not."""
        if self.policy == "greedy" and (self.temperature, self.num_chains) != (0, 1):
            got = f"temperature = {self.temperature:g}, num_chains = {self.num_chains}"
            raise ValueError(f"policy 'greedy' with {got}; expected 0 and 1, or neither")
        if (self.policy == "until_correct") != (self.num_correct is not None):
            raise ValueError(f"num_correct = {self.num_correct} with policy {self.policy!r}; the two go together")
        if self.num_correct is not None and self.num_correct > self.num_chains:
            raise ValueError(f"num_correct = {self.num_correct} of num_chains = {self.num_chains}; expected no more")
        return self


def own_keys(teacher: type[Teacher]) -> set[str]:
    """Keys of a `[[teacher]]` that are neither its lesson's nor its engine's."""
    return teacher.model_fields.keys() - {"lesson", "settings"}


class Corpus(RecipeModel):
    """Chains to learn from: which tasks, teachers and thoughts, and the rule that picks among them."""

    id: str = Field(pattern=ID)
    tasks: tuple[str, ...] = Field(min_length=1)
    teachers: tuple[str, ...] = ()
    """Teachers whose chains enter; none for gold labels."""
    thoughts: tuple[str, ...] = Field(min_length=1)
    selection: SelectionConfig = SelectionConfig()

    @property
    def taught(self) -> tuple[str, ...]:
        """The thoughts that a student of it learns."""
        return ("answer",) if self.selection.target == "answer" else self.thoughts

    @field_validator("thoughts")
    @classmethod
    def _known_thoughts(cls, thoughts: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(thoughts)) < len(thoughts):
            raise ValueError(f"{list(thoughts)!r} names one twice; expected each once")
        for thought in thoughts:
            if thought not in THOUGHTS:
                raise ValueError(f"unknown thought {thought!r}: {expected(thought, THOUGHTS)}")
        return thoughts


class Student(RecipeModel):
    """A small model, what it learns from and how."""

    id: str = Field(pattern=ID)
    base: str
    """`shipped:student`, a directory, or a Hugging Face id."""
    revision: str | None = None
    init: Literal["pretrained", "random"] = "pretrained"
    """`random` takes the architecture and the tokenizer of `base`, and draws the weights from `training.seeds`."""
    corpus: str
    training: TrainingConfig
    rollout: Rollout = Rollout()
    """How it is asked, and as how many: with `iterative` it is trained as a pair, from one corpus."""
    tasks: tuple[str, ...] = ()
    """Tasks whose test problems it answers; empty takes `evaluation.tasks`."""
    engine: Literal["vllm", "hf"] | None = None
    """What samples it; None takes `hf` for encoder-decoder models, which vLLM does not serve, and `vllm` for others."""

    @property
    def runs(self) -> dict[str, int]:
        """Its name and seed, once for each seed."""
        seeds = self.training.seeds
        return {self.id if len(seeds) == 1 else f"{self.id}@{seed}": seed for seed in seeds}

    @property
    def roles(self) -> tuple[Role | None, ...]:
        """The checkpoints that one run of it takes; None where one does everything."""
        return self.rollout.iterative.roles if self.rollout.iterative else (None,)

    @field_validator("base")
    @classmethod
    def _exists(cls, base: str) -> str:
        models.locate(base)
        return base


def task_config(row: Any) -> TaskConfig:
    """One `[[task]]` in its own kind's model."""
    if isinstance(row, TaskConfig):
        return row
    if not isinstance(row, dict):
        raise ValueError(f"got {row!r}; expected a table [[task]]")
    if "id" not in row:
        raise ValueError(f"id is missing; expected a name of your own, or one of {', '.join(sorted(TASKS))}")
    kind = row.get("kind", row["id"])
    if not isinstance(kind, str) or kind not in TASKS:
        raise ValueError(f"unknown task {kind!r}: {expected(kind, TASKS)}; other data sets come in with kind = 'jsonl'")
    config: type[TaskConfig] = TASKS[kind].Config
    return config.model_validate(row)


class Recipe(RecipeModel):
    """One run. Stages run once for each element of the lists."""

    name: str = Field(pattern=ID)
    store: str = Field(default_factory=lambda: platformdirs.user_data_dir("retort"))
    """Where everything is kept: an absolute path, or `s3://bucket/prefix`."""
    task: tuple[Annotated[SerializeAsAny[TaskConfig], PlainValidator(task_config)], ...] = Field(min_length=1)
    teacher: tuple[Teacher, ...] = ()
    corpus: tuple[Corpus, ...] = ()
    student: tuple[Student, ...] = ()
    sampling: SamplingConfig = SamplingConfig()
    verification: VerificationConfig = VerificationConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    sweep: SweepConfig | None = None
    """What `jobs/sweep.py` tries; the other jobs leave it alone."""
    assumed: tuple[str, ...] = ()
    """Dotted names of fields that stand in for what the paper behind the recipe leaves open; the report lists them."""

    @field_validator("store")
    @classmethod
    def _opens(cls, store: str) -> str:
        check_uri(store)
        return store

    @model_validator(mode="after")
    def _names_meet(self) -> "Recipe":
        """Everything that is referred to exists."""
        tasks = [task.id for task in self.task]
        teachers = [teacher.id for teacher in self.teacher]
        corpora = [corpus.id for corpus in self.corpus]
        students = [student.id for student in self.student]
        for kind, ids in (("task", tasks), ("corpus", corpora), ("teacher or student", ["base", *teachers, *students])):
            for name in ids:
                if ids.count(name) > 1:
                    raise ValueError(f"{kind}: two have the id {name!r}; expected distinct ids")
        for corpus in self.corpus:
            _refer(f"corpus.{corpus.id}.tasks", corpus.tasks, tasks)
            _refer(f"corpus.{corpus.id}.teachers", corpus.teachers, teachers)
            for teacher in self.teacher:
                if teacher.id in corpus.teachers:
                    _check_chains(corpus, teacher)
            if not corpus.teachers and (lacking := set(corpus.thoughts) - GOLD_THOUGHTS):
                raise ValueError(f"corpus.{corpus.id}.teachers is empty: thought {min(lacking)!r} needs a teacher")
        for student in self.student:
            _refer(f"student.{student.id}.corpus", [student.corpus], corpora)
            _refer(f"student.{student.id}.tasks", student.tasks, self.evaluation.tasks)
            _check_training(student, self.find_corpus(student.corpus), self.evaluation)
            taught = self.find_corpus(student.corpus).taught
            if student.rollout.iterative and taught != ("socratic",):
                raise ValueError(
                    f"student.{student.id}.rollout.iterative: its corpus teaches {', '.join(taught)}; expected socratic"
                )
        learned = [set(self.find_corpus(student.corpus).taught) for student in self.student]
        for combiner in self.evaluation.combine:
            if not any(thoughts >= set(parse(combiner).thoughts) for thoughts in learned):
                raise ValueError(f"evaluation.combine: no student learns all thoughts of {combiner!r}")
        _refer("evaluation.tasks", self.evaluation.tasks, tasks)
        for reference, asked in self.evaluation.references.items():
            _refer("evaluation.references", [reference], [*teachers, "base"])
            _refer(f"evaluation.references.{reference}", asked, tasks)
        for name in self.assumed:
            self.value(name)
        return self

    def value(self, name: str) -> Any:
        """The value of a dotted field: `teacher.tiny.num_chains`. Raises ValueError where there is no such field."""
        place: Any = self.model_dump(mode="json")
        for part in name.split("."):
            known: dict[str, Any] = {row["id"]: row for row in place} if isinstance(place, list) else place
            known = known | known.pop("lesson", {}) | known.pop("settings", {})
            if part not in known:
                raise ValueError(f"assumed: no field {name!r}: {expected(part, known)}")
            place = known[part]
        return place

    @property
    def kinds(self) -> dict[str, str]:
        """The kind of each task."""
        return {task.id: str(task.model_dump()["kind"]) for task in self.task}

    def find_corpus(self, corpus_id: str) -> Corpus:
        return next(corpus for corpus in self.corpus if corpus.id == corpus_id)

    def teacher_decodes(self, teacher: Teacher) -> tuple[str, ...]:
        """Decodes for which a teacher has chains enough."""
        return tuple(decode for decode in self.evaluation.decodes if num_votes(decode) <= teacher.num_chains)


def _check_chains(corpus: Corpus, teacher: Teacher) -> None:
    """Raises ValueError where a corpus wants chains of a teacher that this does not draw."""
    where, wanted = f"corpus.{corpus.id}.selection", corpus.selection
    if wanted.num_chains is not None and wanted.num_chains > teacher.num_chains:
        raise ValueError(
            f"{where}.num_chains = {wanted.num_chains}, teacher {teacher.id} has num_chains = {teacher.num_chains}; "
            f"expected no more, or raise that"
        )
    if teacher.num_correct and wanted.rule != "correct":
        raise ValueError(
            f"{where}.rule: {wanted.rule!r} needs the same chains of every problem, teacher {teacher.id} stops at "
            f"{teacher.num_correct} correct ones; expected 'correct'"
        )
    if teacher.num_correct and wanted.needs_equal_chains:
        raise ValueError(
            f"{where}.{wanted.needs_equal_chains[0]} needs the same number of chains of every problem, teacher "
            f"{teacher.id} stops at {teacher.num_correct} correct ones; leave it, or policy = 'fixed'"
        )


def _check_training(student: Student, corpus: Corpus, evaluation: EvaluationConfig) -> None:
    """Raises ValueError where a training wants what its corpus has not, or would report what chose its checkpoint."""
    where, training = f"student.{student.id}.training", student.training
    if training.curriculum_steps and not corpus.teachers:
        raise ValueError(
            f"{where}.curriculum_steps = {training.curriculum_steps}: gold labels do not tell how hard problems are; "
            f"expected a corpus with teachers, or 0"
        )
    if training.choose_by == "dev_loss":
        return
    if student.rollout.iterative:
        raise ValueError(
            f"{where}.choose_by = 'dev_accuracy': a pair is trained one by one, answers together; expected 'dev_loss'"
        )
    if evaluation.split == "dev":
        raise ValueError(
            f"{where}.choose_by = 'dev_accuracy' with evaluation.split = 'dev': the problems that choose the checkpoint"
            f" would be those that it is reported on; expected choose_by = 'dev_loss', or split = 'test'"
        )


def _refer(where: str, names: Sequence[str], known: Sequence[str]) -> None:
    if len(set(names)) < len(names):
        raise ValueError(f"{where}: {list(names)!r} names one twice; expected each once")
    for name in names:
        if name not in known:
            raise ValueError(f"{where}: no such id {name!r}: {expected(name, known)}")


def expected(got: Any, known: Mapping[str, Any] | Sequence[str]) -> str:
    """What would have been right, nearest first."""
    nearest = difflib.get_close_matches(str(got), list(known), n=1)
    suggestion = f"did you mean {nearest[0]!r}? " if nearest else ""
    return f"{suggestion}expected one of {', '.join(sorted(known))}" if known else "there is none"
