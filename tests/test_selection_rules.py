"""Selection of one problem's chains, and what labels alone teach: the pure part of `selection`."""

import itertools
import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retort.cluster.skew import installed
from retort.records import Problem, Verdict, to_table
from retort.selection import SelectionConfig, example, label, left_out, select, select_group
from retort.thoughts import THOUGHTS
from retort.verification import REASONS

VERDICT = Verdict(
    "t/train/0", "t", "train", "cot", 0, "q?", "Question: q?\n", "3", " It is 3. ", "3", True, "correct", 5, 6, "m"
)


def verdicts(*reasons: str, **fields: Any) -> list[Verdict]:
    return [replace(VERDICT, index=index, reason=reason, **fields) for index, reason in enumerate(reasons)]


def fates(rows: list[Verdict], **config: Any) -> list[str]:
    """By thought and index, whatever was picked first."""
    made = select(rows, SelectionConfig(**config))
    return [fate for _, fate in sorted(made, key=lambda pair: (pair[0].thought, pair[0].index))]


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
    table = select_group(to_table(Verdict, ALL[:2]), SelectionConfig(), {}, installed())
    assert table.column("fate").to_pylist() == ["selected", "wrong"]
    (row, _) = table.to_pylist()
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
    made = example(chain, "answer", None)
    assert (made.thought, made.prompt, made.target) == ("answer", f"Question: q?\n{THOUGHTS['answer'].CUE}\n", "4")
    asked = label(Problem("t/train/0", "t", "train", "q?", "number", "3"), "answer")
    assert asked is not None
    assert asked.prompt == made.prompt
    taught = example(chain, "chain", 0.25)
    assert (taught.target, taught.pass_rate) == (chain.text, 0.25)


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


# What is learned of a problem at all


def says(*texts: str, **fields: Any) -> list[Verdict]:
    return [replace(VERDICT, index=index, text=text, **fields) for index, text in enumerate(texts)]


def test_a_chain_that_repeats_one_that_qualifies_is_dropped_before_the_pick():
    rows = says("It is 3.", "it is 3 .", "So it is 3.", "It is 4.", "It is 4 .")
    rows[3:] = [replace(row, reason="wrong", answer="4") for row in rows[3:]]
    kept = ["selected", "duplicate", "selected", "wrong", "wrong"]
    assert fates(rows, deduplicate="exact") == kept
    assert fates(rows, deduplicate="exact", chains_per_problem=2) == kept
    assert fates(rows, chains_per_problem=2) == ["selected", "selected", "over_budget", "wrong", "wrong"]


def test_a_near_duplicate_shares_most_of_its_words_with_an_earlier_chain():
    rows = says("a b c d e f", "a b c d e g", "g f e d c b a")
    assert fates(rows, deduplicate="near", near_similarity=0.6) == ["selected", "near_duplicate", "selected"]
    assert fates(rows, deduplicate="near") == fates(rows, deduplicate="exact") == ["selected"] * 3


def test_chains_of_two_teachers_repeat_each_other_and_those_under_two_thoughts_do_not():
    rows = [replace(VERDICT, model_id=model, thought=thought) for model in "mn" for thought in ("cot", "pot")]
    made = {(row.model_id, row.thought): fate for row, fate in select(rows, SelectionConfig(deduplicate="exact"))}
    assert made == {
        ("m", "cot"): "selected",
        ("n", "cot"): "duplicate",
        ("m", "pot"): "selected",
        ("n", "pot"): "duplicate",
    }


def test_labels_of_a_teacher_repeat_each_other_by_their_answer():
    rows = votes("4", "3", "4", None)
    assert fates(rows, rule="all", target="answer", deduplicate="exact") == [
        "selected",
        "selected",
        "duplicate",
        "no_answer",
    ]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"min_pass_rate": 0.5}, "selected"),
        ({"min_pass_rate": 0.51}, "too_hard"),
        ({"max_pass_rate": 0.5}, "selected"),
        ({"max_pass_rate": 0.49}, "too_easy"),
        ({"min_pass_rate": 0.25, "max_pass_rate": 0.75}, "selected"),
    ],
)
def test_a_problem_that_is_solved_too_often_or_too_seldom_is_left_out(config: dict[str, Any], expected: str):
    rows = verdicts("correct", "wrong", "truncated", "correct")
    assert fates(rows, **config) == [expected, "wrong", "truncated", expected]
    assert fates(rows, rule="all", **config) == [expected, expected, "truncated", expected]


