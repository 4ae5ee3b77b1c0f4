"""The recipe: one TOML file, dotted overrides, frozen pydantic models; wrong input is refused in one line.

    [[teacher]]
    id = "tiny"
    num_chains = 8

Elements of lists are named in overrides by id: `teacher.tiny.num_chains=16`.
"""

import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

import platformdirs
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    SerializeAsAny,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from retort.engines import ENGINES, models
from retort.engines.interface import EngineConfig, SamplingDistribution
from retort.evaluation import EvaluationConfig, num_votes
from retort.sampling import Model, SamplingConfig
from retort.selection import SelectionConfig
from retort.store import open_store
from retort.tasks import TASKS
from retort.tasks.config import TaskConfig
from retort.thoughts import THOUGHTS
from retort.training.config import TrainingConfig
from retort.verification import VerificationConfig

ID = r"^[a-z0-9][a-z0-9_-]*$"
WANTED = {
    "bool": "true or false",
    "dict": "a table",
    "float": "a number",
    "int": "an integer",
    "model": "a table",
    "string": "a text",
    "string_pattern_mismatch": "lower-case letters, digits, '-' and '_', of which the first is a letter or a digit",
    "too_short": "a list of at least {min_length}",
    "tuple": "a list",
}
"""Pydantic's kinds of error, or their first words, as what a recipe should have held."""


class RecipeModel(BaseModel):
    """A part of a recipe: frozen, and closed to keys that it does not know."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")


class Teacher(SamplingDistribution):
    """A model whose chains are learned from. The engine's own settings stand beside these in the recipe."""

    id: str = Field(pattern=ID)
    engine: str
    num_chains: int = Field(ge=1, le=10_000)
    """Chains of each problem and thought."""
    max_new_tokens: int = Field(ge=1)
    """Token budget of a chain."""
    chat: bool = False
    """Ask through the model's chat template."""
    settings: SerializeAsAny[EngineConfig]
    """The engine's settings."""

    @property
    def model(self) -> Model:
        return Model(self.engine, self.settings.pinned())

    @property
    def distribution(self) -> SamplingDistribution:
        return SamplingDistribution(**{name: getattr(self, name) for name in SamplingDistribution.model_fields})

    @model_validator(mode="before")
    @classmethod
    def _gather_settings(cls, fields: Any) -> Any:
        """Sort the flat fields of a recipe into ours and the engine's."""
        if not isinstance(fields, dict) or isinstance(fields.get("settings"), EngineConfig):
            return fields
        name = fields.get("engine")
        if not isinstance(name, str) or name not in ENGINES:
            got = repr(name) if "engine" in fields else "is missing"
            raise ValueError(f"engine {got}: {expected(name, ENGINES)}")
        own_keys = cls.model_fields.keys() - {"settings"}
        rest = {key: value for key, value in fields.items() if key not in own_keys}
        config: type[EngineConfig] = ENGINES[name].Config
        for key in rest:
            if key not in config.model_fields:
                raise ValueError(f"unknown key {key!r}: {expected(key, [*own_keys, *config.model_fields])}")
        return {key: fields[key] for key in fields.keys() & own_keys} | {"settings": config.model_validate(rest)}


class Corpus(RecipeModel):
    """Chains to learn from: which tasks, teachers and thoughts, and the rule that picks among them."""

    id: str = Field(pattern=ID)
    tasks: tuple[str, ...] = Field(min_length=1)
    teachers: tuple[str, ...] = ()
    """Teachers whose chains enter; none for gold labels."""
    thoughts: tuple[str, ...] = Field(min_length=1)
    selection: SelectionConfig = SelectionConfig()

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
    """`random` takes the architecture and the tokenizer of `base`, and draws the weights from `training.seed`."""
    corpus: str
    training: TrainingConfig

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
    """Where everything is kept: an absolute path."""
    task: tuple[Annotated[SerializeAsAny[TaskConfig], PlainValidator(task_config)], ...] = Field(min_length=1)
    teacher: tuple[Teacher, ...] = ()
    corpus: tuple[Corpus, ...] = ()
    student: tuple[Student, ...] = ()
    sampling: SamplingConfig = SamplingConfig()
    verification: VerificationConfig = VerificationConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @field_validator("store")
    @classmethod
    def _opens(cls, store: str) -> str:
        open_store(store)
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
            if not corpus.teachers and (taught := [thought for thought in corpus.thoughts if thought != "answer"]):
                raise ValueError(f"corpus.{corpus.id}.teachers is empty: thought {taught[0]!r} needs a teacher")
        for student in self.student:
            _refer(f"student.{student.id}.corpus", [student.corpus], corpora)
        _refer("evaluation.tasks", self.evaluation.tasks, tasks)
        for reference, asked in self.evaluation.references.items():
            _refer("evaluation.references", [reference], [*teachers, "base"])
            _refer(f"evaluation.references.{reference}", asked, tasks)
        return self

    def find_corpus(self, corpus_id: str) -> Corpus:
        return next(corpus for corpus in self.corpus if corpus.id == corpus_id)

    def teacher_decodes(self, teacher: Teacher) -> tuple[str, ...]:
        """Decodes for which a teacher has chains enough."""
        return tuple(decode for decode in self.evaluation.decodes if num_votes(decode) <= teacher.num_chains)


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


