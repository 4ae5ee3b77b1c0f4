"""How examples are laid out changes how a step is computed, never what is computed."""

import random
from collections import Counter
from itertools import islice
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, BloomConfig

import families
from families import one_thread as one_thread
from retort.training.config import TrainingConfig
from retort.training.examples import TokenizedExample, draw_steps
from retort.training.loop import fit, summed_loss
from retort.training.packing import (
    IGNORED,
    MicroBatch,
    PairBatch,
    keeps_apart,
    layout,
    micro_batches,
    pack,
    pair_batches,
    single_batches,
)

VOCABULARY = 60
CPU = torch.device("cpu")
CONFIG = TrainingConfig(steps=1, batch_examples=1, learning_rate=0.1, row_tokens=48, micro_batch_rows=2)


def tiny_model(family: str) -> Any:
    # T5 starts from weights that are large as they are.
    return families.random_model(families.architecture(family, VOCABULARY), scale=1.0 if family == "t5" else 3.0)


def random_examples(count: int, seed: int, longest: int = 20) -> list[TokenizedExample]:
    rng = random.Random(seed)

    def ids() -> tuple[int, ...]:
        return tuple(rng.randrange(VOCABULARY) for _ in range(rng.randint(1, longest)))

    return [TokenizedExample(f"p{index // 3}", "cot", ids(), ids()) for index in range(count)]


def plain_loss(model: Any, examples: list[TokenizedExample]) -> torch.Tensor:
    """One forward pass an example: what every layout must equal."""
    total = torch.zeros(())
    for example in examples:
        target = torch.tensor(example.target_ids)
        if model.config.is_encoder_decoder:
            read = torch.tensor([[families.END, *example.target_ids[:-1]]])
            logits_TV = model(input_ids=torch.tensor([example.prompt_ids]), decoder_input_ids=read).logits[0]
        else:
            logits_TV = model(input_ids=torch.tensor([example.prompt_ids + example.target_ids])).logits[0]
            logits_TV = logits_TV[len(example.prompt_ids) - 1 : -1]
        total = total + cross_entropy(logits_TV, target, reduction="sum")
    return total


def laid_out_loss(model: Any, examples: list[TokenizedExample], row_tokens: int = 48) -> torch.Tensor:
    lay_out = layout(model, CONFIG.model_copy(update={"row_tokens": row_tokens}), families.END)
    return sum((summed_loss(model, batch, CPU) for batch in lay_out(examples)), torch.zeros(()))


def gradients(model: torch.nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("family", families.FAMILIES)
def test_loss_and_gradients_of_a_step_equal_those_of_its_examples_alone(family: str) -> None:
    model = tiny_model(family)
    for seed in range(4):
        examples = random_examples(9, seed)
        plain, laid_out = plain_loss(model, examples), laid_out_loss(model, examples)
        torch.testing.assert_close(laid_out, plain, rtol=1e-5, atol=1e-5)
        expected, got = gradients(model, plain), gradients(model, laid_out)
        assert any(gradient.abs().max() > 1e-3 for gradient in expected.values())
        for parameter, gradient in expected.items():
            scale = gradient.abs().max().item()
            torch.testing.assert_close(got[parameter], gradient, rtol=1e-4, atol=1e-5 * max(1.0, scale))


def test_an_example_does_not_see_its_neighbour_in_the_row() -> None:
    model = tiny_model("llama")
    first, second = random_examples(2, seed=7)
    other = TokenizedExample("x", "cot", tuple(reversed(first.prompt_ids)), first.target_ids)
    together = laid_out_loss(model, [first, second], 64) - plain_loss(model, [first])
    beside_another = laid_out_loss(model, [other, second], 64) - plain_loss(model, [other])
    torch.testing.assert_close(together, beside_another, rtol=1e-5, atol=1e-5)
    # The guard: without the restarts of positions the neighbour is seen.
    (leaky,) = micro_batches([first, second], 64, 1, 0)
    leaky.position_ids_BT.copy_(torch.arange(64))
    assert (summed_loss(model, leaky, CPU) - laid_out_loss(model, [first, second], 64)).abs() > 1e-3


def test_models_that_mix_packed_examples_are_found_out() -> None:
    bloom = AutoModelForCausalLM.from_config(BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=2))
    assert {family: keeps_apart(tiny_model(family)) for family in families.DECODERS} == {
        "llama": True,
        "qwen2": True,
        "gpt2": True,
        "opt": False,
    }
    assert not keeps_apart(bloom)
    # bfloat16 rounds to three digits: what is only rounding must not be taken for a neighbour, or for a wrong position.
    assert keeps_apart(tiny_model("gpt2").bfloat16())
    assert not keeps_apart(tiny_model("opt").bfloat16())


