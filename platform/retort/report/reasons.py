"""Reasons as the page shows them: an open set in few parts with a colour each, so that plots stay readable.

In: counts by reason or fate. What is named in `COLOURS` keeps its colour on every page. Of the others (a program may
raise any exception, equations may have no solution) the most frequent get the spare colours and the rest is one part;
tables tell what is in it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Counts = Mapping[str, int]

COLOURS = {
    "correct": "green",
    "selected": "green",
    "over_budget": "blue",
    "minority": "wine",
    "wrong": "red",
    "no_answer": "orange",
    "truncated": "purple",
    "undecided": "sky",
    "unlabelled": "grey",
}
SPARE = ("indigo", "sand")
RAISED = "raised"
"""The part of every `raised ZeroDivisionError` and the like."""
OTHER = "other"
OTHER_COLOUR = "stone"


@dataclass(frozen=True)
class Palette:
    """The parts that have a colour of their own on one page, in the order in which they are stacked."""

    colours: Mapping[str, str]

    def part(self, reason: str) -> str:
        """The part of a plot that a reason belongs to."""
        part = family(reason)
        return part if part in self.colours else OTHER

    def colour(self, reason: str) -> str:
        return self.colours[self.part(reason)]

    def grouped(self, counts: Counts) -> dict[str, int]:
        """Counts by part, in the order of the parts."""
        found: Counter[str] = Counter()
        for reason, number in counts.items():
            found[self.part(reason)] += number
        return {part: found[part] for part in self.colours if found[part]}

    def present(self, rows: Iterable[Counts]) -> list[str]:
        """The parts that occur in any of some counts, in order."""
        found = {self.part(reason) for counts in rows for reason, number in counts.items() if number}
        return [part for part in self.colours if part in found]

    def spelled_out(self, counts: Counts) -> str:
        """What is in the parts that hold several reasons: `raised NameError 4, time 1`."""
        hidden = [(reason, number) for reason, number in counts.items() if number and self.part(reason) != reason]
        ordered = sorted(hidden, key=lambda pair: (-pair[1], pair[0]))
        return ", ".join(f"{worded(reason)} {number:,}" for reason, number in ordered)


def palette(rows: Iterable[Counts]) -> Palette:
    """The palette of a page, from all counts by reason on it."""
    totals: Counter[str] = Counter()
    for counts in rows:
        for reason, number in counts.items():
            totals[family(reason)] += number
    strange = sorted((part for part in totals if part not in COLOURS), key=lambda part: (-totals[part], part))
    return Palette({**COLOURS, **dict(zip(strange, SPARE, strict=False)), OTHER: OTHER_COLOUR})


def family(reason: str) -> str:
    """A reason without the name of the exception."""
    return RAISED if reason.startswith(f"{RAISED} ") else reason


def worded(reason: str) -> str:
    """A reason, or a part, as words."""
    return "raised an exception" if reason == RAISED else reason.replace("_", " ")
