"""What every task's settings share, and how a task without official splits is split."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import ClassVar, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator

from retort.records import Problem, Split
from retort.tasks import source

SPLITS: tuple[Split, ...] = get_args(Split)


class TaskConfig(BaseModel):
    """One `[[task]]` of a recipe; each task's module adds its own fields."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    """Name of the task in this recipe; also its kind, unless `kind` says otherwise."""

    def files(self) -> list[str]:
        """Local files that decide the problems; their content is part of the artifact's address."""
        return []


class EvaluationTaskConfig(TaskConfig):
    """A task made of an existing data set that students are evaluated on, and never taught."""

    dev: int | None = Field(default=None, ge=0)
    """At most so many problems for choosing checkpoints, the first ones; None takes all."""
    test: int | None = Field(default=None, ge=0)
    """At most so many problems for the reported accuracy."""

    def limits(self) -> dict[Split, int | None]:
        """How many problems of each split are wanted at most; None for all."""
        return {"train": 0, "dev": self.dev, "test": self.test}


class CorpusTaskConfig(EvaluationTaskConfig):
    """A task made of an existing data set."""

    train: int | None = Field(default=None, ge=0)
    """At most so many training problems."""
    dev_share: float = Field(default=0.1, ge=0, lt=1)
    """Share of the training problems kept for choosing checkpoints, where the data set has no dev split of its own."""
    split_seed: int = 0
    """Seed of every split that the data set does not make itself."""

    def limits(self) -> dict[Split, int | None]:
        return {**super().limits(), "train": self.train}


class SplitTaskConfig(CorpusTaskConfig):
    """A data set whose splits are files, under whatever names the copy at hand has."""

    paths: dict[Split, str] | None = Field(default=None, min_length=1)
    """File of each split, not all of which need be there; None reads the Hugging Face hub."""

    @field_validator("paths")
    @classmethod
    def _exist(cls, paths: dict[Split, str] | None) -> dict[Split, str] | None:
        # In the order of SPLITS: the order in a recipe must not decide the order of the problems.
        return paths and {split: source.existing_file(paths[split]) for split in SPLITS if split in paths}

    def files(self) -> list[str]:
        return list((self.paths or {}).values())


class UnsplitTaskConfig(CorpusTaskConfig):
    """A data set that is one file without official splits."""

    path: str | None = None
    """The file; None reads the Hugging Face hub."""
    test_share: float = Field(default=0.3, gt=0, le=1)
    """Share of the problems kept for the reported accuracy (SVAMP's public copy is cut 700 / 300); 1 trains on none."""

    _exists = field_validator("path")(lambda path: None if path is None else source.existing_file(path))

    def files(self) -> list[str]:
        return [self.path] if self.path else []


def as_split(problems: Iterable[Problem], config: SplitTaskConfig) -> Iterator[Problem]:
    """Problems of a split data set, as many as the recipe asks for; where files name no dev split, one by seed."""
    if config.paths and "dev" not in config.paths:
        problems = hold_out(problems, "dev", config.dev_share, config.split_seed)
    return limit(problems, config)


def split_by_seed(problems: Iterable[Problem], config: UnsplitTaskConfig) -> Iterator[Problem]:
    """Problems of an unsplit data set in seeded splits, as many of each as the recipe asks for."""
    problems = hold_out(problems, "test", config.test_share, config.split_seed)
    return limit(hold_out(problems, "dev", config.dev_share, config.split_seed), config)


def position(problem_id: str, purpose: str, seed: int) -> float:
    """A problem's fixed place in [0, 1) for one purpose; a split is a range of places, so that it survives new rows."""
    return int.from_bytes(hashlib.sha256(f"{purpose}/{seed}/{problem_id}".encode()).digest()[:6], "big") / 2**48


def hold_out(problems: Iterable[Problem], split: Split, share: float, seed: int) -> Iterator[Problem]:
    """Move a seeded share of the training problems to another split; the others pass.

    A repeated problem goes where its first copy goes, so that no split holds what another was made of (MultiArith
    repeats 20 of its 600).
    """
    first_ids: dict[tuple[str | None, str, tuple[str, ...]], str] = {}
    for problem in problems:
        if problem.split == "train":
            first_id = first_ids.setdefault((problem.context, problem.question, problem.choices), problem.id)
            if position(first_id, split, seed) < share:
                problem = replace(problem, split=split)
        yield problem


def limit(problems: Iterable[Problem], config: EvaluationTaskConfig) -> Iterator[Problem]:
    """The first problems of each split, as many as the recipe asks for, with the split in their ids."""
    limits = config.limits()
    taken: dict[Split, int] = {"train": 0, "dev": 0, "test": 0}
    for problem in problems:
        most = limits[problem.split]
        if most is None or taken[problem.split] < most:
            taken[problem.split] += 1
            yield replace(problem, id=f"{config.id}/{problem.split}/{problem.id}", task=config.id)
