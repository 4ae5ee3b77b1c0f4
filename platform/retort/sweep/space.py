"""From a recipe and the values of its swept fields to the recipe of one trial, and all points of a finite space."""

import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from retort.combining import parse
from retort.config import Corpus, Recipe, Student, expected
from retort.loading import one_line
from retort.store.hashing import digest
from retort.sweep.config import Choices, Range, Space, SweepConfig
from retort.training.config import MACHINERY

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Params = dict[str, Any]
"""Dotted fields and their values: one point of a space."""
SEED = "training.seed"
OF_CORPUS = ("selection", "tasks", "teachers", "thoughts")
OF_STUDENT = ("base", "engine", "init", "revision", "rollout")
NEVER = {
    "seeds": "expected training.seed, which is one of them",
    **dict.fromkeys(sorted(MACHINERY), "makes no difference to a student; set it in the recipe"),
}
"""Fields of `training` that are no part of what a sweep compares, and why."""
STEP_SLACK = 1e-6
"""Share of a step by which a number may miss its place, as 0.1 is none in binary."""
TRIES = 1000
"""Draws of a random search, for each trial, that may hit a point that was drawn before."""


def swept(recipe: Recipe) -> SweepConfig:
    """The sweep of a recipe. Raises ValueError where it has none, or it names a student that there is not."""
    if recipe.sweep is None:
        raise ValueError(f"recipe {recipe.name!r} has no [sweep] table; expected one with student and space")
    students = [student.id for student in recipe.student]
    if recipe.sweep.student not in students:
        raise ValueError(
            f"sweep.student: no such id {recipe.sweep.student!r}: {expected(recipe.sweep.student, students)}"
        )
    return recipe.sweep


def student_of(recipe: Recipe) -> Student:
    """The student that is swept."""
    name = swept(recipe).student
    return next(student for student in recipe.student if student.id == name)


def trial_recipe(recipe: Recipe, params: Mapping[str, Any]) -> Recipe:
    """The recipe of one trial: the swept student and its corpus with some fields replaced, and nothing else.

    Its teachers have as many chains as its corpus looks at: more of them make it no other trial.

    Raises:
        ValueError: in one line, a field that there is not, or a value that it does not take.
    """
    student, corpus = _with(recipe, params)
    taught = {"answer"} if corpus["selection"]["target"] == "answer" else set(corpus["thoughts"])
    combined = tuple(each for each in recipe.evaluation.combine if set(parse(each).thoughts) <= taught)
    changes = {"references": {}, "split": swept(recipe).split, "combine": combined}
    fields: dict[str, Any] = {
        "name": recipe.name,
        "store": recipe.store,
        "task": recipe.task,
        "teacher": recipe.teacher,
        "corpus": [corpus],
        "student": [student],
        "sampling": recipe.sampling,
        "verification": recipe.verification,
        "evaluation": recipe.evaluation.model_copy(update=changes),
    }
    try:
        made = Recipe.model_validate(fields)
    except ValidationError as error:
        raise ValueError(f"sweep.space: {' '.join(one_line(error, fields).split())}") from error
    for name, value in params.items():
        if (read := own(made, made.student[0], name)) != value or isinstance(read, bool) != isinstance(value, bool):
            raise ValueError(f"sweep.space: {name} = {value!r}, which reads as {read!r}; expected that")
    return narrow(made)


def own(recipe: Recipe, student: Student, name: str) -> Any:
    """What a student, or its corpus, has at a swept field, as JSON has it."""
    corpus = recipe.find_corpus(student.corpus)
    if name == SEED:
        return student.training.seeds[0]
    first, *path = name.split(".")
    owner = {"training": student.training, "student": student}.get(first)
    found: Any = (owner or corpus).model_dump(mode="json")
    for part in path if owner else [first, *path]:
        found = found[part]
    return found


def narrow(recipe: Recipe) -> Recipe:
    """A recipe of one corpus with the teachers and the tasks that it needs, and no more chains than it looks at."""
    (corpus,) = recipe.corpus
    most = corpus.selection.num_chains
    teachers = tuple(
        teacher if most is None else teacher.model_copy(update={"num_chains": min(most, teacher.num_chains)})
        for teacher in recipe.teacher
        if teacher.id in corpus.teachers
    )
    needed = {*corpus.tasks, *recipe.evaluation.tasks, *(name for each in recipe.student for name in each.tasks)}
    tasks = tuple(task for task in recipe.task if task.id in needed)
    return recipe.model_copy(update={"teacher": teachers, "task": tasks})