def test_the_pass_rate_is_of_one_thought():
    rows = [*verdicts("correct", "wrong"), *verdicts("correct", "correct", thought="pot")]
    assert fates(rows, max_pass_rate=0.9) == ["selected", "wrong", "too_easy", "too_easy"]


def test_a_problem_without_a_gold_answer_has_no_pass_rate():
    rows = verdicts("unlabelled", "unlabelled", gold=None, is_correct=None)
    assert fates(rows, rule="all", min_pass_rate=0.0) == ["unlabelled", "unlabelled"]
    assert fates(rows, rule="all") == ["selected", "selected"]


def test_every_chain_of_a_problem_that_is_left_out_says_why():
    made = select(ALL, SelectionConfig(), {VERDICT.problem_id: "contaminated"})
    assert {fate for _, fate in made} == {"contaminated"}
    assert select(ALL, SelectionConfig(), {"t/train/1": "contaminated"}) == select(ALL, SelectionConfig())


def problems(count: int) -> list[Problem]:
    return [
        replace(PROBLEM, id=f"t/{split}/{number}", split=split) for number in range(count) for split in ("train", "dev")
    ]


@pytest.mark.parametrize(("fraction", "kept"), [(0.1, 3), (0.29, 9), (0.5, 15), (0.01, 1), (1.0, 30)])
def test_a_label_fraction_keeps_an_exact_share_of_the_training_problems(fraction: float, kept: int):
    out = left_out(problems(30), {}, SelectionConfig(label_fraction=fraction))
    assert set(out.values()) <= {"unlabelled"}
    assert len(out) == 30 - kept
    assert all("/train/" in problem_id for problem_id in out)


@given(small=st.floats(0.01, 1), large=st.floats(0.01, 1), seed=st.integers(0, 3), shuffle=st.randoms())
def test_a_larger_label_fraction_holds_a_smaller_one(small: float, large: float, seed: int, shuffle: random.Random):
    small, large = sorted((small, large))
    few = left_out(problems(20), {}, SelectionConfig(label_fraction=small, seed=seed))
    many = left_out(problems(20), {}, SelectionConfig(label_fraction=large, seed=seed))
    assert many.keys() <= few.keys()
    shuffled = shuffle.sample(problems(20), 40)
    assert left_out(shuffled, {}, SelectionConfig(label_fraction=small, seed=seed)) == few


def test_every_task_keeps_its_share_of_labels_whatever_else_a_corpus_has():
    one = problems(20)
    other = [replace(problem, id=f"other/{problem.id}", task="other") for problem in problems(5)]
    config = SelectionConfig(label_fraction=0.2)
    together = left_out([*one, *other], {}, config)
    assert together == left_out(one, {}, config) | left_out(other, {}, config)
    assert sum(problem_id.startswith("other/") for problem_id in together) == 4


def test_other_seeds_label_other_problems():
    halves = [left_out(problems(20), {}, SelectionConfig(label_fraction=0.5, seed=seed)) for seed in range(5)]
    assert len({tuple(sorted(half)) for half in halves}) == 5


def test_problems_whose_question_is_in_a_test_are_left_out_above_a_share():
    overlaps = {"t/train/0": 0.0, "t/train/1": 0.5, "t/dev/0": 0.51, "t/train/2": 1.0}
    config = SelectionConfig(max_overlap=0.5)
    assert left_out(problems(3), overlaps, config) == dict.fromkeys(("t/dev/0", "t/train/2"), "contaminated")
    assert left_out(problems(3), overlaps, SelectionConfig()) == {}
    both = left_out(problems(3), overlaps, config.model_copy(update={"label_fraction": 0.3}))
    assert both["t/train/2"] == "contaminated"
    assert len([problem_id for problem_id in both if "/train/" in problem_id]) in (2, 3)
