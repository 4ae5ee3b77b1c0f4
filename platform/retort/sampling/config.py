"""Settings of sampling: how it runs, and what it may cost. Nothing here changes what is sampled."""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field


class Pilot(BaseModel):
    """A look at the first problems before the rest is paid for."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    problems: int = Field(default=50, ge=1)
    min_accepted: float = Field(gt=0, le=1)
    """Share of their chains that must be accepted (correct; without a gold answer: with one at all)."""


class SamplingConfig(BaseModel):
    """How sampling runs; nothing here changes what is sampled."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    flush_s: float = Field(default=10.0, gt=0, le=600)
    """A chain is durable at most so long after it has finished."""
    segment_chains: int = Field(default=256, ge=1, le=100_000)
    """Chains of a batch that are written at once, without waiting for `flush_s`."""
    stall_s: float = Field(default=600.0, gt=0)
    """An engine with open requests that generates no token for so long is replaced."""
    pilot: Pilot | None = None
    """Of every teacher and thought, sample these problems first, and stop where too few chains are accepted."""
    max_tokens_total: int | None = Field(default=None, ge=1)
    """Prompt and new tokens that the teachers' chains of this recipe may cost, whenever they were sampled."""
