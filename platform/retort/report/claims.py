"""What the papers claim to be ahead of what: the sides of each claim in their terms, and on which tasks they saw it.

    supervised: many chains ahead of labels alone      SCoTD, on CommonsenseQA, QuaRel, OpenBookQA and changed reviews

A claim is looked for on the tasks on which its paper measured it and, where it means more than those, on any task that
its paper did not measure.
"""

from dataclasses import dataclass
from typing import Literal

from retort.report.published import (
    CONTRAST,
    GSM8K,
    ORIGINAL,
    PAPERS,
    SETS,
    STRATEGYQA,
    Decode,
    PaperName,
    Place,
    Setting,
)

Count = Literal["many", "one", "one sampled", "sampled", "gold", "none", "any"]
Expected = Literal["ahead", "level"]


@dataclass(frozen=True)
class Side:
    """One of the two that a direction compares. Without a setting either will do, the same on both sides."""

    setting: Setting | None
    thought: str
    decode: Decode = "greedy"
    chains: Count = "any"
    is_pair: bool | None = None

    def fits(self, place: Place, kept: int | None = None) -> bool:
        """Whether a place, of which a corpus takes `kept` chains at most, is of this side."""
        if (place.thought, self.setting or place.setting) != (self.thought, place.setting):
            return False
        if place.decode not in (self.decode, ""):
            return False
        is_one = 1 in (place.chains, kept)
        match self.chains:
            case "many":
                return not is_one and place.chains not in ("greedy", "gold")
            case "one":
                return is_one or place.chains == "greedy"
            case "one sampled":
                return is_one
            case "sampled":
                return place.chains not in ("gold", None)
            case "gold":
                return place.chains == "gold"
            case "none":
                return place.chains is None
            case "any":
                return True


@dataclass(frozen=True)
class Direction:
    """A claim of a paper: the first side is ahead of the second, or level with it. `about` names the fields at issue.

    `source` says who vouches for it, as in `published`; `kinds` are the tasks that it was measured on.
    """

    paper: PaperName
    source: Literal["P", "A", "S", "I"]
    claim: str
    first: Side
    second: Side
    about: tuple[str, ...]
    kinds: tuple[str, ...]
    expected: Expected = "ahead"
    is_general: bool = True

    def applies(self, kind: str) -> bool:
        """Whether it is looked for on a kind of task."""
        return kind in self.kinds or (self.is_general and kind not in PAPERS[self.paper].kinds)

    @property
    def is_of_decodes(self) -> bool:
        """Whether both sides are one student, decoded in two ways."""
        return self.first.decode != self.second.decode


_KEPT = "selection.chains_per_problem"
_FLAT = "supervised, reviews as they were: many chains level with labels alone"
_RECOVERED = "Socratic chains ahead of plain ones"
_HURT = "labels alone ahead of plain chains"
_TAUGHT, _COUNT, _FORMAT = ("thoughts", "teachers", "selection"), ("selection.num_chains", _KEPT), ("thoughts",)
_MANY, _ONE = (Side("supervised", "cot", chains=chains) for chains in ("many", "one"))
_PLAIN, _HUMAN = (Side("supervised", "cot", chains=chains) for chains in ("sampled", "gold"))
_LABELS = Side("supervised", "answer", chains="none")
_FREE, _FREE_ONE = (Side("label-free", "cot", chains=chains) for chains in ("many", "one sampled"))
_VOTE, _FREE_VOTE = (Side(setting, "cot", "vote", "many") for setting in ("supervised", "label-free"))
_SOCRATIC, _SAMPLED = (Side("supervised", "socratic", chains=chains) for chains in ("any", "sampled"))
_PAIR, _UNIFIED = (Side("supervised", "socratic", is_pair=is_pair) for is_pair in (True, False))
_ENSEMBLE = Side(None, "fallback:pot,eot,cot")
_OF_SOCRATIC, _OF_ETD = PAPERS["Socratic CoT"].kinds, PAPERS["ETD"].kinds
DIRECTIONS = (
    Direction(
        "SCoTD", "P", "supervised: many chains ahead of labels alone", _MANY, _LABELS, _TAUGHT, (*SETS, CONTRAST)
    ),
    Direction("SCoTD", "P", _FLAT, _MANY, _LABELS, _TAUGHT, (ORIGINAL,), "level", is_general=False),
    Direction("SCoTD", "P", "supervised: many chains ahead of one", _MANY, _ONE, _COUNT, SETS),
    Direction("SCoTD", "P", "label-free: many chains ahead of one", _FREE, _FREE_ONE, _COUNT, SETS),
    Direction("SCoTD", "P", "label-free: a vote ahead of greedy decoding", _FREE_VOTE, _FREE, (), SETS),
    Direction("SCoTD", "P", "supervised: a vote level with greedy decoding", _VOTE, _MANY, (), SETS, "level"),
    Direction("Socratic CoT", "S", "Socratic chains ahead of human steps alone", _SOCRATIC, _HUMAN, _TAUGHT, (GSM8K,)),
    Direction("Socratic CoT", "A", "Socratic chains ahead of plain ones", _SAMPLED, _PLAIN, _FORMAT, (GSM8K,)),
    Direction("Socratic CoT", "S", _RECOVERED, _SAMPLED, _PLAIN, _FORMAT, (STRATEGYQA,), is_general=False),
    Direction("Socratic CoT", "S", _HURT, _LABELS, _PLAIN, _TAUGHT, (STRATEGYQA,), is_general=False),
    Direction("Socratic CoT", "I", "Socratic chains ahead of labels alone", _SOCRATIC, _LABELS, _TAUGHT, (GSM8K,)),
    Direction("Socratic CoT", "S", "a pair of students ahead of one", _PAIR, _UNIFIED, ("rollout",), _OF_SOCRATIC),
    *(
        Direction("ETD", "A", f"ensemble of thoughts ahead of {thought} alone", _ENSEMBLE, single, _FORMAT, _OF_ETD)
        for thought, single in ((thought, Side(None, thought, chains="sampled")) for thought in ("pot", "eot", "cot"))
    ),
)
