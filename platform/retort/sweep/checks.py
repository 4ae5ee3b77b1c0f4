"""What can be found wrong with a sweep before anything starts."""

import itertools
import math
from collections.abc import Iterable
from typing import Any

from retort.config import Recipe, expected
from retort.sweep.config import SweepConfig
from retort.sweep.space import Params, drawn, ends, grid, num_points, student_of, swept, trial_recipe

MOST_CHECKED = 10_000
"""Points that are tried out before a sweep starts, where nobody knows which it will have."""


def check(recipe: Recipe) -> None:
    """Refuse a sweep some of whose trials could not be.

    Raises:
        ValueError: one line that names the field and the value.
    """
    config = swept(recipe)
    seeds = student_of(recipe).training.seeds
    if len(seeds) > 1 and any("training.seed" not in table for table in config.space):
        raise ValueError(
            f"student.{config.student}.training.seeds = {list(seeds)}: a trial has one seed; expected one, and "
            f"training.seed = {list(seeds)} in sweep.space"
        )
    tasks = student_of(recipe).tasks or recipe.evaluation.tasks
    if config.task is not None and config.task not in tasks:
        raise ValueError(f"sweep.task: {config.task!r}: {expected(config.task, tasks)}")
    if config.decode is not None and config.decode not in recipe.evaluation.decodes:
        raise ValueError(f"sweep.decode: {config.decode!r}: {expected(config.decode, recipe.evaluation.decodes)}")
    if not recipe.evaluation.tasks:
        raise ValueError("evaluation.tasks is empty: trials are compared by accuracy; expected at least one task")
    training = student_of(recipe).training
    if training.gpus_per_worker and training.num_workers == 0:
        raise ValueError(
            f"student.{config.student}.training.num_workers = 0 with gpus_per_worker = {training.gpus_per_worker}: a "
            f"trial would keep the GPU that its evaluation waits for; expected num_workers = 1"
        )
    if config.scheduler == "asha":
        _check_asha(recipe, config)
    if config.searcher != "grid" and (size := num_points(config.space[0])) < (config.trials or 0):
        raise ValueError(f"sweep.trials = {config.trials}, the space has {size} points; expected no more, or 'grid'")
    for params in _points_to_check(config):
        trial_recipe(recipe, params)


def _check_asha(recipe: Recipe, config: SweepConfig) -> None:
    """Refuse ASHA where no trial can be stopped."""
    training = student_of(recipe).training
    steps = max(_values(config, "training.steps"), default=training.steps)
    dev_every = min(_values(config, "training.dev_every"), default=training.dev_every)
    if dev_every >= steps:
        raise ValueError(
            f"sweep.scheduler 'asha' stops by dev loss, which student {config.student} measures at its last step "
            f"alone (dev_every = {dev_every}, steps = {steps}); expected a smaller dev_every"
        )
    if config.grace_steps is not None and config.grace_steps >= steps:
        raise ValueError(
            f"sweep.grace_steps = {config.grace_steps}, trials have {steps} steps: none is ever stopped; expected fewer"
        )


def _values(config: SweepConfig, name: str) -> list[Any]:
    """Choices of a field, and ends of its ranges, in all tables."""
    found = [table[name] for table in config.space if name in table]
    return [value for each in found for value in ends(each)]


def _points_to_check(config: SweepConfig) -> Iterable[Params]:
    """All points that there are to be; where TPE is to propose them, combinations of choices and ends of ranges.

    Of many combinations it takes as many as between them have every choice and every end.
    """
    if config.searcher == "grid":
        return grid(config.space)
    (table,) = config.space
    if config.searcher == "random":
        return drawn(table, config.trials or 0, config.seed)
    values = {name: ends(each) for name, each in table.items()}
    if math.prod(map(len, values.values())) <= MOST_CHECKED:
        return [dict(zip(values, each, strict=True)) for each in itertools.product(*values.values())]
    longest = max(map(len, values.values()))
    return [{name: each[number % len(each)] for name, each in values.items()} for number in range(longest)]
