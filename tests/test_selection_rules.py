"""Selection of one problem's chains, and what labels alone teach: the pure part of `selection`."""

import itertools
import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retort.records import Problem, Verdict, to_table
from retort.selection import SelectionConfig, example, label, select, select_group
from retort.thoughts import THOUGHTS
from retort.verification import REASONS

VERDICT = Verdict(
    "t/train/0", "t", "train", "cot", 0, "q?", "Question: q?\n", "3", " It is 3. ", "3", True, "correct", 5, 6, "m"
)


def verdicts(*reasons: str, **fields: Any) -> list[Verdict]:
    return [replace(VERDICT, index=index, reason=reason, **fields) for index, reason in enumerate(reasons)]


def fates(rows: list[Verdict], **config: Any) -> list[str]:
    return [fate for _, fate in select(rows, SelectionConfig(**config))]


ALL = verdicts(
    "correct", "wrong", "no_answer", "truncated", "undecided", "unlabelled", "wrong_step", "correct", "correct"
)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (
            {},
            [
                "selected",
                "wrong",
                "no_answer",
                "truncated",
                "undecided",
                "unlabelled",
                "wrong_step",
                "selected",
                "selected",
            ],
        ),
        (
            {"chains_per_problem": 2},
            [
                "selected",
                "wrong",
                "no_answer",
                "truncated",
                "undecided",
                "unlabelled",
                "wrong_step",
                "selected",
                "over_budget",
            ],
        ),
        (
            {"rule": "all"},
            ["selected"] * 3 + ["truncated"] + ["selected"] * 5,
        ),
        (
            {"rule": "all", "chains_per_problem": 4},
            ["selected"] * 3 + ["truncated", "selected"] + ["over_budget"] * 4,
        ),
    ],
)
def test_a_rule_takes_the_first_by_index_and_says_why_not(config: dict[str, Any], expected: list[str]):
    assert fates(ALL, **config) == expected


def test_the_table_holds_every_reason():
    assert {verdict.reason for verdict in ALL} == set(REASONS)


def test_the_order_of_the_verdicts_does_not_matter():
    config = SelectionConfig(chains_per_problem=2)
    expected = select(ALL, config)
    for seed in range(20):
        assert select(random.Random(seed).sample(ALL, len(ALL)), config) == expected
    assert select(iter(ALL), config) == expected


def test_budgets_count_by_teacher_and_thought():
    rows = [
        replace(verdict, model_id=model, thought=thought)
        for model, thought in itertools.product(("big", "small"), ("cot", "pot"))
        for verdict in verdicts("wrong", "correct", "correct", "correct")
    ]
    kept = [verdict for verdict, fate in select(rows, SelectionConfig(chains_per_problem=2)) if fate == "selected"]
    assert Counter((verdict.model_id, verdict.thought, verdict.index) for verdict in kept) == Counter(
        itertools.product(("big", "small"), ("cot", "pot"), (1, 2))
    )


@given(
    rows=st.lists(st.tuples(st.sampled_from(["m", "n"]), st.integers(0, 9), st.sampled_from(REASONS)), max_size=20),
    rule=st.sampled_from(["correct", "all"]),
    budget=st.none() | st.integers(1, 5),
)
def test_every_verdict_gets_exactly_one_fate(rows: list[tuple[str, int, str]], rule: Any, budget: int | None):
    given_ = [replace(VERDICT, model_id=model, index=index, reason=reason) for model, index, reason in rows]
    made = select(given_, SelectionConfig(rule=rule, chains_per_problem=budget))
    assert Counter(verdict for verdict, _ in made) == Counter(given_)
    for verdict, fate in made:
        assert fate in {"selected", "over_budget", verdict.reason}
        assert fate != "selected" or verdict.reason != "truncated"
        assert rule == "all" or fate != "selected" or verdict.reason == "correct"
    taken = Counter(verdict.model_id for verdict, fate in made if fate == "selected")
    assert budget is None or all(count <= budget for count in taken.values())


