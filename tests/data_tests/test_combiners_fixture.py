"""Combiners over 660 recorded GSM8K questions, to the digit: what one teacher says as equations, program and text.

The corpus lies in `$RETORT_DATA/data/chains/xot`. `reference_answer` is what its source made of each chain, and an
answer within 1e-3 of the gold one is right, as there. The figures are counts of right answers.
"""

import gzip
import json
import os
from pathlib import Path

import pytest

from retort.answers import canonical
from retort.combining import Tolerance, combine_all, parse
from retort.records import Prediction

pytestmark = pytest.mark.data

ALONE = {"eot": (428, 159), "pot": (507, 17), "cot": (533, 1)}  # right, without an answer
COMBINED = {
    "fallback:pot,eot,cot": 521,
    "fallback:eot,cot": 544,
    # Without a program's answer, a tie goes to the next in the list: 547 where that is the text.
    "majority:pot,eot,cot": 549,
    "majority:pot,cot,eot": 547,
    "majority:cot,pot,eot": 566,
    "majority:cot,eot,pot": 566,
    "oracle:cot,pot,eot": 616,
}


def _predictions(file: Path, thought: str) -> list[Prediction]:
    predictions: list[Prediction] = []
    for line in gzip.decompress(file.read_bytes()).decode().splitlines():
        row = json.loads(line)
        said, gold = row["reference_answer"], row["gold"]
        is_correct = said is not None and abs(said - gold) < 1e-3
        predictions.append(
            Prediction(
                problem_id=f"gsm8k/test/{row['id']:05}",
                task="gsm8k",
                thought=thought,
                decode="greedy",
                question=row["question"],
                gold=canonical("number", repr(gold)),
                answer=None if said is None else canonical("number", repr(said)),
                is_correct=is_correct,
                num_chains=1,
                num_correct=int(is_correct),
                num_tokens=0,
            )
        )
        assert (predictions[-1].answer is None) == (said is None), said
    return predictions


@pytest.fixture(scope="module")
def predictions() -> list[Prediction]:
    """Of all three thoughts; these tests are asked for by name, so that the corpus's absence is a failure."""
    if not (folder := os.environ.get("RETORT_DATA")):
        pytest.fail("RETORT_DATA is not set: it names the folder that holds data/", pytrace=False)
    xot = Path(folder) / "data/chains/xot"
    return [row for thought in ALONE for row in _predictions(xot / f"gsm8k_test_{thought}.jsonl.gz", thought)]


@pytest.mark.parametrize("thought", ALONE)
def test_each_thought_alone_is_as_recorded(predictions: list[Prediction], thought: str):
    rows = [row for row in predictions if row.thought == thought]
    assert len(rows) == 660
    assert (sum(bool(row.is_correct) for row in rows), sum(row.answer is None for row in rows)) == ALONE[thought]


@pytest.mark.parametrize("tolerance", [Tolerance(), Tolerance(absolute=1e-3), Tolerance(relative=0)])
@pytest.mark.parametrize("text", COMBINED)
def test_a_combiner_is_right_as_often_as_by_the_reference(
    predictions: list[Prediction], text: str, tolerance: Tolerance
):
    found = combine_all(parse(text), predictions, tolerance=tolerance)
    assert len(found) == 660
    assert sum(bool(row.is_correct) for row in found) == COMBINED[text]
