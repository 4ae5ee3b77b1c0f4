"""Votes and combiners, against a small table worked out by hand; a recorded teacher's is in `data_tests`."""

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retort.answers import canonical
from retort.combining import RULES, Combiner, Rule, Tolerance, combine, combine_all, parse, vote
from retort.records import Prediction
from retort.thoughts import THOUGHTS

ORDER = ("cot", "pot", "eot")
WEIGHTS = {"cot": 0.5, "pot": 0.3, "eot": 0.2}

# Gold answer, what cot, pot and eot say, and what each combiner then says.
COMBINERS = ("fallback:pot,eot,cot", "majority:cot,pot,eot", "majority:pot,eot,cot", "weighted:cot,pot,eot")
PROBLEMS: list[tuple[str, tuple[str | None, str | None, str | None], tuple[str | None, ...]]] = [
    ("18", ("18", "18", "18"), ("18", "18", "18", "18")),
    ("18", ("18", "20", "20"), ("20", "20", "20", "18")),  # 0.3 + 0.2 ties with 0.5: the first listed
    ("18", ("20", "18", "18"), ("18", "18", "18", "20")),
    ("18", ("18", "20", "18"), ("20", "18", "18", "18")),
    ("18", ("18", "20", "22"), ("20", "18", "20", "18")),
    ("18", ("20", "22", "18"), ("22", "20", "22", "20")),
    ("18", ("18", None, "20"), ("20", "18", "20", "18")),  # no program: equations are next in line, and tie
    ("18", (None, "20", "18"), ("20", "20", "20", "20")),
    ("18", ("18", None, None), ("18", "18", "18", "18")),
    ("18", (None, None, "20"), ("20", "20", "20", "20")),
    ("18", (None, None, None), (None, None, None, None)),
    ("1/3", ("0.5", "0.33333333", "1/3"), ("0.33333333", "0.33333333", "0.33333333", "0.5")),
    ("b", ("a", "b", "b"), ("b", "b", "b", "a")),
    ("yes", ("no", "yes", "no"), ("yes", "no", "no", "no")),
]


def predictions(number: int, decode: str = "greedy") -> dict[str, Prediction]:
    """Of one problem of the table, by thought; each thought has its own cost."""
    gold, said, _ = PROBLEMS[number]
    made = {
        thought: Prediction(
            problem_id=f"t/test/{number:05}",
            task="t",
            thought=thought,
            decode=decode,
            question=f"q{number}?",
            gold=gold,
            answer=answer,
            is_correct=answer == gold or (gold, answer) == ("1/3", "0.33333333"),
            num_chains=chains,
            num_correct=chains - 1,
            num_tokens=tokens,
        )
        for thought, answer, chains, tokens in zip(ORDER, said, (1, 2, 3), (100, 10, 1), strict=True)
    }
    return {thought: made[thought] for thought in ("eot", "cot", "pot")}  # in another order than any combiner's


def everything(decode: str = "greedy") -> list[Prediction]:
    return [row for number in reversed(range(len(PROBLEMS))) for row in predictions(number, decode).values()]


def right(combiner: str) -> int:
    return sum(bool(row.is_correct) for row in combine_all(parse(combiner), everything(), WEIGHTS))


@pytest.mark.parametrize(
    ("answers", "winner"),
    [
        (["3"], "3"),
        (["4", "3", "3"], "3"),
        (["4", "3"], "4"),
        (["3", "4", "4", "3"], "3"),
        ([None, None, "3"], "3"),
        ([None, "4", None, "3", "3"], "3"),
        ([None, None], None),
        ([], None),
    ],
)
def test_the_most_frequent_answer_wins_and_of_equals_the_first_seen(answers: list[str | None], winner: str | None):
    assert vote(answers) == winner


@given(st.lists(st.none() | st.sampled_from("abc"), max_size=9))
def test_a_vote_is_the_first_of_the_most_frequent(answers: list[str | None]):
    said = [answer for answer in answers if answer is not None]
    most = max(map(said.count, said), default=0)
    assert vote(answers) == next((answer for answer in said if said.count(answer) == most), None)


