"""Picks and the budgets over a whole corpus: which of the chains that qualify are taken, without Ray."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.cluster import AgglomerativeClustering

from retort.questions import embed
from retort.records import Verdict
from retort.selection import SelectionConfig, select
from retort.selection.budgets import Limit, Source, Supply, limits, quintile_budgets, take_turns
from retort.selection.config import Pick
from retort.selection.picks import ORDERS, diverse, likely, shortest
from retort.selection.rules import unique_bigrams

CHAIN = Verdict(
    "t/train/0", "t", "train", "cot", 0, "q?", "Question: q?\n", "3", "", "3", True, "correct", 5, 6, "m", logprob=-6.0
)
TEXTS = (
    "1 + 2 = 3. The answer is 3.",
    "One and two are three. The answer is 3.",
    "2 + 1 = 3. The answer is 3.",
    "First add the apples, then the pears, which makes three fruits. The answer is 3.",
    "",
    "1 + 2 = 3. The answer is 3.",
    "4 - 1 = 3. The answer is 3.",
    "The dog ate one of four bones, so three bones are left. The answer is 3.",
)
PICKS: tuple[Pick, ...] = get_args(Pick)


def chains(*texts: str, **fields: Any) -> list[Verdict]:
    return [
        replace(CHAIN, index=index, text=text, num_tokens=1 + len(text.split()), **fields)
        for index, text in enumerate(texts)
    ]


def indexes(rows: Sequence[Verdict]) -> list[int]:
    return [row.index for row in rows]


some_chains = st.lists(
    st.tuples(st.sampled_from(TEXTS), st.integers(1, 9), st.integers(-90, 0)), min_size=1, max_size=9
).map(
    lambda rows: [
        replace(CHAIN, index=index, text=text, num_tokens=tokens, logprob=float(logprob))
        for index, (text, tokens, logprob) in enumerate(rows)
    ]
)


@given(rows=some_chains, seed=st.integers(0, 3), shuffle=st.randoms(use_true_random=False))
@pytest.mark.parametrize("pick", PICKS)
def test_a_pick_is_an_order_of_all_chains_that_the_order_of_rows_does_not_change(
    pick: Pick, rows: list[Verdict], seed: int, shuffle: random.Random
):
    ordered = ORDERS[pick](rows, seed)
    assert Counter(ordered) == Counter(rows)
    assert ORDERS[pick](shuffle.sample(rows, len(rows)), seed) == ordered


@given(rows=some_chains, small=st.integers(3, 6), more=st.integers(1, 4), seed=st.integers(0, 3))
@pytest.mark.parametrize("pick", [pick for pick in PICKS if pick != "open_ended"])
def test_a_larger_budget_keeps_what_a_smaller_one_picks_and_every_budget_is_used_up(
    pick: Pick, rows: list[Verdict], small: int, more: int, seed: int
):
    def taken(budget: int) -> list[Verdict]:
        config = SelectionConfig(pick=pick, chains_per_problem=budget, seed=seed)
        return [verdict for verdict, fate in select(rows, config) if fate == "selected"]

    few, many = taken(small), taken(small + more)
    assert len(few) == min(small, len(rows))
    assert many[: len(few)] == few


def test_random_picks_differ_by_seed_and_by_problem():
    rows = chains(*TEXTS)
    assert len({tuple(indexes(ORDERS["random"](rows, seed))) for seed in range(8)}) == 8
    others = [[replace(row, problem_id=f"t/train/{number}") for row in rows] for number in range(8)]
    assert len({tuple(indexes(ORDERS["random"](other, 0))) for other in others}) == 8


def test_random_picks_draw_every_chain_equally_often():
    drawn = Counter(ORDERS["random"](chains(*TEXTS), seed)[0].index for seed in range(4000))
    assert set(drawn) == set(range(len(TEXTS)))
    assert max(abs(count - 500) for count in drawn.values()) < 5 * (4000 * 7 / 64) ** 0.5


@pytest.mark.parametrize("budget", range(1, len(TEXTS) + 1))
def test_diverse_picks_are_one_of_each_cluster_of_average_linkage(budget: int):
    rows = chains(*TEXTS)
    vectors = embed(TEXTS)
    clustering = AgglomerativeClustering(n_clusters=budget, metric="precomputed", linkage="average")
    clusters = clustering.fit_predict((1 - vectors @ vectors.T).round(5))
    for seed in range(5):
        picked = indexes(diverse(rows, seed)[:budget])
        assert len({clusters[index] for index in picked}) == budget


def test_diverse_picks_are_drawn_within_their_cluster_and_take_no_text_twice_while_others_are_left():
    rows = chains("1 + 2 = 3.", "1 + 2 = 3.", "1 + 2 = 3.", "The dog ate a bone.", "The dog ate a bone.")
    picked = [{rows[index].text for index in indexes(diverse(rows, seed)[:2])} for seed in range(20)]
    assert all(len(texts) == 2 for texts in picked)
    assert len({diverse(rows, seed)[0].index for seed in range(40)}) == len(rows)


def test_diverse_picks_are_less_alike_than_random_ones():
    rows = chains(*(text for text in TEXTS if text))
    near, far = ([_mean_cosine(ORDERS[pick](rows, seed)[:3]) for seed in range(20)] for pick in ("random", "diverse"))
    assert np.mean(far) < np.mean(near) - 0.05


def _mean_cosine(rows: Sequence[Verdict]) -> float:
    vectors = embed([row.text for row in rows])
    return float((vectors @ vectors.T)[np.triu_indices(len(rows), k=1)].mean())


def test_likelihood_is_counted_per_token():
    rows = [
        replace(CHAIN, index=index, logprob=logprob, num_tokens=tokens)
        for index, (logprob, tokens) in enumerate([(-6.0, 3), (-8.0, 8), (-2.0, 1), (-9.0, 9), (0.0, 0)])
    ]
    assert indexes(likely(rows, 0)) == [4, 1, 3, 0, 2]


def test_a_chain_without_a_log_probability_is_refused():
    with pytest.raises(ValueError, match=r"t/train/0, cot, chain 1 has no log-probability"):
        likely([CHAIN, replace(CHAIN, index=1, logprob=None)], 0)


def test_the_shortest_has_the_fewest_tokens_and_characters_where_tokens_are_not_known():
    rows = [replace(CHAIN, index=index, text="x" * size, num_tokens=n) for index, (n, size) in enumerate(SIZES)]
    assert indexes(shortest(rows, 0)) == [2, 0, 1]
    assert indexes(shortest([replace(row, num_tokens=0) for row in rows], 0)) == [1, 0, 2]


SIZES = ((3, 20), (4, 10), (2, 30))


# Open-endedness


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["a b c"], 2),
        (["a b c", "A  b C"], 2),  # one text, twice
        (["a b", "b c"], 2),  # no pair runs across two chains
        (["a", ""], 0),
        (["3+4", "3 - 4"], 4),
    ],
)
def test_open_endedness_counts_each_pair_of_words_once(texts: list[str], expected: int):
    assert unique_bigrams(chains(*texts)) == expected


@pytest.mark.parametrize("budget", range(3, 31))
def test_the_quintiles_get_1_3_5_7_9_fifths_of_the_budget_and_it_is_their_mean(budget: int):
    given_ = quintile_budgets({f"p{number}": number for number in range(20)}, budget, 0)
    fifths = [given_[f"p{number}"] for number in range(0, 20, 4)]
    assert fifths == [round(budget * weight / 5) for weight in (1, 3, 5, 7, 9)]
    assert sum(given_.values()) == 20 * budget
    assert min(given_.values()) >= 1


def test_the_quintiles_of_scotd():
    given_ = quintile_budgets({f"p{number}": number % 7 for number in range(100)}, 5, 0)
    assert Counter(given_.values()) == dict.fromkeys((1, 3, 5, 7, 9), 20)


@given(bigrams=st.dictionaries(st.text("ab", min_size=1), st.integers(0, 5), min_size=1), seed=st.integers(0, 3))
def test_a_more_open_ended_problem_gets_no_smaller_budget(bigrams: dict[str, int], seed: int):
    given_ = quintile_budgets(bigrams, 5, seed)
    assert given_.keys() == bigrams.keys()
    assert all(given_[one] <= given_[other] for one in given_ for other in given_ if bigrams[one] < bigrams[other])
    assert quintile_budgets(dict(reversed(bigrams.items())), 5, seed) == given_


def test_quintiles_are_cut_by_thought_and_split_and_only_training_chains_count_against_the_total():
    config = SelectionConfig(pick="open_ended", chains_per_problem=5, total_chains=30)
    offers = {
        Source(f"{split}{number}", f"{thought}/m"): Supply(split, thought, number, 9)
        for split in ("train", "dev")
        for thought in ("cot", "pot")
        for number in range(5)
    }
    allowed = limits(offers, config)
    for split in ("train", "dev"):
        for thought in ("cot", "pot"):
            by_pick = [allowed[Source(f"{split}{number}", f"{thought}/m")].by_pick for number in range(5)]
            assert by_pick == [1, 3, 5, 7, 9]
    totals = Counter[str]()
    for source, limit in allowed.items():
        totals[offers[source].split] += limit.by_total
    assert totals == {"train": 30, "dev": 50}


# A budget over the whole corpus

offered = st.dictionaries(
    st.tuples(st.sampled_from("pqrstuv"), st.sampled_from(("cot/m", "cot/n", "pot/m"))).map(lambda pair: Source(*pair)),
    st.integers(1, 4),
    min_size=1,
)


@given(offered=offered, total=st.integers(1, 40), seed=st.integers(0, 3))
def test_problems_take_turns(offered: dict[Source, int], total: int, seed: int):
    taken = take_turns(offered, total, seed)
    assert taken.keys() == offered.keys()
    assert sum(taken.values()) == min(total, sum(offered.values()))
    assert all(taken[source] <= offered[source] for source in offered)
    by_problem, most = Counter[str](), Counter[str]()
    for source in offered:
        by_problem[source.problem_id] += taken[source]
        most[source.problem_id] += offered[source]
    ahead = max(by_problem.values())
    assert all(by_problem[problem] >= min(ahead - 1, most[problem]) for problem in most), "one took two turns at once"
    for one in offered:
        others = (other for other in offered if other.problem_id == one.problem_id)
        assert all(taken[other] >= min(taken[one] - 1, offered[other]) for other in others), "one source was favoured"


@given(offered=offered, total=st.integers(1, 40), more=st.integers(0, 9), seed=st.integers(0, 3))
def test_a_larger_total_keeps_what_a_smaller_one_takes(offered: dict[Source, int], total: int, more: int, seed: int):
    small, large = take_turns(offered, total, seed), take_turns(offered, total + more, seed)
    assert all(small[source] <= large[source] for source in offered)
    assert take_turns(dict(reversed(offered.items())), total, seed) == small


def test_the_turn_that_does_not_fit_is_drawn():
    offered = {Source(problem, "cot/m"): 1 for problem in "pqrs"}
    drawn = Counter(
        source.problem_id for seed in range(400) for source, count in take_turns(offered, 1, seed).items() if count
    )
    assert set(drawn) == set("pqrs")
    assert all(60 < count < 140 for count in drawn.values())


@given(offered=offered, total=st.integers(1, 40))
def test_without_a_total_the_picks_of_each_problem_stand(offered: dict[Source, int], total: int):
    offers = {source: Supply("train", source.source[:3], 0, count) for source, count in offered.items()}
    assert limits(offers, SelectionConfig()) == {source: Limit(count, count) for source, count in offered.items()}
    assume(total < sum(offered.values()))
    assert limits(offers, SelectionConfig(total_chains=total)) != limits(offers, SelectionConfig())


# What cannot be picked by


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        *(({"pick": pick}, f"pick = '{pick}' without chains_per_problem") for pick in PICKS if pick != "first"),
        ({"pick": "open_ended", "chains_per_problem": 2}, "expected at least 3"),
        ({"min_pass_rate": 0.5, "max_pass_rate": 0.25}, "min_pass_rate = 0.5 is above max_pass_rate = 0.25"),
        ({"label_fraction": 0}, "greater than 0"),
        ({"max_overlap": 1}, "less than 1"),
        ({"deduplicate": "nearly"}, "'none', 'exact' or 'near'"),
    ],
)
def test_settings_that_cannot_be_kept_are_refused(fields: dict[str, Any], complaint: str):
    with pytest.raises(ValidationError, match=complaint):
        SelectionConfig(**fields)


def test_settings_say_what_they_need():
    assert SelectionConfig().needs_chains == ()
    assert SelectionConfig(label_fraction=0.5, max_overlap=0.5, seed=3, rule="all").needs_chains == ()
    config = SelectionConfig(pick="random", chains_per_problem=2, num_chains=4, max_pass_rate=0.9, deduplicate="exact")
    assert config.needs_equal_chains == ("pick", "num_chains", "max_pass_rate")
    assert config.needs_chains == ("pick", "num_chains", "max_pass_rate", "chains_per_problem", "deduplicate")
