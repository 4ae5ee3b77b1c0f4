"""A sweep as typed data: the `[sweep]` table of a recipe.

[sweep]
student = "cot"

[sweep.space]
selection.num_chains = [1, 4, 16, 30]
training.learning_rate = { low = 1e-4, high = 1e-2, log = true }
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

Choices = tuple[Any, ...]


class Range(BaseModel):
    """Numbers from `low` to `high`, both included; whole ones where both are whole."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid", strict=True)

    low: int | float
    high: int | float
    log: bool = False
    """Draw the logarithm evenly."""
    step: int | float | None = None
    """Only numbers that lie so many steps above `low`."""

    @property
    def is_whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    @model_validator(mode="after")
    def _is_range(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low = {self.low}, high = {self.high}; expected low < high")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError(f"log with low = {self.low}, step = {self.step}; expected low > 0 and no step")
        if self.step is not None and (self.step <= 0 or (self.is_whole and not isinstance(self.step, int))):
            raise ValueError(f"step = {self.step}; expected one above 0, and whole where low and high are")
        return self


Space = dict[str, Choices | Range]
"""Dotted fields and what they may be. `selection.*`, `thoughts`, `tasks` and `teachers` are those of the student's
corpus, `training.*` and `student.*` its own; `training.seed` is its one seed."""


class SweepConfig(BaseModel):
    """What is tried of one student and its corpus, and how the trials are chosen and run."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    student: str
    """The student whose fields, and whose corpus' fields, are tried."""
    space: tuple[Space, ...] = Field(min_length=1)
    """One table, or several (`[[sweep.space]]`), of which a grid runs through each."""
    searcher: Literal["grid", "random", "tpe"] = "grid"
    """`grid`: every combination of choices. `random`, `tpe` (Optuna's): as many trials as `trials` says."""
    trials: int | None = Field(default=None, ge=1, le=100_000)
    """Trials in all, those of earlier runs among them; None with a grid, which has its own number."""
    scheduler: Literal["none", "asha"] = "none"
    """`asha` stops trials whose dev loss is among the worse ones at the same step."""
    grace_steps: int | None = Field(default=None, ge=1)
    """Steps before which ASHA stops no trial; None takes the student's `dev_every`."""
    reduction_factor: int = Field(default=3, ge=2, le=100)
    """ASHA lets one in so many go on."""
    split: Literal["test", "dev"] = "test"
    """Which problems trials answer. `dev` leaves the test problems unseen; the trial that is best on the dev problems,
    and it alone, then answers them."""
    task: str | None = None
    """The task whose accuracy is the figure that trials are compared by; None takes the first of the evaluation's."""
    decode: str | None = None
    """And the decode."""
    max_concurrent: int | None = Field(default=None, ge=1)
    """Trials at a time; None takes as many as the cluster has CPUs and GPUs for when the sweep starts."""
    max_failures: int = Field(default=3, ge=0)
    """How often a trial whose process or node dies is started again before the sweep goes on without it."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of the searcher."""
    study: str | None = None
    """Where Optuna keeps the study that dashboards show, as a URL; None takes a file in the user's data folder. It is
    rebuilt from the store when a sweep starts, so that losing it loses nothing."""

    @field_validator("space", mode="before")
    @classmethod
    def _tables(cls, space: Any) -> Any:
        tables = (space,) if isinstance(space, Mapping) else space
        if not isinstance(tables, list | tuple) or not all(isinstance(table, Mapping) for table in tables):
            raise ValueError(f"got {space!r}; expected a table of fields with choices or ranges, or several tables")
        return tuple(dict(_leaves(table, "")) for table in tables)

    @field_validator("study")
    @classmethod
    def _has_no_password(cls, study: str | None) -> str | None:
        if study is not None and urlsplit(study).password is not None:
            raise ValueError(
                f"got an address with a password, which logs and reports would show; expected one without, and the "
                f"password where {study.partition(':')[0]} looks for it, such as PGPASSWORD"
            )
        return study

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.scheduler == "none" and self.grace_steps is not None:
            raise ValueError(f"grace_steps = {self.grace_steps} is of scheduler 'asha'; expected it, or no grace_steps")
        ranges = [name for table in self.space for name, values in table.items() if isinstance(values, Range)]
        if self.searcher == "grid":
            if ranges:
                raise ValueError(f"space: searcher 'grid' takes choices only, {ranges[0]} is a range; list its values")
            if self.trials is not None:
                raise ValueError(f"trials = {self.trials} with searcher 'grid', which runs every combination; drop it")
        else:
            if len(self.space) > 1:
                raise ValueError(
                    f"space: searcher {self.searcher!r} takes one table, got {len(self.space)}; use 'grid'"
                )
            if self.trials is None:
                raise ValueError(f"trials is missing: searcher {self.searcher!r} needs to know how many")
        return self


def _range(name: str, value: Mapping[str, Any] | Range) -> Range:
    try:
        return Range.model_validate(value)
    except ValidationError as error:
        finding = error.errors(include_url=False)[0]
        where = ".".join([name, *map(str, finding["loc"][:1])])
        raise ValueError(f"{where}: {finding['msg'].removeprefix('Value error, ')}") from error


def _leaves(table: Mapping[str, Any], prefix: str) -> list[tuple[str, Any]]:
    """Fields of nested tables by their dotted names, each with its choices or range."""
    if not table:
        raise ValueError(f"{prefix.rstrip('.') or 'a table'} is empty; expected fields with choices or ranges")
    found: list[tuple[str, Any]] = []
    for key, value in table.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and not value.keys() & {"low", "high"}:
            found += _leaves(value, f"{name}.")
        elif isinstance(value, Mapping | Range):
            found.append((name, _range(name, value)))
        elif isinstance(value, list | tuple) and value:
            if any(value.count(choice) > 1 for choice in value):
                raise ValueError(f"{name} = {list(value)!r} has a choice twice; expected each once")
            found.append((name, tuple(value)))
        else:
            wanted = "a list of choices, or { low = …, high = … }"
            raise ValueError(f"{name} = {value!r}; expected {wanted}")
    return found