@pytest.mark.parametrize("number", range(len(PROBLEMS)))
def test_each_combiner_says_what_the_table_says(number: int):
    _, _, expected = PROBLEMS[number]
    said = tuple(combine(parse(text), predictions(number), WEIGHTS).answer for text in COMBINERS)
    assert said == expected


def test_what_a_combiner_says_is_right_where_the_thought_that_says_it_is():
    # Counted by hand from the table: first each thought alone, then each combiner.
    assert [sum(bool(predictions(n)[t].is_correct) for n in range(len(PROBLEMS))) for t in ORDER] == [6, 5, 7]
    assert [right(text) for text in COMBINERS] == [6, 8, 6, 6]


def test_an_oracle_is_right_where_any_thought_is_and_says_that_it_is_a_bound():
    oracle = parse("oracle:cot,pot,eot")
    assert oracle.is_upper_bound
    assert not any(parse(text).is_upper_bound for text in COMBINERS)
    found = combine_all(oracle, everything())
    assert [row.is_correct for row in found] == [
        any(row.is_correct for row in predictions(number).values()) for number in range(len(PROBLEMS))
    ]
    assert all(right(text) <= sum(bool(row.is_correct) for row in found) for text in COMBINERS)
    assert combine(oracle, predictions(5)).answer == "18"


def test_a_combined_prediction_is_of_the_combiner_and_costs_what_it_consulted():
    majority = combine(parse("majority:cot,pot,eot"), predictions(1, "maj@8"))
    assert majority == replace(
        predictions(1, "maj@8")["pot"],
        thought="majority:cot,pot,eot",
        num_chains=6,
        num_correct=3,
        num_tokens=111,
    )
    fallback = parse("fallback:pot,eot,cot")
    costs = [combine(fallback, predictions(number)).num_tokens for number in (0, 6, 8, 10)]
    assert costs == [10, 11, 111, 111]
    assert combine(fallback, predictions(6)).num_chains == 5


def test_decodes_and_problems_are_not_mixed():
    rows = [*everything("maj@8"), *everything()]
    found = combine_all(parse("majority:cot,pot,eot"), rows)
    assert [(row.problem_id, row.decode) for row in found] == sorted({(row.problem_id, row.decode) for row in rows})
    assert [row for row in found if row.decode == "greedy"] == combine_all(parse("majority:cot,pot,eot"), everything())


def test_a_problem_that_lacks_a_thought_is_left_out_and_told(caplog: pytest.LogCaptureFixture):
    rows = [row for row in everything() if (row.problem_id, row.thought) != ("t/test/00003", "eot")]
    found = combine_all(parse("fallback:cot,eot"), rows)
    assert len(found) == len(PROBLEMS) - 1
    assert "1 of 14 problems lack a thought" in caplog.text


def test_thoughts_that_a_combiner_does_not_list_have_no_voice():
    assert combine(parse("majority:cot,pot"), predictions(3)).answer == "18"
    assert combine(parse("majority:pot,cot"), predictions(3)).answer == "20"


@pytest.mark.parametrize(
    ("one", "other", "tolerance", "is_same"),
    [
        ("1/3", "0.3333333", Tolerance(), True),
        ("1/3", "0.333", Tolerance(), False),
        ("1/3", "0.333", Tolerance(absolute=1e-3), True),
        ("1000000", "1000001", Tolerance(), True),
        ("1000000", "1000001", Tolerance(relative=0), False),
        ("50%", "50", Tolerance(), False),
        ("50%", "50.00000001%", Tolerance(), True),
        ("12 apples", "12 pears", Tolerance(), False),
        ("0.50", "0.5", Tolerance(), False),  # text, since no number's canonical form ends in 0
        ("paris", "paris", Tolerance(), True),
    ],
)
def test_answers_of_two_thoughts_are_one_where_numbers_are_close_or_texts_the_same(
    one: str, other: str, tolerance: Tolerance, is_same: bool
):
    rows = predictions(0)
    said = {"cot": "else", "pot": one, "eot": other}
    rows = {thought: replace(row, answer=said[thought]) for thought, row in rows.items()}
    elected = combine(parse("majority:cot,pot,eot"), rows, tolerance=tolerance)
    assert elected.answer == (one if is_same else "else")


