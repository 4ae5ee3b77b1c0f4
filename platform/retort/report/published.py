"""Accuracies that the three papers report, each with what was taught or asked, on which task, and how it was decoded.

Values are percentages as they were printed. A source says who vouches for a value: P the paper's own text or tables, A
its abstract, S a secondary page, K counted from public data and not the paper's, I inferred. SCoTD's tables were read
whole; of the other two papers' tables no copy could be read, so that all that is known of them is here. Left out: what
is no accuracy (human evaluations), and tasks that have no file here (SST-2).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import Literal, NamedTuple

PaperName = Literal["SCoTD", "Socratic CoT", "ETD"]
Setting = Literal["supervised", "label-free", "prompted teacher", "prompted student", "chance"]
Decode = Literal["greedy", "vote", ""]
Chains = int | Literal["greedy", "gold"] | None


class Place(NamedTuple):
    """What an accuracy is of. `label-free` students learned from chains, or labels, that no gold answer had filtered.

    `thought` may be a combiner, and is `answer` for labels alone. `chains` a problem were sampled to learn from;
    `greedy` is one at temperature 0, `gold` the data set's own steps. What a source leaves open is empty or None.
    """

    setting: Setting
    thought: str
    decode: Decode
    chains: Chains = None


@dataclass(frozen=True)
class Published:
    """One value, in percent, and the tables that hold it."""

    paper: PaperName | Literal["XoT"]
    kind: str
    place: Place
    model: str
    value: Decimal
    tables: tuple[str, ...]
    source: Literal["P", "S", "K"]


@dataclass(frozen=True)
class Paper:
    """What a paper worked with, and the kinds of tasks that it measured."""

    authors: str
    teacher: str
    student: str
    chains: str
    votes: str
    kinds: tuple[str, ...]


@dataclass(frozen=True)
class Benchmark:
    """A task as the papers measured it: its problems, what to know of the numbers, and whether nothing trains on it."""

    train: str
    test: str
    notes: tuple[str, ...] = ()
    is_transfer: bool = False


CSQA, QUAREL, OBQA, GSM8K = "commonsense_qa", "quarel", "openbookqa", "gsm8k"
STRATEGYQA, SVAMP, ASDIV, MULTIARITH = "strategyqa", "svamp", "asdiv", "multiarith"
ORIGINAL, CONTRAST = "imdb_contrast:original", "imdb_contrast:contrast"
SETS = (CSQA, QUAREL, OBQA)
SOURCES = {
    "P": "the paper's own text or tables",
    "A": "its abstract",
    "S": "a secondary page, not checked against the paper",
    "K": "counted from outputs that others published, not the paper's",
    "I": "inferred, not stated by the paper",
}
PAPERS: dict[PaperName, Paper] = {
    "SCoTD": Paper(
        "Li et al. 2023",
        "code-davinci-002 (GPT-3 175B) with about 10 exemplars, at temperature 1",
        "OPT-1.3B",
        "30",
        "30 samples at temperature 0.7",
        (*SETS, ORIGINAL, CONTRAST),
    ),
    "Socratic CoT": Paper(
        "Shridhar et al. 2023",
        "GPT-3 175B (by a secondary source)",
        "GPT-2 up to large (774M)",
        "1 (by a secondary source)",
        "none known",
        (GSM8K, STRATEGYQA, SVAMP),
    ),
    "ETD": Paper(
        "Zhu et al. 2024",
        "gpt-3.5-turbo (by a secondary source)",
        "CodeT5 up to Large",
        "a number that could not be found",
        "none known",
        (GSM8K, SVAMP, ASDIV, MULTIARITH),
    ),
}
_CODEX, _OPT, _TURBO = "code-davinci-002", "OPT-1.3B", "gpt-3.5-turbo-0613, at temperature 0"
_NOT_FOUND = "The values that the papers report on it could not be found."
_DEFAULT_DECODE = (
    "Table 2b and N = 50 name no decode: it stands here by the paper's defaults, a vote where label-free, greedy where "
    "supervised."
)
_REVIEWS = "100,000 examples sub-sampled from the training set of IMDB"
BENCHMARKS = {
    CSQA: Benchmark(
        "9,741",
        "1,221 of validation (test labels are hidden)",
        (_DEFAULT_DECODE, "One standard error of the paper's values is about 1.4 points: less is a tie."),
    ),
    QUAREL: Benchmark(
        "1,941",
        "very probably the 278 of validation",
        (_DEFAULT_DECODE, "One standard error of the paper's values is 2.2 to 2.7 points: less is a tie."),
    ),
    OBQA: Benchmark(
        "4,957",
        "500",
        (
            _DEFAULT_DECODE,
            "The paper has two values for supervised chains, greedy: 67.0 in Table 2b and 65.8 in Table 3a.",
            "One standard error of the paper's values is about 2.2 points: less is a tie.",
        ),
    ),
    ORIGINAL: Benchmark(_REVIEWS, "488", (_DEFAULT_DECODE,), is_transfer=True),
    CONTRAST: Benchmark(
        _REVIEWS, "488", (_DEFAULT_DECODE, "One standard error is about 1.2 points."), is_transfer=True
    ),
    GSM8K: Benchmark(
        "7,473",
        "1,319",
        (
            "Of the papers' own tables none could be read.",
            "One standard error of students at 42% is about 1.4 points, of those at 14 to 21% about 1.1.",
        ),
    ),
    STRATEGYQA: Benchmark("an unknown share of 2,290", "an unknown share of 2,290", (_NOT_FOUND,)),
    SVAMP: Benchmark("an unknown share of 1,000", "up to 1,000", (_NOT_FOUND,)),
    ASDIV: Benchmark("none", "2,305, or 2,096 of another copy", (_NOT_FOUND,), is_transfer=True),
    MULTIARITH: Benchmark("none", "600", (_NOT_FOUND,), is_transfer=True),
}
REMOVED = {CSQA: Decimal("40.4"), OBQA: Decimal("45.0"), QUAREL: Decimal("34.2")}
"""Share of the teacher's chains that SCoTD's filter by gold answers removes (P)."""

# A line of SCoTD's tables on CommonsenseQA, QuaRel and OpenBookQA.
_LINES: tuple[tuple[str, str, Place, str], ...] = (
    ("Table 2a", _CODEX, Place("prompted teacher", "answer", ""), "82.1 86.9 83.4"),
    ("Table 2a", _CODEX, Place("prompted teacher", "cot", "greedy"), "77.6 83.3 71.8"),
    ("Table 2a", _CODEX, Place("prompted teacher", "cot", "vote"), "81.3 86.0 86.4"),
    ("Table 2a", _OPT, Place("prompted student", "answer", ""), "20.5 9.7 2.8"),
    ("Table 2a", _OPT, Place("prompted student", "cot", "greedy"), "17.9 39.6 12.6"),
    ("Table 2a", _OPT, Place("prompted student", "cot", "vote"), "21.1 48.2 22.2"),
    ("Table 2a", "random", Place("chance", "", ""), "20.0 50.0 25.0"),
    ("Table 2b", _OPT, Place("label-free", "answer", "vote"), "62.7 65.6 59.8"),
    ("Table 2b", _OPT, Place("label-free", "cot", "vote", "greedy"), "64.6 64.7 48.8"),
    ("Table 2b", _OPT, Place("label-free", "cot", "vote", 30), "64.7 73.0 57.8"),
    ("Table 2b", _OPT, Place("supervised", "answer", "greedy"), "63.0 59.0 60.2"),
    ("Table 2b", _OPT, Place("supervised", "cot", "greedy", "greedy"), "68.2 71.2 50.0"),
    ("Table 2b", _OPT, Place("supervised", "cot", "greedy", 30), "67.0 83.8 67.0"),
    ("Table 3a", _OPT, Place("label-free", "cot", "greedy", 30), "60.2 73.4 44.4"),
    ("Table 3a", _OPT, Place("label-free", "cot", "vote", 30), "64.7 73.0 57.8"),
    ("Table 3a", _OPT, Place("supervised", "cot", "greedy", 30), "67.0 83.8 65.8"),
    ("Table 3a", _OPT, Place("supervised", "cot", "vote", 30), "66.8 83.8 63.6"),
    ("N = 50", _OPT, Place("supervised", "cot", "greedy", 50), "67.2 84.9 67.0"),
)
# SCoTD's Table 3b: label-free accuracy by N.
_COUNTS = (1, 5, 10, 20, 30)
_BY_COUNT: tuple[tuple[str, Decode, str], ...] = (
    (CSQA, "greedy", "53.0 58.3 59.1 60.0 60.2"),
    (CSQA, "vote", "53.4 63.0 62.4 64.1 64.7"),
    (QUAREL, "greedy", "62.2 68.7 69.8 70.9 73.4"),
    (QUAREL, "vote", "62.6 66.2 70.1 71.2 73.0"),
    (OBQA, "greedy", "39.0 40.2 40.6 43.2 44.4"),
    (OBQA, "vote", "38.0 37.6 51.8 59.8 57.8"),
)
# SCoTD's contrast sets: original and contrast.
_REVIEWED: tuple[tuple[Place, str], ...] = (
    (Place("supervised", "answer", "greedy"), "96.1 81.6"),
    (Place("supervised", "cot", "greedy"), "95.5 92.0"),
)
_STUDENTS_ON_GSM8K: tuple[tuple[PaperName, str, str, Place, str], ...] = (
    ("Socratic CoT", "Table 3 of 2407.18248", "GPT-2 large", Place("supervised", "cot", "", "gold"), "14.1"),
    ("Socratic CoT", "Table 3 of 2407.18248", "GPT-2 large", Place("supervised", "socratic", ""), "21.1"),
    ("ETD", "ArXivQA, on version 1", "CodeT5-Large", Place("supervised", "fallback:pot,eot,cot", ""), "42.45"),
    ("ETD", "model card of an earlier release", "CodeT5+ 770M", Place("supervised", "pot", ""), "44.88"),
)
_TEACHER_ON_GSM8K = (
    ("eot", "63.99"),
    ("pot", "77.41"),
    ("cot", "79.98"),
    ("fallback:pot,eot,cot", "79.08"),
    ("fallback:pot,cot", "78.62"),
    ("fallback:eot,pot,cot", "80.97"),
    ("fallback:eot,cot", "81.43"),
    ("majority:pot,eot,cot", "83.78"),
    ("majority:cot,pot,eot", "84.61"),
    ("oracle:pot,eot,cot", "92.27"),
)


@cache
def published(kind: str) -> tuple[Published, ...]:
    """What is known on a kind of task, in the order of the tables; a value that several tables repeat stands once."""
    found: dict[Published, tuple[str, ...]] = {}
    for row in _declared():
        if row.kind == kind:
            alone = Published(row.paper, kind, row.place, row.model, row.value, (), row.source)
            found[alone] = found.get(alone, ()) + row.tables
    return tuple(
        Published(row.paper, kind, row.place, row.model, row.value, tables, row.source) for row, tables in found.items()
    )


def _declared() -> Iterator[Published]:
    for table, model, place, values in _LINES:
        for kind, value in zip(SETS, values.split(), strict=True):
            yield Published("SCoTD", kind, place, model, Decimal(value), (table,), "P")
    for kind, decode, values in _BY_COUNT:
        for chains, value in zip(_COUNTS, values.split(), strict=True):
            place = Place("label-free", "cot", decode, chains)
            yield Published("SCoTD", kind, place, _OPT, Decimal(value), ("Table 3b",), "P")
    for place, values in _REVIEWED:
        for kind, value in zip((ORIGINAL, CONTRAST), values.split(), strict=True):
            yield Published("SCoTD", kind, place, _OPT, Decimal(value), ("contrast sets",), "P")
    for paper, table, model, place, value in _STUDENTS_ON_GSM8K:
        yield Published(paper, GSM8K, place, model, Decimal(value), (table,), "S")
    for thought, value in _TEACHER_ON_GSM8K:
        place = Place("prompted teacher", thought, "greedy")
        yield Published("XoT", GSM8K, place, _TURBO, Decimal(value), ("published outputs",), "K")
