"""660 recorded GSM8K questions as equations, program and text: our readers against their source's (PAPERS 3.8).

The corpus lies in `$RETORT_DATA/data/chains/xot`. `reference_answer` is what the source made of a chain: right where it
is within 1e-3 of the gold answer. Ours is right by `answers.compare`. What the two judge differently is listed here by
question, so that a change shows by name.
"""

import gzip
import json
import os
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from retort.answers import canonical, compare
from retort.records import Problem
from retort.solvers import Outcome
from retort.solvers.zygote import Sandbox
from retort.thoughts import THOUGHTS

pytestmark = pytest.mark.data

REFERENCE_RIGHT = {"eot": 428, "pot": 507, "cot": 533}

OUTCOMES = {
    "eot": {"right": 457, "wrong": 95, "symbolic": 88, "parse": 10, "no_solution": 7, "no_answer": 3},
    "pot": {"right": 507, "wrong": 136, "raised NameError": 10, "syntax": 6, "not_a_number": 1},
    # 50 of the texts mark no answer: for them the last number counts.
    "cot": {"right": 537, "wrong": 118, "undecided": 4, "no_answer": 1},
}

# Right by us and not by the source, which has no answer to any of these systems, and another one to the texts.
GAINED = {
    "eot": {
        "a function, as ceil, round or abs": [27, 74, 76, 150, 282, 402, 404, 438, 459],
        "a comment behind an equation": [226],
        "a chain a = b = c": [306, 341],
        "a name that is assigned again": [65, 159, 162, 262, 316, 327, 396, 462, 495, 518, 580, 601],
        "plain: the source's solver gave up": [111, 178, 289, 575, 588],
    },
    "pot": {},
    "cot": {"a sum of money or a count that the source took for cents": [137, 173, 216, 257, 328]},
}

# Right by the source and not by us: "The answer is 11/12 cups of flour." was taken for 11, which the gold answer is.
LOST = {"eot": [], "pot": [], "cot": [260]}


class Read(NamedTuple):
    """One chain: what we read, the gold answer, and what the source read."""

    number: int
    outcome: Outcome
    gold: str
    reference: float | None
    is_right: bool | None

    @property
    def reference_is_right(self) -> bool:
        return self.reference is not None and abs(self.reference - float(self.gold)) < 1e-3


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as sandbox:
        yield sandbox


def _rows(thought: str) -> list[dict[str, Any]]:
    if not (folder := os.environ.get("RETORT_DATA")):
        pytest.fail("RETORT_DATA is not set: it names the folder that holds data/", pytrace=False)
    file = Path(folder) / f"data/chains/xot/gsm8k_test_{thought}.jsonl.gz"
    return [json.loads(line) for line in gzip.decompress(file.read_bytes()).decode().splitlines()]


def _read(row: dict[str, Any], thought: str, sandbox: Sandbox) -> Read:
    gold = canonical("number", repr(row["gold"]))
    assert gold is not None
    problem = Problem(f"gsm8k/test/{row['id']:05}", "gsm8k", "test", row["question"], "number", gold)
    outcome = THOUGHTS[thought].read(row["completion"], problem, thought == "cot", sandbox)
    is_right = None if outcome.value is None else compare("number", outcome.value, gold)
    return Read(row["id"], outcome, gold, row["reference_answer"], is_right)


@pytest.mark.parametrize("thought", OUTCOMES)
def test_chains_are_read_at_least_as_well_as_by_their_source(thought: str, sandbox: Sandbox):
    reads = [_read(row, thought, sandbox) for row in _rows(thought)]
    words = {True: "right", False: "wrong", None: "undecided"}
    counts = Counter(read.outcome.reason or words[read.is_right] for read in reads)
    gained = [read.number for read in reads if read.is_right and not read.reference_is_right]
    lost = [read.number for read in reads if read.reference_is_right and not read.is_right]
    print(thought, dict(counts), "gained", gained, "lost", lost)
    assert len(reads) == 660
    assert sum(read.reference_is_right for read in reads) == REFERENCE_RIGHT[thought]
    assert counts["right"] >= REFERENCE_RIGHT[thought]
    assert counts == OUTCOMES[thought]
    assert gained == sorted(number for numbers in GAINED[thought].values() for number in numbers)
    assert lost == LOST[thought]


@pytest.mark.parametrize("thought", OUTCOMES)
def test_no_wrong_answer_is_accepted(thought: str, sandbox: Sandbox):
    reads = [_read(row, thought, sandbox) for row in _rows(thought)]
    accepted = [read for read in reads if read.is_right]
    assert len(accepted) == OUTCOMES[thought]["right"]
    for read in accepted:
        number = canonical("number", read.outcome.value or "")
        assert number is not None
        assert abs(Fraction(number) - Fraction(read.gold)) < Fraction(1, 1000), read
    # Where both have an answer to a system, it is the same one.
    if thought == "eot":
        both = [(read.outcome.value, read.reference) for read in reads if read.outcome.value and read.reference]
        assert len(both) > 490
        assert [pair for pair in both if abs(float(Fraction(pair[0])) - pair[1]) > 1e-6] == []