def test_each_kind_of_model_gets_its_own_layout() -> None:
    examples = random_examples(9, seed=0)
    batches = {family: list(layout(tiny_model(family), CONFIG, 0)(examples)) for family in ("llama", "opt", "t5")}
    assert {family: {type(batch) for batch in made} for family, made in batches.items()} == {
        "llama": {MicroBatch},
        "opt": {MicroBatch},
        "t5": {PairBatch},
    }
    assert all(batch.input_ids_BT.shape == (2, 48) for batch in batches["llama"])  # type: ignore[union-attr]
    assert sum(batch.labels_BT.shape[0] for batch in batches["opt"]) == 9
    assert sum(batch.labels_BT.shape[0] for batch in batches["t5"]) == 9


def test_rows_longer_than_a_model_has_positions_for_are_refused() -> None:
    config = CONFIG.model_copy(update={"row_tokens": families.POSITIONS + 1})
    for family in ("gpt2", "bart"):
        with pytest.raises(ValueError, match=r"row_tokens = 257 exceeds the model's 256 positions; lower it"):
            layout(tiny_model(family), config, 0)
    layout(tiny_model("t5"), config, 0)


def test_padding_of_a_pair_is_not_seen() -> None:
    model = tiny_model("t5")
    short, long = random_examples(1, seed=0, longest=3)[0], random_examples(1, seed=1, longest=60)[0]
    (batch,) = pair_batches([short, long], 10_000, pad_id=0, start_id=0)
    right = summed_loss(model, batch, CPU)
    torch.testing.assert_close(right, plain_loss(model, [short, long]), rtol=1e-5, atol=1e-5)
    batch.attention_mask_BS.fill_(1)
    assert (summed_loss(model, batch, CPU) - right).abs() > 1e-3, "the mask does nothing"


@pytest.mark.parametrize("make", [pair_batches, single_batches])
def test_unpacked_batches_hold_every_example_once_within_their_tokens(make: Any) -> None:
    arguments = {"start_id": 0} if make is pair_batches else {}
    examples = random_examples(50, seed=3, longest=90)
    batches = list(make(examples, max_tokens=400, pad_id=0, **arguments))
    labels = [label for batch in batches for label in batch.labels_BT.flatten().tolist()]
    scored = sorted(label for label in labels if label != IGNORED)
    assert scored == sorted(token for example in examples for token in example.target_ids)
    assert sum(len(batch.labels_BT) for batch in batches) == 50
    assert all(batch.num_tokens <= 400 for batch in batches)
    assert max(len(batch.labels_BT) for batch in batches) > 2
    # One that is alone larger than a batch still comes, by itself.
    assert [len(batch.labels_BT) for batch in make(examples[:2], max_tokens=8, pad_id=0, **arguments)] == [1, 1]


@pytest.mark.parametrize("family", ["llama", "opt", "t5", "bart"])
def test_a_worker_without_examples_adds_nothing(family: str) -> None:
    model = tiny_model(family)
    loss = laid_out_loss(model, [])
    assert loss.item() == 0
    found = gradients(model, loss)
    assert found
    assert all(gradient.abs().max() == 0 for gradient in found.values())


def test_every_target_token_is_scored_once_and_no_prompt_token() -> None:
    examples = random_examples(30, seed=1)
    labels = [label for batch in micro_batches(examples, 64, 3, 0) for label in batch.labels_BT.flatten().tolist()]
    scored = sorted(label for label in labels if label != IGNORED)
    assert scored == sorted(token for example in examples for token in example.target_ids)