def load(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of a file with overrides applied.

    Raises:
        ValueError: one line that names the key, what it got, and what is allowed.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        near = difflib.get_close_matches(Path(path).name, [file.name for file in Path(path).parent.glob("*.toml")], n=1)
        hint = f"did you mean {near[0]!r}?" if near else "expected a TOML file"
        raise ValueError(f"recipe {str(path)!r} cannot be read ({type(error).__name__}): {hint}") from error
    try:
        fields = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"recipe {str(path)!r} is not TOML: {error}") from error
    for override in overrides:
        _override(fields, override)
    try:
        return Recipe.model_validate(fields)
    except ValidationError as error:
        line = " ".join(_one_line(error, fields).splitlines())  # TOML keys may hold line ends
        raise ValueError(f"recipe {str(path)!r}: {line}") from error


def _override(fields: dict[str, Any], override: str) -> None:
    """Set one dotted key, in place: `teacher.tiny.num_chains=16`, `evaluation.decodes=["greedy"]`, `store=/data`."""
    dotted, separator, text = override.partition("=")
    if not separator or not all(dotted.split(".")):
        raise ValueError(f"override {override!r}: expected KEY=VALUE, as in teacher.tiny.num_chains=16")
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        parsed = {}
    value = parsed["value"] if parsed.keys() == {"value"} else text  # a bare word is a string
    place: Any = fields
    *parents, last = dotted.split(".")
    for parent in parents:
        if isinstance(place, list):
            elements = {
                str(element["id"]): element for element in place if isinstance(element, dict) and "id" in element
            }
            if parent not in elements:
                raise ValueError(f"override {override!r}: no element {parent!r}: {expected(parent, elements)}")
            place = elements[parent]
        else:
            place = place.setdefault(parent, {})
        if not isinstance(place, dict | list):
            raise ValueError(f"override {override!r}: {parent!r} is a value; expected a table or a list of tables")
    if isinstance(place, list):
        raise ValueError(f"override {override!r}: expected an element's id and key, as in teacher.tiny.num_chains=16")
    place[last] = value


def _one_line(error: ValidationError, fields: dict[str, Any]) -> str:
    """The most telling of pydantic's findings as: key, what it got, what is allowed, the nearest name."""
    findings = error.errors(include_url=False)
    # Where a name is misspelt another one is missing: the first says more.
    finding = next((finding for finding in findings if finding["type"] == "extra_forbidden"), findings[0])
    *parents, name = finding["loc"] or ("",)
    key = _dotted(finding["loc"], fields)
    match finding["type"]:
        case "extra_forbidden":
            return f"{key}: unknown key; {expected(name, _fields_at(parents, fields))}"
        case "missing":
            return f"{key}: missing; expected {_description(_fields_at(parents, fields)[str(name)])}"
        case "value_error":
            return ": ".join(filter(None, [key, finding["msg"].removeprefix("Value error, ")]))
        case _:
            got = repr(finding["input"])
            return f"{key} = {got if len(got) < 80 else got[:77] + '…'}: {_wanted(finding)}"


def _wanted(finding: ErrorDetails) -> str:
    """What would have been right, in the words of a recipe."""
    if finding["type"] == "literal_error":
        return expected(finding["input"], re.findall(r"'([^']*)'", finding["ctx"]["expected"]))  # type: ignore[typeddict-item]
    kind = finding["type"]
    wanted = WANTED.get(kind) or WANTED.get(kind.split("_")[0]) or finding["msg"].removeprefix("Input should be ")
    return f"expected {wanted.format(**finding.get('ctx', {}))}"


def _description(field: FieldInfo) -> str:
    """What a field takes, found out by giving it something that no field takes."""
    try:
        TypeAdapter[Any](field.annotation).validate_python(object())  # type: ignore[arg-type]
    except ValidationError as error:
        return _wanted(error.errors()[0]).removeprefix("expected ")
    return "a value"


def _dotted(location: tuple[int | str, ...], fields: Any) -> str:
    """A location with list positions replaced by ids."""
    parts: list[str] = []
    for part in location:
        if isinstance(part, int):
            element = fields[part] if isinstance(fields, list) and part < len(fields) else None
            parts.append(str(element.get("id", part)) if isinstance(element, dict) else str(part))
            fields = element
        elif part not in ("settings", "[key]"):
            parts.append(part)
            fields = fields.get(part) if isinstance(fields, dict) else None
    return ".".join(parts)


def _fields_at(location: Sequence[int | str], fields: dict[str, Any]) -> dict[str, FieldInfo]:
    """The keys that are allowed at a location."""
    known: dict[str, FieldInfo] = Recipe.model_fields
    match location:
        case ["task", int(number), *location]:
            row = fields["task"][number]
            known = TASKS[row.get("kind", row["id"])].Config.model_fields
        case ["teacher", int(number), *location]:
            known = Teacher.model_fields | ENGINES[fields["teacher"][number]["engine"]].Config.model_fields
        case _:
            pass
    for part in location:
        if isinstance(part, str):
            annotation = known[part].annotation
            kinds = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type)]
            known = next(kind.model_fields for kind in kinds if issubclass(kind, BaseModel))
    return known
