"""Which examples form a step: balanced over problems, by weight over thoughts, easy ones first where that is asked."""

import math
import random
from collections import Counter
from collections.abc import Mapping
from itertools import islice
from typing import Any

import pytest

from retort.training.config import TrainingConfig
from retort.training.drawing import draw_steps
from retort.training.examples import TokenizedExample


def steps(
    examples: list[TokenizedExample], count: int, batch_examples: int, group_chains: int, seed: int, **more: Any
) -> list[list[TokenizedExample]]:
    config = TrainingConfig(
        steps=1000, batch_examples=batch_examples, learning_rate=0.1, group_chains=group_chains, seeds=(seed,), **more
    )
    return list(islice(draw_steps(examples, config), count))


def random_examples(count: int, seed: int) -> list[TokenizedExample]:
    """Three chains of each problem."""
    rng = random.Random(seed)

    def ids() -> tuple[int, ...]:
        return tuple(rng.randrange(60) for _ in range(rng.randint(1, 20)))

    return [TokenizedExample(f"p{index // 3}", "cot", ids(), ids()) for index in range(count)]


def thoughts_of(count: int, thoughts: Mapping[str, int]) -> list[TokenizedExample]:
    """Examples of `count` problems, each with so many chains of each thought."""
    return [
        TokenizedExample(f"p{problem}", thought, (chain,), (chain,))
        for problem in range(count)
        for thought, chains in thoughts.items()
        for chain in range(chains)
    ]


def test_steps_are_balanced_over_problems_and_repeat_with_the_seed() -> None:
    examples = random_examples(30, seed=2)
    drawn = steps(examples, 9, 10, 1, seed=3)
    assert drawn == steps(examples, 9, 10, 1, seed=3)
    assert drawn != steps(examples, 9, 10, 1, seed=4)
    for step in drawn:  # ten problems: each step is one epoch
        assert len({example.problem_id for example in step}) == 10


def test_chains_of_a_problem_are_drawn_together_without_repeats() -> None:
    (step,) = steps(random_examples(30, seed=2), 1, 30, 3, seed=0)
    problems = [example.problem_id for example in step]
    assert [problems[index] for index in range(0, 30, 3)] == [problems[index + 2] for index in range(0, 30, 3)]
    assert len(set(step)) == 30


def test_thoughts_are_drawn_by_weight_and_problems_stay_balanced() -> None:
    examples = thoughts_of(10, {"cot": 9, "pot": 2, "eot": 1})
    weights = {"cot": 1.0, "pot": 2.0, "eot": 5.0}
    drawn = [example for step in steps(examples, 800, 10, 1, 0, thought_weights=weights) for example in step]
    assert set(Counter(example.problem_id for example in drawn).values()) == {800}
    shares = {name: count / len(drawn) for name, count in Counter(example.thought for example in drawn).items()}
    assert shares == pytest.approx({"cot": 1 / 8, "pot": 2 / 8, "eot": 5 / 8}, abs=0.02)


def test_without_weights_thoughts_are_drawn_equally_often() -> None:
    drawn = [step[0].thought for step in steps(thoughts_of(1, {"cot": 9, "pot": 1}), 4000, 1, 1, 0)]
    assert Counter(drawn)["cot"] / 4000 == pytest.approx(0.5, abs=0.03)


def test_chains_drawn_together_are_of_one_thought() -> None:
    drawn = steps(thoughts_of(5, {"cot": 4, "pot": 4}), 40, 4, 4, seed=0)
    assert {len({(example.problem_id, example.thought) for example in step}) for step in drawn} == {1}
    assert {step[0].thought for step in drawn} == {"cot", "pot"}


def test_weights_change_nothing_where_a_problem_has_one_thought() -> None:
    examples = random_examples(30, seed=2)
    plain = steps(examples, 20, 10, 2, seed=3)
    assert steps(examples, 20, 10, 2, 3, thought_weights={"cot": 0.1, "pot": 7.0}) == plain
    # What was drawn before thoughts were mixed, so that trainings of one thought stay the same.
    rng = random.Random(3)
    problems = sorted({example.problem_id for example in examples})
    rng.shuffle(problems)
    chains = [example for example in examples if example.problem_id == problems[0]]
    assert plain[0][:2] == rng.sample(chains, 2)


def test_a_thought_without_a_weight_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"thought_weights has none for 'pot', got \['cot'\]; expected a weight"):
        steps(thoughts_of(1, {"cot": 1, "pot": 1}), 1, 1, 1, 0, thought_weights={"cot": 1.0})


def test_chains_of_a_problem_weigh_as_much_as_the_one_of_another() -> None:
    examples = [example for example in thoughts_of(6, {"cot": 4}) if example.problem_id != "p0"]
    examples.append(TokenizedExample("p0", "cot", (1,), (2,)))
    (step,) = steps(examples, 1, 21, 4, 0, chain_weights="per_problem")
    weights: Counter[str] = Counter()
    for example in step:
        weights[example.problem_id] += example.weight  # type: ignore[assignment]
    assert dict(weights) == {f"p{number}": 1.0 for number in range(6)}
    assert {example.weight for example in step} == {1.0, 0.25}
    (step,) = steps(examples, 1, 21, 4, 0)
    assert {example.weight for example in step} == {1.0}


def by_difficulty(count: int) -> list[TokenizedExample]:
    """Problems of which each is easier than the one before."""
    return [
        TokenizedExample(f"p{number:03d}", "cot", (number,), (chain,), pass_rate=(number + 1) / count)
        for number in range(count)
        for chain in range(2)
    ]


@pytest.mark.parametrize("batch_examples", [10, 2], ids=["a few steps an epoch", "many steps an epoch"])
def test_a_curriculum_begins_with_the_easiest_problems_and_ends_with_all(batch_examples: int) -> None:
    count, curriculum = 100, 40
    drawn = steps(by_difficulty(count), 400, batch_examples, 1, 0, curriculum_steps=curriculum)
    numbers = [[int(example.problem_id[1:]) for example in step] for step in drawn]
    for step, each in enumerate(numbers[:curriculum]):
        # Eq. 7 with c0 = 0.1. What was drawn for a step before it may be used in it.
        share = math.sqrt(step * 0.99 / curriculum + 0.01)
        assert min(each) >= count - math.ceil(share * count), "too hard for its step"
    assert min(numbers[0]) >= 90, "the easiest tenth comes first"
    assert min(min(each) for each in numbers[: curriculum // 2]) < 60
    after = [number for each in numbers[curriculum : curriculum + 2 * count // batch_examples] for number in each]
    assert len(set(after)) == count, "all take part as soon as it has ended"
    late = Counter(number for each in numbers[-(200 // batch_examples) :] for number in each)
    assert max(late.values()) - min(late.values()) <= 2, "then all are visited equally often"
    # The same examples without a curriculum are mixed from the start.
    mixed = steps(by_difficulty(count), 5, batch_examples, 1, 0)
    assert min(int(example.problem_id[1:]) for step in mixed for example in step) < 50


def test_a_curriculum_over_problems_of_unknown_difficulty_is_refused() -> None:
    with pytest.raises(ValueError, match="curriculum_steps: nobody knows how hard p0 is; expected chains of a teacher"):
        steps(thoughts_of(3, {"cot": 1}), 1, 1, 1, 0, curriculum_steps=5)