def test_a_smaller_budget_takes_a_part_of_what_a_larger_one_takes():
    def kept(budget: int | None) -> set[Verdict]:
        return {
            verdict for verdict, fate in select(ALL, SelectionConfig(chains_per_problem=budget)) if fate == "selected"
        }

    assert kept(1) < kept(2) < kept(3) == kept(None)


def test_an_example_is_the_students_prompt_and_the_chain_without_blanks_around_it():
    table = select_group(to_table(Verdict, ALL[:2]), SelectionConfig())
    assert table.column("fate").to_pylist() == ["selected", "wrong"]
    (row, _) = table.drop_columns("fate").to_pylist()
    assert (row["prompt"], row["target"], row["index"]) == ("Question: q?\n", "It is 3.", 0)


def votes(*answers: str | None) -> list[Verdict]:
    """Chains of a problem whose gold answer is 3."""
    return [
        replace(
            VERDICT,
            index=index,
            answer=answer,
            reason="no_answer" if answer is None else "correct" if answer == "3" else "wrong",
        )
        for index, answer in enumerate(answers)
    ]


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (["4", "3", "4"], ["selected", "minority", "selected"]),  # label-free: the gold answer has no say
        (["3", "4", None], ["selected", "minority", "no_answer"]),  # a tie goes to the first seen
        ([None, None], ["no_answer", "no_answer"]),
    ],
)
def test_a_majority_is_the_teachers_most_frequent_answer(answers: list[str | None], expected: list[str]):
    assert fates(votes(*answers), rule="majority") == expected


def test_majorities_are_counted_by_teacher_and_thought():
    rows = [replace(verdict, thought="cot") for verdict in votes("4", "4", "3")]
    rows += [replace(verdict, thought="pot") for verdict in votes("3", "3", "4")]
    assert fates(rows, rule="majority") == ["selected", "selected", "minority", "selected", "selected", "minority"]


def test_the_answer_alone_is_taught_as_a_label_under_the_cue_of_labels():
    chain = replace(
        VERDICT, prompt=f"Question: q?\n{THOUGHTS['cot'].CUE}\n", text="1 + 3 = 4. The answer is 4.", answer="4"
    )
    made = example(chain, "answer")
    assert (made.thought, made.prompt, made.target) == ("answer", f"Question: q?\n{THOUGHTS['answer'].CUE}\n", "4")
    asked = label(Problem("t/train/0", "t", "train", "q?", "number", "3"), "answer")
    assert asked is not None
    assert asked.prompt == made.prompt
    assert example(chain, "chain").target == chain.text


@pytest.mark.parametrize(
    ("text", "fate"),
    [
        ("How? ** <<1+2=3>>3\n#### 3", "selected"),
        ("How? ** <<1+2=4>>4\n#### 3", "not_concluded"),
        ("It is three.\n#### 3", "not_in_layout"),
    ],
)
def test_a_socratic_chain_is_learned_only_if_all_its_parts_can_be(text: str, fate: str):
    assert fates([replace(VERDICT, thought="socratic", text=text)]) == [fate]
    assert fates([replace(VERDICT, thought="cot", text=text)]) == ["selected"]


def test_a_chain_without_an_answer_gives_no_label():
    assert fates(votes("4", None), rule="all", target="answer") == ["selected", "no_answer"]


# Labels

PROBLEM = Problem("t/dev/00003", "t", "dev", "How many?", "number", "3")


def test_labels_teach_the_answer_under_the_students_prompt():
    made = label(PROBLEM, "answer")
    assert made is not None
    assert (made.problem_id, made.split, made.thought, made.index) == ("t/dev/00003", "dev", "answer", 0)
    assert made.prompt == f"Question: How many?\n{THOUGHTS['answer'].CUE}\n"
    assert made.target == "3"


@pytest.mark.parametrize(("problem", "thought"), [(replace(PROBLEM, answer=None), "answer"), (PROBLEM, "cot")])
def test_labels_teach_nothing_without_an_answer_and_no_reasoning(problem: Problem, thought: str):
    assert label(problem, thought) is None
