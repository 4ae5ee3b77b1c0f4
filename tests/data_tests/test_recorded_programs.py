"""Recorded programs on SVAMP, 30 of each question: all are run, and the vote is at least as good as their source's.

The corpus lies in `$RETORT_DATA/data/chains/program_of_thoughts`. `executed` is what the source made of the programs of
a question by a vote. Figures are counts; those of speed are printed and not asserted.
"""

import gzip
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from retort.answers import canonical, compare
from retort.combining import vote
from retort.solvers import Outcome, program
from retort.solvers.zygote import RUN_REASONS, Limits, Sandbox

pytestmark = pytest.mark.data
logger = logging.getLogger(__name__)

# Our vote is right on 880, the source's on 881. The source lets no program vote whose value is 0 (none of its 999 votes
# is, though 0 is the most frequent value of two questions), which makes it right once more, by chance.
VOTED_RIGHT, VOTED_RIGHT_WITHOUT_ZERO = 880, 881
REASONS = {"no_answer": 155, "syntax": 16, "raised NameError": 15, "not_a_number": 6}
NUM_IN_SANDBOX = 24


class Single(NamedTuple):
    """A file with one program a question: the programs, how many the sandbox must run, and who is right where."""

    num_programs: int
    num_in_sandbox: int
    num_right_by_source: int
    lost: set[int]


SINGLE = {
    # The source takes -4 for 4.
    "svamp_s0_e-1_11_24_14_38": Single(999, 0, 851, {112, 469, 895}),
    # Three nested loops of 341 steps each, for which a slow machine's time is too short.
    "gsm8K_s0_e-1_11_17_10_20": Single(1318, 48, 942, {825}),
    # The source takes the first of several values: `return flour, sugar`.
    "svamp_zs_s0_e-1_11_18_20_12": Single(999, 81, 708, {136, 291, 314, 430, 626, 807, 842, 882, 895, 938}),
    "gsm8K_zs_s0_e-1_11_19_09_55": Single(1317, 223, 748, {856}),
    # The source takes -7 for 7.
    "multiarith_zs_s0_e-1_11_19_20_12": Single(599, 47, 552, {5}),
}


class Counting(Sandbox):
    """The sandbox, which counts the programs that it is given."""

    num_run = 0

    def run(self, program: str) -> Outcome:
        self.num_run += 1
        return super().run(program)


def _questions(name: str) -> list[dict[str, Any]]:
    """The rows of a file that hold programs; each has also a few lines of another kind."""
    if not (folder := os.environ.get("RETORT_DATA")):
        pytest.fail("RETORT_DATA is not set: it names the folder that holds data/", pytrace=False)
    file = Path(folder) / f"data/chains/program_of_thoughts/{name}.jsonl.gz"
    rows = [json.loads(line) for line in gzip.decompress(file.read_bytes()).decode().splitlines() if line.strip()]
    return [row for row in rows if "generated" in row]


def _is_right(value: str | None, gold: float) -> bool:
    return value is not None and bool(compare("number", value, repr(gold)))


def _values(outcomes: Iterable[Outcome]) -> list[str]:
    """The values in their normal form."""
    values = [canonical("number", outcome.value) for outcome in outcomes if outcome.value is not None]
    return [value for value in values if value is not None]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Counting]:
    with Counting(Limits(timeout_s=3)) as sandbox:
        yield sandbox


def test_thirty_programs_a_question_are_run_and_voted_on(sandbox: Counting, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    questions = _questions("svamp_sc_s0_e-1_11_08_14_02")
    began, before = time.perf_counter(), sandbox.num_run
    outcomes = [[program.run(text, sandbox) for text in row["generated"]] for row in questions]
    spent_s, num_in_sandbox = time.perf_counter() - began, sandbox.num_run - before
    flat = [outcome for group in outcomes for outcome in group]
    reasons = Counter(outcome.reason for outcome in flat if outcome.reason is not None)
    votes = [(_values(group), row["answer"]) for group, row in zip(outcomes, questions, strict=True)]
    right = sum(_is_right(vote(values), gold) for values, gold in votes)
    without_zero = sum(_is_right(vote([value for value in values if value != "0"]), gold) for values, gold in votes)
    logger.info("%d programs in %.1f s: %.0f a second; %s", len(flat), spent_s, len(flat) / spent_s, dict(reasons))
    logger.info("%d in the sandbox; voted right %d, without zeros %d", num_in_sandbox, right, without_zero)
    assert [len(group) for group in outcomes] == [30] * 999
    assert all((outcome.value is None) != (outcome.reason is None) for outcome in flat)
    assert reasons.keys() <= {*RUN_REASONS}
    assert reasons == REASONS
    assert (right, without_zero) == (VOTED_RIGHT, VOTED_RIGHT_WITHOUT_ZERO)
    assert sum(_is_right(repr(row["executed"]), row["answer"]) for row in questions) == VOTED_RIGHT_WITHOUT_ZERO
    assert num_in_sandbox == NUM_IN_SANDBOX


@pytest.mark.parametrize("name", SINGLE)
def test_single_programs_are_right_where_their_source_is(name: str, sandbox: Counting):
    expected, rows = SINGLE[name], _questions(name)
    texts = [row["generated"] if isinstance(row["generated"], str) else row["generated"][0] for row in rows]
    began, before = time.perf_counter(), sandbox.num_run
    outcomes = [program.run(text, sandbox) for text in texts]
    spent_s, num_in_sandbox = time.perf_counter() - began, sandbox.num_run - before
    ours = {number for number, row in enumerate(rows) if _is_right(outcomes[number].value, row["answer"])}
    theirs = {number for number, row in enumerate(rows) if _is_right(str(row["executed"]), row["answer"])}
    reasons = Counter(outcome.reason for outcome in outcomes if outcome.reason is not None)
    logger.info("%s: %d right, %d in the sandbox, %.1f s, %s", name, len(ours), num_in_sandbox, spent_s, dict(reasons))
    assert (len(rows), num_in_sandbox, len(theirs)) == expected[:3]
    assert theirs - ours <= expected.lost
    assert ours <= theirs