@given(st.fractions(max_denominator=10**9), st.booleans())
def test_a_canonical_number_reads_as_itself(value: Fraction, is_percent: bool):
    written = canonical("number", f"{value}{'%' * is_percent}")
    assert written is not None
    assert canonical("number", written) == written


def test_without_gold_answers_nothing_is_right_or_wrong():
    rows = [replace(row, gold=None, is_correct=None) for row in everything()]
    assert {row.is_correct for row in combine_all(parse("majority:cot,pot,eot"), rows)} == {None}
    with pytest.raises(ValueError, match=r"oracle:cot,pot needs gold answers; problem t/test/00000 has none"):
        combine_all(parse("oracle:cot,pot"), rows)


def test_equal_sums_of_accuracies_tie_in_decimals():
    rows = predictions(1)  # cot alone against pot and eot
    assert 0.1 + 0.2 > 0.3
    assert combine(parse("weighted:cot,pot,eot"), rows, {"cot": 0.3, "pot": 0.1, "eot": 0.2}).answer == "18"
    assert combine(parse("weighted:pot,cot,eot"), rows, {"cot": 0.3, "pot": 0.1, "eot": 0.2}).answer == "20"
    assert combine(parse("weighted:cot,pot,eot"), rows, {"cot": 0.3, "pot": 0.1, "eot": 0.21}).answer == "20"


@pytest.mark.parametrize("weights", [None, {"cot": 0.5}])
def test_weights_are_needed_for_every_thought(weights: dict[str, float] | None):
    with pytest.raises(ValueError, match=r"weighted:cot,pot needs the dev accuracy of (cot, )?pot"):
        combine(parse("weighted:cot,pot"), predictions(0), weights)


def test_a_thought_without_any_prediction_is_refused():
    with pytest.raises(ValueError, match=r"majority:cot,socratic: no predictions of socratic"):
        combine_all(parse("majority:cot,socratic"), everything())
    with pytest.raises(ValueError, match=r"majority:cot,socratic needs predictions of socratic"):
        combine(parse("majority:cot,socratic"), predictions(0))
    assert combine_all(parse("majority:cot,pot"), []) == []


@pytest.mark.parametrize("rule", RULES)
def test_a_combiner_is_written_in_one_way(rule: Rule):
    combiner = parse(f" {rule}: pot, eot,cot ")
    assert combiner == Combiner(f"{rule}:pot,eot,cot", rule, ("pot", "eot", "cot"))
    assert parse(combiner.text) == combiner


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("majroity:cot,pot", "unknown rule 'majroity'; did you mean 'majority'? expected one of fallback, majority,"),
        ("cot,pot", "unknown rule 'cot,pot'; expected one of fallback, majority, weighted, oracle"),
        ("", "unknown rule ''"),
        ("majority:cot,soctaric", "unknown thought 'soctaric'; did you mean 'socratic'? expected one of answer, cot,"),
        ("majority:cot,,pot", f"unknown thought ''; expected one of {', '.join(THOUGHTS)}"),
        ("majority:cot,pot,cot", "lists 'cot' twice"),
        ("majority", "has 0 of at least two thoughts, as in 'majority:cot,pot'"),
        ("fallback:eot", "has 1 of at least two thoughts"),
    ],
)
def test_a_combiner_that_cannot_be_is_refused_in_one_line(text: str, complaint: str):
    with pytest.raises(ValueError, match="combiner") as caught:
        parse(text)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)