def _with(recipe: Recipe, params: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The swept student and its corpus as a recipe's tables, with `params` in their places."""
    before = student_of(recipe)
    student = before.model_dump(mode="json")
    corpus = recipe.find_corpus(before.corpus).model_dump(mode="json")
    for name, value in params.items():
        first, *rest = name.split(".")
        if first == "training" and len(rest) == 1 and rest[0] not in NEVER:
            place, key = student["training"], rest[0]
            key, value = ("seeds", [value]) if key == "seed" else (key, value)
        elif first == "student" and rest and rest[0] in OF_STUDENT:
            place, key = _place(student, rest, name)
        elif first in OF_CORPUS and name != "selection":
            place, key = _place(corpus, [first, *rest], name)
        else:
            raise ValueError(f"sweep.space: {name}: {_known(name)}")
        place[key] = value
    return student, corpus


def _place(table: dict[str, Any], path: Sequence[str], name: str) -> tuple[dict[str, Any], str]:
    *parents, key = path
    for parent in parents:
        inner = table.get(parent)
        if not isinstance(inner, dict):
            raise ValueError(f"sweep.space: {name}: {parent} has no fields; expected a field of the recipe")
        table = inner
    return table, key


def _known(name: str) -> str:
    """What a swept field may be called."""
    last = name.rsplit(".", 1)[-1]
    if last in NEVER:
        return NEVER[last]
    if name == "selection":
        return "is a table; expected its fields, such as selection.rule"
    known = [f"{part}.…" if part == "selection" else part for part in OF_CORPUS]
    known += ["training.…", *(f"student.{field}" for field in OF_STUDENT)]
    return f"no field of the swept student or of its corpus; {expected(name, known)}"


def grid(tables: Iterable[Space]) -> list[Params]:
    """Every combination of choices of each table, in order; a combination of several tables once."""
    found: dict[str, Params] = {}
    for table in tables:
        choices = [values for values in table.values() if not isinstance(values, Range)]
        assert len(choices) == len(table), "a grid has no ranges"
        for values in itertools.product(*choices):
            params = dict(zip(table, values, strict=True))
            found.setdefault(digest(params), params)
    return list(found.values())


def num_points(table: Space) -> float:
    """How many points a table has; infinity where a range is continuous."""
    counts: list[float] = []
    for values in table.values():
        if not isinstance(values, Range):
            counts.append(len(values))
        elif values.step is not None or values.is_whole:
            counts.append(math.floor((values.high - values.low) / (values.step or 1) + STEP_SLACK) + 1)
        else:
            return math.inf
    return math.prod(counts)


def drawn(table: Space, trials: int, seed: int) -> list[Params]:
    """The first `trials` distinct points of a seeded random search: fewer of them are the first of more."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    found: dict[str, Params] = {}
    for _ in range(trials * TRIES):
        params = decoded(study.ask(distributions(table)).params)
        found.setdefault(digest(params), params)
        if len(found) == trials:
            break
    return list(found.values())


def distributions(table: Space) -> "dict[str, BaseDistribution]":
    """A table as Optuna knows it. Choices that are no plain values stand as their JSON."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    made: dict[str, BaseDistribution] = {}
    for name, values in table.items():
        if not isinstance(values, Range):
            made[name] = CategoricalDistribution([encoded(choice) for choice in values])
        elif values.is_whole:
            made[name] = IntDistribution(int(values.low), int(values.high), values.log, int(values.step or 1))
        else:
            made[name] = FloatDistribution(values.low, values.high, log=values.log, step=values.step)
    return made


def encoded(choice: Any) -> Any:
    """A choice as Optuna takes it."""
    return choice if isinstance(choice, bool | int | float) or choice is None else json.dumps(choice)


def decoded(params: Mapping[str, Any]) -> Params:
    """Optuna's values as a recipe's."""
    return {name: json.loads(value) if isinstance(value, str) else value for name, value in params.items()}


def ends(values: Choices | Range) -> list[Any]:
    """Choices, or the ends of a range."""
    return [values.low, values.high] if isinstance(values, Range) else list(values)


def contains(table: Space, params: Mapping[str, Any]) -> bool:
    """Whether a point lies in a table."""
    return params.keys() == table.keys() and all(_holds(table[name], value) for name, value in params.items())


def _holds(values: Choices | Range, value: Any) -> bool:
    if not isinstance(values, Range):
        return value in values
    is_within = isinstance(value, int | float) and values.low <= value <= values.high
    step = values.step or (1 if values.is_whole else None)
    steps = 0.0 if step is None or not is_within else (value - values.low) / step
    return is_within and abs(steps - round(steps)) <= STEP_SLACK


def corpora(recipe: Recipe) -> list[Corpus]:
    """Distinct corpora of the trials, as far as they are known before they start: of a range, the one at its end."""
    found: dict[str, Corpus] = {}
    for table in swept(recipe).space:
        tried = {name: [values.high] if isinstance(values, Range) else list(values) for name, values in table.items()}
        choices = [values if name.split(".")[0] in OF_CORPUS else values[:1] for name, values in tried.items()]
        for values in itertools.product(*choices):
            (corpus,) = trial_recipe(recipe, dict(zip(tried, values, strict=True))).corpus
            found.setdefault(digest(corpus.model_dump(mode="json")), corpus)
    return list(found.values())
