"""Failures that are worth reading: a few chains of each model, chosen by rules from all that it said, not by hand.

In: the tallies of all verdicts, and the rows that the page has room for, among which each failure is shown. A rule
ranks problems or reasons by the tallies; a chain of theirs that is on the page stands for each. Equal runs have equal
failures.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from retort.report.acceptance import run_palette
from retort.report.blocks import Block, Exhibit, Exhibits, Remark, Section
from retort.report.chains import Packed
from retort.report.contents import ROLE_WORDS, Contents
from retort.report.formatting import count, shortened
from retort.report.reasons import Palette, worded
from retort.report.sample import Row
from retort.report.tallies import Asked, Tally, by_reason
from retort.verification import REASONS

MIN_VOTES = 3
"""Two chains that agree may do so by chance alone."""
MAX_CHARACTERS = 1500
"""Of a chain that is shown here; the browser shows more of it."""
READING = (
    "Chosen by rule from all chains of the run, of teachers and of students taught by chains (their first seed). "
    f"Confident and wrong: of at least {MIN_VOTES} chains on a problem more than half give one wrong answer, the "
    "largest shares first. Within reach: a teacher is wrong on most of its chains and right on some, the fewest first. "
    "Failed: the most frequent reasons why programs or equations came to nothing, each by its shortest chain. Cut off: "
    "the problem with the most chains that reached their token budget. The link opens a chain in the browser below, "
    "beside the others on its problem."
)


@dataclass(frozen=True)
class Spoken:
    """What one model said: its tallies, and its rows on the page by what was asked, in the order of the run."""

    is_teacher: bool
    tallies: Mapping[Asked, Tally]
    rows: Mapping[Asked, Sequence[Row]]

    def first(self, asked: Asked, reason: str, answer: str | None = None) -> Row | None:
        """The first row on a problem with a reason, and an answer if one is meant; None where the page has none."""
        rows = (row for row in self.rows.get(asked, ()) if row.reason == reason)
        return next((row for row in rows if answer in (None, row.answer)), None)


Failure = tuple[Row, str]
"""A row, and why it is shown."""


def failures(contents: Contents, packed: Packed) -> list[Section]:
    """The section, or none where there is nothing to show."""
    palette, blocks = run_palette(contents), list[Block]()
    spoken = _by_model(contents, packed)
    for model in sorted(spoken, key=lambda model: not spoken[model].is_teacher):
        chosen = choose(spoken[model])
        if chosen:
            number = f"{count(len(chosen))} {'failure' if len(chosen) == 1 else 'failures'}"
            caption = f"{model}, {ROLE_WORDS[contents.role(model)]}: {number}"
            exhibits = tuple(_exhibit(row, why, palette) for row, why in chosen)
            blocks.append(Exhibits(caption, exhibits, is_open=not blocks))
    return [Section("failures", "Failures", (*blocks, Remark(READING)))] if blocks else []


def choose(spoken: Spoken) -> list[Failure]:
    """A handful of failures of a model, by the rules in their order; a problem that one rule took is left to it."""
    chosen: list[Failure] = []
    seen: set[str] = set()
    for rule, most in RULES:
        fresh = (failure for failure in rule(spoken) if failure[0].problem not in seen)
        taken = list(islice(fresh, most))
        seen.update(row.problem for row, _ in taken)
        chosen += taken
    return chosen


def confident(spoken: Spoken) -> Iterator[Failure]:
    """Problems on which most chains agree on a wrong answer, the largest shares first, then the most chains."""
    meant: list[tuple[float, int, Asked, str]] = []
    for asked, tally in spoken.tallies.items():
        answer, votes = tally.agreed or ("", 0)
        if tally.chains >= MIN_VOTES and 2 * votes > tally.chains:
            meant.append((-votes / tally.chains, -votes, asked, answer))
    for _, votes, asked, answer in sorted(meant):
        row = spoken.first(asked, "wrong", answer)
        if row is not None:
            told = f"{count(-votes)} of {count(spoken.tallies[asked].chains)} chains"
            yield row, f"Confident and wrong: {told} give this answer"


def within_reach(spoken: Spoken) -> Iterator[Failure]:
    """Problems on which a teacher is wrong on most of its chains and right on some, the fewest first."""
    tallies = spoken.tallies if spoken.is_teacher else {}
    meant = [asked for asked, tally in tallies.items() if 0 < 2 * tally.right < tally.judged]
    for asked in sorted(meant, key=lambda a: (tallies[a].right / tallies[a].judged, -tallies[a].judged, a)):
        row = spoken.first(asked, "wrong")
        if row is not None:
            told = f"{count(tallies[asked].right)} of {count(tallies[asked].judged)} chains"
            yield row, f"Within reach: {told} on this problem are right, this one is not"


def failed(spoken: Spoken) -> Iterator[Failure]:
    """The most frequent reasons of programs and equations that came to nothing, each by its shortest chain."""
    counts = by_reason(spoken.tallies.values())
    meant = [reason for reason in counts if reason not in REASONS]
    rows = [row for group in spoken.rows.values() for row in group]
    for reason in sorted(meant, key=lambda reason: (-counts[reason], reason)):
        row = min((row for row in rows if row.reason == reason), key=lambda row: (len(row.text), row.id), default=None)
        if row is not None:
            chains = f"{count(counts[reason])} {'chain' if counts[reason] == 1 else 'chains'}"
            yield row, f"Failed: {worded(reason)}, as {chains} of this model did"


def cut_off(spoken: Spoken) -> Iterator[Failure]:
    """Problems by the number of chains that reached their token budget, the most first."""
    numbers = {asked: tally.number("truncated") for asked, tally in spoken.tallies.items()}
    for asked in sorted((asked for asked, number in numbers.items() if number), key=lambda a: (-numbers[a], a)):
        row = spoken.first(asked, "truncated")
        if row is not None:
            chains = spoken.tallies[asked].chains
            yield row, f"Cut off: {count(numbers[asked])} of {count(chains)} chains on this problem reached the budget"


RULES: tuple[tuple[Callable[[Spoken], Iterator[Failure]], int], ...] = (
    (confident, 2),
    (within_reach, 2),
    (failed, 3),
    (cut_off, 1),
)
"""Each with the most failures that it adds."""


def _by_model(contents: Contents, packed: Packed) -> dict[str, Spoken]:
    """What teachers and students of chains said, each student by its first seed, in the order of the run."""
    later = contents.later_runs
    tallies: dict[str, dict[Asked, Tally]] = defaultdict(dict)
    for asked, tally in packed.sample.tallies.items():
        if contents.role(asked.model) in ("teacher", "chains") and asked.model not in later:
            tallies[asked.model][asked] = tally
    rows: dict[str, dict[Asked, list[Row]]] = {model: defaultdict(list) for model in tallies}
    for row in packed.rows:
        if row.model in rows:
            rows[row.model][row.asked].append(row)
    return {model: Spoken(contents.role(model) == "teacher", tallies[model], rows[model]) for model in tallies}


def _exhibit(row: Row, why: str, palette: Palette) -> Exhibit:
    facts = (row.wording, row.problem, f"chain {row.index}")
    text = shortened(row.text, MAX_CHARACTERS)
    colour = palette.colour(row.reason)
    return Exhibit(why, row.id, facts, row.question, text, row.answer, row.gold, row.reason.replace("_", " "), colour)
