"""What a recipe says of selection: the `selection` table of a corpus.

selection = { rule = "correct", pick = "diverse", chains_per_problem = 4, deduplicate = "exact" }
"""

from typing import ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Rule = Literal["correct", "all", "majority"]
Pick = Literal["first", "random", "diverse", "likely", "open_ended", "shortest"]
Target = Literal["chain", "answer"]


class SelectionConfig(BaseModel):
    """Which chains of which problems become examples."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    rule: Rule = "correct"
    """Which chains qualify. `correct`: those whose answer equals the gold one. Label-free: `all`, no filter but for
    chains cut off; `majority`, those whose answer is the teacher's most frequent one on that problem and thought."""
    target: Target = "chain"
    """What is learned of a selected chain: all of it, or its answer alone (a teacher's label), as `answer`."""
    num_chains: int | None = Field(default=None, ge=1, le=10_000)
    """Only the first so many chains of a problem and thought, by index, are looked at: the N-chain experiment. None
    looks at all that the teacher was asked for."""
    chains_per_problem: int | None = Field(default=None, ge=1)
    """At most so many of a problem, thought and teacher, all of them where fewer qualify; None keeps all."""
    pick: Pick = "first"
    """Which of those that qualify are taken. `first`: by index. `random`. `diverse`: one of each cluster of chains.
    `likely`: the highest log-likelihood per token under the teacher. `open_ended`: at random, and more of the problems
    whose chains differ more (SCoTD's 1, 3, 5, 7 and 9 where the budget is 5). `shortest`: the fewest tokens."""
    total_chains: int | None = Field(default=None, ge=1)
    """At most so many training chains of the whole corpus: problems take turns. Dev chains do not count."""
    deduplicate: Literal["none", "exact", "near"] = "none"
    """Drop chains that repeat an earlier one of the problem and thought. `exact`: but for case, white space and the
    spacing of signs. `near`: also those that are `near_similarity` alike."""
    near_similarity: float = Field(default=0.8, gt=0, le=1)
    """The Jaccard similarity of their word 3-grams from which two chains are near duplicates."""
    min_pass_rate: float | None = Field(default=None, ge=0, le=1)
    """Only problems of whose chains, under that thought, at least this share is correct."""
    max_pass_rate: float | None = Field(default=None, ge=0, le=1)
    """Only problems of whose chains, under that thought, at most this share is correct."""
    label_fraction: float = Field(default=1.0, gt=0, le=1)
    """Only this share of the training problems, the first in an order that `seed` fixes; larger shares hold smaller
    ones. Dev problems stay."""
    max_overlap: float | None = Field(default=None, ge=0, lt=1)
    """Leave out problems of whose question a larger share of the word 8-grams occurs in test questions. None reports
    the overlap only: the questions of a templated task overlap by nature."""
    seed: int = Field(default=0, ge=0)
    """Of everything here that is drawn."""

    @property
    def needs_equal_chains(self) -> tuple[str, ...]:
        """The settings that compare problems, or chains, as if each problem had as many chains as the others."""
        picks = () if self.pick == "first" else ("pick",)
        rates = ("num_chains", "min_pass_rate", "max_pass_rate")
        return (*picks, *(name for name in rates if getattr(self, name) is not None))

    @property
    def needs_chains(self) -> tuple[str, ...]:
        """The settings that gold labels, of which a problem has one, leave nothing to do for."""
        known = ("chains_per_problem", "total_chains", "deduplicate")
        fields = type(self).model_fields
        changed = (name for name in known if getattr(self, name) != fields[name].default)
        return (*self.needs_equal_chains, *changed)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        """A pick has a budget, and bounds are in order."""
        if self.pick != "first" and self.chains_per_problem is None:
            raise ValueError(f"pick = {self.pick!r} without chains_per_problem takes all; expected a budget")
        if self.pick == "open_ended" and self.chains_per_problem is not None and self.chains_per_problem < 3:
            raise ValueError(
                f"pick = 'open_ended' with chains_per_problem = {self.chains_per_problem}: the least open-ended fifth "
                f"would get none; expected at least 3"
            )
        low, high = self.min_pass_rate, self.max_pass_rate
        if low is not None and high is not None and low > high:
            raise ValueError(f"min_pass_rate = {low:g} is above max_pass_rate = {high:g}; expected no more")
        return self
