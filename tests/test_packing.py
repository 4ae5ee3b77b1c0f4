"""Packing changes how a step is computed, never what is computed."""

import random
from itertools import islice

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from retort.training.examples import TokenizedExample, draw_steps
from retort.training.loop import summed_loss
from retort.training.packing import IGNORED, micro_batches, pack

VOCABULARY = 60
CPU = torch.device("cpu")


def tiny_model(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    match name:
        case "llama":
            config = LlamaConfig(
                vocab_size=VOCABULARY,
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=128,
            )
        case "gpt2":
            config = GPT2Config(
                vocab_size=VOCABULARY,
                n_embd=32,
                n_layer=2,
                n_head=2,
                n_positions=128,
                attn_pdrop=0,
                embd_pdrop=0,
                resid_pdrop=0,
            )
        case _:
            raise ValueError(name)
    return AutoModelForCausalLM.from_config(config).eval()


def random_examples(count: int, seed: int, longest: int = 20) -> list[TokenizedExample]:
    rng = random.Random(seed)

    def ids() -> tuple[int, ...]:
        return tuple(rng.randrange(VOCABULARY) for _ in range(rng.randint(1, longest)))

    return [TokenizedExample(f"p{index // 3}", ids(), ids()) for index in range(count)]


def plain_loss(model: torch.nn.Module, examples: list[TokenizedExample]) -> torch.Tensor:
    """One forward pass an example: what packing must equal."""
    total = torch.zeros(())
    for example in examples:
        logits_TV = model(input_ids=torch.tensor([example.prompt_ids + example.target_ids])).logits[0]
        scored_TV = logits_TV[len(example.prompt_ids) - 1 : -1]
        total = total + cross_entropy(scored_TV, torch.tensor(example.target_ids), reduction="sum")
    return total


def packed_loss(model: torch.nn.Module, examples: list[TokenizedExample], row_tokens: int) -> torch.Tensor:
    batches = micro_batches(examples, row_tokens, micro_batch_rows=2, pad_id=0)
    return sum((summed_loss(model, batch, CPU) for batch in batches), torch.zeros(()))


def gradients(model: torch.nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_packed_loss_and_gradients_equal_plain_ones() -> None:
    for name in ("llama", "gpt2"):
        model = tiny_model(name)
        for seed in range(4):
            examples = random_examples(9, seed)
            plain, packed = plain_loss(model, examples), packed_loss(model, examples, row_tokens=48)
            torch.testing.assert_close(packed, plain, rtol=1e-5, atol=1e-5)
            expected, got = gradients(model, plain), gradients(model, packed)
            assert any(gradient.abs().max() > 1e-3 for gradient in expected.values())
            for parameter, gradient in expected.items():
                torch.testing.assert_close(got[parameter], gradient, rtol=1e-4, atol=1e-5)


def test_an_example_does_not_see_its_neighbour_in_the_row() -> None:
    model = tiny_model("llama")
    first, second = random_examples(2, seed=7)
    other = TokenizedExample("x", tuple(reversed(first.prompt_ids)), first.target_ids)
    together = packed_loss(model, [first, second], 64) - plain_loss(model, [first])
    beside_another = packed_loss(model, [other, second], 64) - plain_loss(model, [other])
    torch.testing.assert_close(together, beside_another, rtol=1e-5, atol=1e-5)
    # The guard: without the restarts of positions the neighbour is seen.
    (leaky,) = micro_batches([first, second], 64, 1, 0)
    leaky.position_ids_BT.copy_(torch.arange(64))
    assert (summed_loss(model, leaky, CPU) - packed_loss(model, [first, second], 64)).abs() > 1e-3


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