@given(st.lists(st.integers(1, 50), max_size=60))
@settings(max_examples=200, deadline=None)
def test_packing_keeps_every_example_once_within_the_row(lengths: list[int]) -> None:
    rows = pack(lengths, row_tokens=50)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in row) <= 50 for row in rows)


def test_steps_are_balanced_over_problems_and_repeat_with_the_seed() -> None:
    examples = random_examples(30, seed=2)
    steps = list(islice(draw_steps(examples, 10, 1, seed=3), 9))
    assert steps == list(islice(draw_steps(examples, 10, 1, seed=3), 9))
    assert steps != list(islice(draw_steps(examples, 10, 1, seed=4), 9))
    for step in steps:  # ten problems: each step is one epoch
        assert len({example.problem_id for example in step}) == 10


def test_chains_of_a_problem_are_drawn_together_without_repeats() -> None:
    examples = random_examples(30, seed=2)
    (step,) = islice(draw_steps(examples, 30, 3, seed=0), 1)
    problems = [example.problem_id for example in step]
    assert [problems[index] for index in range(0, 30, 3)] == [problems[index + 2] for index in range(0, 30, 3)]
    assert len(set(step)) == 30


def thoughts_of(count: int, thoughts: dict[str, int]) -> list[TokenizedExample]:
    """Examples of `count` problems, each with so many chains of each thought."""
    return [
        TokenizedExample(f"p{problem}", thought, (chain,), (chain,))
        for problem in range(count)
        for thought, chains in thoughts.items()
        for chain in range(chains)
    ]


def test_thoughts_are_drawn_by_weight_and_problems_stay_balanced() -> None:
    examples = thoughts_of(10, {"cot": 9, "pot": 2, "eot": 1})
    weights = {"cot": 1.0, "pot": 2.0, "eot": 5.0}
    drawn = [example for step in islice(draw_steps(examples, 10, 1, 0, weights), 800) for example in step]
    assert set(Counter(example.problem_id for example in drawn).values()) == {800}
    shares = {name: count / len(drawn) for name, count in Counter(example.thought for example in drawn).items()}
    assert shares == pytest.approx({"cot": 1 / 8, "pot": 2 / 8, "eot": 5 / 8}, abs=0.02)


def test_without_weights_thoughts_are_drawn_equally_often() -> None:
    drawn = [step[0].thought for step in islice(draw_steps(thoughts_of(1, {"cot": 9, "pot": 1}), 1, 1, 0), 4000)]
    assert Counter(drawn)["cot"] / 4000 == pytest.approx(0.5, abs=0.03)


def test_chains_drawn_together_are_of_one_thought() -> None:
    examples = thoughts_of(5, {"cot": 4, "pot": 4})
    steps = list(islice(draw_steps(examples, 4, 4, seed=0), 40))
    assert {len({(example.problem_id, example.thought) for example in step}) for step in steps} == {1}
    assert {step[0].thought for step in steps} == {"cot", "pot"}


def test_weights_change_nothing_where_a_problem_has_one_thought() -> None:
    examples = random_examples(30, seed=2)
    plain = list(islice(draw_steps(examples, 10, 2, seed=3), 20))
    assert list(islice(draw_steps(examples, 10, 2, 3, {"cot": 0.1, "pot": 7.0}), 20)) == plain
    # What was drawn before thoughts were mixed, so that trainings of one thought stay the same.
    rng = random.Random(3)
    problems = sorted({example.problem_id for example in examples})
    rng.shuffle(problems)
    chains = [example for example in examples if example.problem_id == problems[0]]
    assert plain[0][:2] == rng.sample(chains, 2)


def test_a_thought_without_a_weight_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"thought_weights has none for 'pot', got \['cot'\]; expected a weight"):
        next(draw_steps(thoughts_of(1, {"cot": 1, "pot": 1}), 1, 1, 0, {"cot": 1.0}))


def test_training_draws_by_the_weights_of_its_settings() -> None:
    config = CONFIG.model_copy(update={"thought_weights": {"cot": 1.0}})
    with pytest.raises(ValueError, match="none for 'pot'"):
        fit(tiny_model("llama"), thoughts_of(1, {"pot": 1}), [], config, 0, CPU, lambda _: None)
