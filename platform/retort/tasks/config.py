"""What every task's settings share, and how a task without official splits is split."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

from retort.records import Problem, Split
from retort.tasks import source


class TaskConfig(BaseModel):
    """One `[[task]]` of a recipe; each task's module adds its own fields."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    """Name of the task in this recipe; also its kind, unless `kind` says otherwise."""

    def files(self) -> list[str]:
        """Local files that decide the problems; their content is part of the artifact's address."""
        return []


class CorpusTaskConfig(TaskConfig):
    """A task made of an existing data set."""

    train: int | None = Field(default=None, ge=0)
    """At most so many training problems, the first ones; None takes all."""
    dev: int | None = Field(default=None, ge=0)
    test: int | None = Field(default=None, ge=0)
    dev_share: float = Field(default=0.1, ge=0, lt=1)
    """Share of the training problems kept for choosing checkpoints, where the data set has no dev split of its own."""
    split_seed: int = 0
    """Seed of every split that the data set does not make itself."""


class UnsplitTaskConfig(CorpusTaskConfig):
    """A data set that is one file without official splits."""

    path: str | None = None
    """The file; None reads the Hugging Face hub."""
    test_share: float = Field(default=0.3, gt=0, lt=1)
    """Share of the problems kept for the reported accuracy (SVAMP's public copy is cut 700 / 300)."""

    _exists = field_validator("path")(lambda path: None if path is None else source.existing_file(path))

    def files(self) -> list[str]:
        return [self.path] if self.path else []


def split_by_seed(problems: Iterable[Problem], config: UnsplitTaskConfig) -> Iterator[Problem]:
    """Problems of an unsplit data set in seeded splits, as many of each as the recipe asks for."""
    problems = hold_out(problems, "test", config.test_share, config.split_seed)
    return limit(hold_out(problems, "dev", config.dev_share, config.split_seed), config)


def position(problem_id: str, purpose: str, seed: int) -> float:
    """A problem's fixed place in [0, 1) for one purpose; a split is a range of places, so that it survives new rows."""
    return int.from_bytes(hashlib.sha256(f"{purpose}/{seed}/{problem_id}".encode()).digest()[:6], "big") / 2**48


def hold_out(problems: Iterable[Problem], split: Split, share: float, seed: int) -> Iterator[Problem]:
    """Move a seeded share of the training problems to another split; the others pass."""
    for problem in problems:
        if problem.split == "train" and position(problem.id, split, seed) < share:
            problem = replace(problem, split=split)
        yield problem


def limit(problems: Iterable[Problem], config: CorpusTaskConfig) -> Iterator[Problem]:
    """The first problems of each split, as many as the recipe asks for, with the split in their ids."""
    limits: dict[Split, int | None] = {"train": config.train, "dev": config.dev, "test": config.test}
    taken: dict[Split, int] = {"train": 0, "dev": 0, "test": 0}
    for problem in problems:
        most = limits[problem.split]
        if most is None or taken[problem.split] < most:
            taken[problem.split] += 1
            yield replace(problem, id=f"{config.id}/{problem.split}/{problem.id}", task=config.id)
