"""The tally of a sampling session: what batches and actors report, as one summary for each plan."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from retort.metrics import summary_line
from retort.sampling.flushing import Counts
from retort.store.plan import Plan

logger = logging.getLogger(__name__)

OF_PLAN = tuple(field.name for field in fields(Counts))
OF_ACTOR = ("engine_s", "busy_s", "engine_starts", "stalls", "replacements")


@dataclass(frozen=True)
class Sampled:
    """What sampling did for one plan.

    `accepted` is by the share of those judged while sampling: all of them, unless verdicts take longer than chains.
    `lacking` counts chains that the engine could not give (a recording), `withheld` those that `max_tokens_total` kept
    from being asked for, `unneeded` those that a fixed number would have drawn beyond `until_correct`, estimated to
    have saved `saved_tokens`. Times are of the whole session, whose plans share its engines: `seconds` with all there
    is to do, `sampling_s` from the first request to the last durable chain, `engine_s` with an engine loaded and
    `busy_s` of these with a request open, the last two summed over actors.
    """

    wanted: int
    reused: int
    sampled: int
    lacking: int
    withheld: int
    unneeded: int
    saved_tokens: int
    prompt_tokens: int
    output_tokens: int
    accepted: int
    accepted_tokens: int
    segments: int
    segment_bytes: int
    seconds: float
    sampling_s: float
    engine_s: float
    busy_s: float
    engine_starts: int
    stalls: int
    replacements: int


@dataclass
class Tally:
    """What a session has come to: counts of each plan, times over all, and the first thing that went wrong."""

    plans: list[dict[str, int]]
    failure: str = ""
    renewed: bool = False
    """Whether an actor has died that had an allowance, which then ended with it."""
    actors: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    sampling_s: float = 0.0

    @classmethod
    def of(cls, num_plans: int) -> Self:
        """A tally in which nothing has happened yet."""
        return cls([dict.fromkeys(("reused", *OF_PLAN), 0) for _ in range(num_plans)])

    def add(self, rows: Iterable[dict[str, Any]]) -> None:
        """The rows of one round, as its batches end."""
        longest = 0.0
        for row in rows:
            self.failure = self.failure or row["failure"]
            self.renewed = self.renewed or row["renewed"]
            for name in OF_PLAN:
                self.plans[row["plan"]][name] += row[name]
            # Each row holds the totals of its actor so far.
            self.actors[row["actor"]] = {name: max(row[name], self._of(row["actor"], name)) for name in OF_ACTOR}
            longest = max(longest, row["sampling_s"])
        self.sampling_s += longest

    def _of(self, actor: str, name: str) -> float:
        return self.actors.get(actor, {}).get(name, 0)

    def total(self, name: str) -> int:
        """A count, over all plans."""
        return sum(counts[name] for counts in self.plans)

    def summaries(self, plans: Sequence[Plan], seconds: float, label: str) -> list[Sampled]:
        """The summary of each plan, all told in one line. Raises ValueError where something went wrong."""
        if self.failure:
            raise ValueError(f"{self.failure}; what is sampled is kept: mend it and run again")
        made = [self._sampled(number, planned, seconds) for number, planned in enumerate(plans)]
        if any(summary.sampled for summary in made):
            logger.info("sampling %s: %s", label, summary_line([asdict(summary) for summary in made]))
        return made

    def _sampled(self, number: int, planned: Plan, seconds: float) -> Sampled:
        """The summary of one plan."""
        counts = dict(self.plans[number])
        had = counts["reused"] + counts["sampled"] + counts["lacking"] + counts["withheld"]
        unneeded = planned.num_wanted - had if planned.until else 0
        tokens = counts["prompt_tokens"] + counts["output_tokens"]
        judged, judged_tokens = counts.pop("judged"), counts.pop("judged_tokens")
        counts["accepted"] = round(counts["accepted"] * counts["sampled"] / max(judged, 1))
        counts["accepted_tokens"] = round(counts["accepted_tokens"] * counts["output_tokens"] / max(judged_tokens, 1))
        values: dict[str, Any] = {
            "wanted": planned.num_wanted,
            "unneeded": unneeded,
            "saved_tokens": unneeded * tokens // max(counts["sampled"], 1),
            "seconds": round(seconds, 3),
            "sampling_s": round(self.sampling_s, 3),
        }
        times = {name: round(sum(actor[name] for actor in self.actors.values()), 3) for name in OF_ACTOR}
        return Sampled(**values, **counts, **times)
