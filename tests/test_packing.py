"""How examples are laid out changes how a step is computed, never what is computed (DESIGN, invariant 9)."""

import random
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import create_mask
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, BloomConfig, Gemma2Config, MistralConfig, Phi3Config

import families
from families import one_thread as one_thread
from retort.training import attention
from retort.training.config import TrainingConfig
from retort.training.examples import TokenizedExample, fit_to
from retort.training.fused import _plain, agrees, fused_loss, has_bare_states
from retort.training.loop import fit
from retort.training.packing import Row, deal, group, pack, pack_rows, split
from retort.training.padding import PairBatch, SingleBatch, pair_batches, single_batches
from retort.training.scoring import Batch, Layout, Scorer, layout, packs

VOCABULARY = 60
CPU = torch.device("cpu")
CONFIG = TrainingConfig(steps=1, batch_examples=1, learning_rate=0.1, max_example_tokens=48, row_tokens=96)


def tiny_model(family: str) -> Any:
    # T5 starts from weights that are large as they are.
    return families.random_model(families.architecture(family, VOCABULARY), scale=1.0 if family == "t5" else 3.0)


def examples_of(sizes: list[tuple[int, list[int]]], seed: int = 0) -> list[TokenizedExample]:
    """A problem for each prompt's length, with chains of some lengths."""
    rng = random.Random(seed)

    def ids(length: int) -> tuple[int, ...]:
        return tuple(rng.randrange(VOCABULARY) for _ in range(length))

    found: list[TokenizedExample] = []
    for number, (prompt, chains) in enumerate(sizes):
        prompt_ids = ids(prompt)
        for length in chains:
            weight = rng.choice([1.0, 0.25])
            found.append(TokenizedExample(f"p{number}", "cot", prompt_ids, ids(length), weight))
    rng.shuffle(found)
    return found


def random_examples(count: int, seed: int, longest: int = 20) -> list[TokenizedExample]:
    """Each with a prompt of its own."""
    rng = random.Random(seed)
    return examples_of([(rng.randint(1, longest), [rng.randint(1, longest)]) for _ in range(count)], seed)


def plain_loss(model: Any, examples: list[TokenizedExample]) -> torch.Tensor:
    """One forward pass an example, with the model's own attention: what every layout must equal."""
    before = model.config._attn_implementation
    model.set_attn_implementation("sdpa")
    total = torch.zeros(())
    for example in examples:
        target = torch.tensor(example.target_ids)
        if model.config.is_encoder_decoder:
            read = torch.tensor([[families.END, *example.target_ids[:-1]]])
            logits_TV = model(input_ids=torch.tensor([example.prompt_ids]), decoder_input_ids=read).logits[0]
        else:
            ids = torch.tensor([example.prompt_ids + example.target_ids])
            mask = torch.ones_like(ids)
            logits_TV = model(input_ids=ids, attention_mask=mask).logits[0, len(example.prompt_ids) - 1 : -1]
        total = total + example.weight * cross_entropy(logits_TV, target, reduction="sum")
    model.set_attn_implementation(before)
    return total


def laid_out(model: Any, row_tokens: int = 96, shares: bool = True) -> Layout:
    return layout(
        model, CONFIG.model_copy(update={"row_tokens": row_tokens, "share_prompts": shares}), families.END, CPU
    )


def loss_of(model: Any, batches: list[Batch]) -> torch.Tensor:
    scorer = Scorer(model, torch.float32)
    return sum((scorer(batch, CPU) for batch in batches), torch.zeros(()))


def gradients(model: torch.nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same_step(model: Any, examples: list[TokenizedExample], batches: list[Batch]) -> None:
    """Loss and every gradient to 1e-5 in float32, relative to the largest of its parameter."""
    plain, packed = plain_loss(model, examples), loss_of(model, batches)
    torch.testing.assert_close(packed, plain, rtol=1e-5, atol=1e-5)
    expected, got = gradients(model, plain), gradients(model, packed)
    assert expected.keys() == got.keys()
    assert any(gradient.abs().max() > 1e-3 for gradient in expected.values()), "a model that learns nothing is no test"
    for name, gradient in expected.items():
        largest = gradient.abs().max().item()
        assert (got[name] - gradient).abs().max().item() <= 1e-5 * max(1.0, largest), name


SIZES = st.lists(st.tuples(st.integers(1, 30), st.lists(st.integers(1, 30), min_size=1, max_size=6)), max_size=5)


@pytest.mark.parametrize("family", families.FAMILIES)
def test_loss_and_gradients_of_a_step_equal_those_of_its_examples_alone(family: str) -> None:
    model = tiny_model(family)

    @given(sizes=SIZES, row_tokens=st.integers(48, 200), shares=st.booleans(), seed=st.integers(0, 99))
    @settings(max_examples=15, deadline=None, derandomize=True)
    def check(sizes: list[tuple[int, list[int]]], row_tokens: int, shares: bool, seed: int) -> None:
        cut = fit_to(examples_of(sizes, seed), 48, "truncate", apart=model.config.is_encoder_decoder)
        if cut.examples:
            assert_same_step(model, cut.examples, laid_out(model, row_tokens, shares).batches(cut.examples))

    check()
    # Not in vain: one prompt with six chains, another with one, one cut off, one group split over rows.
    sizes = [(20, [9, 30, 12, 30, 7, 20]), (3, [5]), (1, [1, 1])]
    cut = fit_to(examples_of(sizes), 48, "truncate", apart=model.config.is_encoder_decoder)
    assert cut.truncated == (0 if model.config.is_encoder_decoder else 2)
    shared = laid_out(model).batches(cut.examples)
    assert_same_step(model, cut.examples, shared)
    computed = sum(batch.num_tokens for batch in shared)
    assert computed < sum(map(len, cut.examples)) - 20
    if not model.config.is_encoder_decoder:
        assert len(shared) > 1
        assert max(batch.num_tokens for batch in shared) <= 96


def test_two_workers_together_compute_the_step_of_one() -> None:
    model = tiny_model("llama")
    examples = examples_of([(20, [9, 12, 7]), (3, [5]), (10, [10, 10]), (4, [30])])
    lay_out = laid_out(model)
    dealt = [batch for rank in range(3) for batch in lay_out.batches(examples, rank, 3)]
    assert_same_step(model, examples, dealt)
    assert len(dealt) >= 3


@pytest.mark.parametrize(
    ("sizes", "workers"), [([(20, [9, 12, 7]), (3, [5]), (10, [10, 10])], 2), ([(50, [50] * 30)] * 2, 4)]
)
def test_no_worker_idles_while_another_has_chains_to_share(sizes: list[Any], workers: int) -> None:
    examples = examples_of(sizes)
    dealt = deal(group(examples, shares=True), workers)
    assert max(sum(map(len, groups)) for groups in dealt) <= 1.3 * sum(len(e) for gs in dealt for e in gs) / workers
    kept = sorted((chain.problem_id, chain.target_ids) for groups in dealt for each in groups for chain in each.chains)
    assert kept == sorted((example.problem_id, example.target_ids) for example in examples)


def test_a_chain_sees_neither_its_siblings_nor_its_neighbours() -> None:
    model = tiny_model("llama")
    first, second, third = examples_of([(8, [6, 6]), (5, [7])], seed=3)
    both = [first, second, third] if first.problem_id == second.problem_id else [first, third, second]
    torch.testing.assert_close(
        loss_of(model, laid_out(model).batches(both)), plain_loss(model, both), rtol=1e-5, atol=1e-5
    )
    # The guard: where a row is one causal stretch, they are seen.
    (row,) = laid_out(model).batches(both)
    assert isinstance(row, Row)
    leaky = Row(
        row.input_ids_T,
        row.position_ids_T,
        row.source_S,
        row.labels_S,
        row.weights_S,
        (attention.Span(0, row.num_tokens, ()),),
        row.num_tokens,
    )
    assert (loss_of(model, [leaky]) - loss_of(model, [row])).abs() > 1e-3


def test_the_first_token_of_every_chain_is_scored_at_the_prompts_last() -> None:
    examples = examples_of([(8, [6, 4, 5]), (5, [7])])
    (row,) = pack_rows(group(examples, shares=True), 96, 0, width_step=96)
    assert row.num_positions == 96
    assert sorted(row.labels_S.tolist()) == sorted(token for example in examples for token in example.target_ids)
    begins = [span.prompt_end - 1 for span in row.spans if span.chain_ends]
    scored = row.source_S.tolist()
    assert [scored.count(begin) for begin in begins] == [3]
    firsts = {int(label) for source, label in zip(scored, row.labels_S, strict=True) if source in begins}
    assert firsts == {example.target_ids[0] for example in examples if example.problem_id == "p0"}


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_both_back_ends_of_attention_compute_one_thing() -> None:
    rows = list(
        pack_rows(group(examples_of([(20, [9, 30, 12]), (3, [5]), (30, [1, 2])]), True), 192, 0, width_step=192)
    )
    spans, length = rows[0].spans, rows[0].num_positions
    assert any(span.chain_ends for span in spans)
    torch.manual_seed(0)
    query, key, value = torch.randn(1, 4, length, 16), torch.randn(1, 2, length, 16), torch.randn(1, 2, length, 16)
    used = rows[0].num_tokens
    outputs = [
        attention.attend(torch.nn.Identity(), query, key, value, None, scaling=0.25, packed=packed)[0][:, :used]
        for packed in (attention.pieces(spans, length), attention.flex_layout(spans, length, CPU))
    ]
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-5, atol=1e-6)
    # And it is what its name says: the pairs of the mask are those that are counted.
    mask = create_mask(attention.flex_layout(spans, length, CPU).mask_mod, 1, 1, length, length, device="cpu")[0, 0]
    pairs = 0
    for span in spans:
        pairs += int(mask[span.begin : (span.prompt_end, *span.chain_ends)[-1]].sum())
    assert pairs == rows[0].num_pairs


def test_models_that_mix_packed_examples_are_found_out() -> None:
    bloom = AutoModelForCausalLM.from_config(BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=2))
    assert {family: packs(tiny_model(family)) for family in families.DECODERS} == dict.fromkeys(families.DECODERS, True)
    assert not packs(bloom)
    assert bloom.config._attn_implementation != attention.NAME
    lay_out = laid_out(bloom)
    assert lay_out.kind == "singles"
    examples = random_examples(5, seed=0)
    assert_same_step(bloom, examples, lay_out.batches(examples))
    # bfloat16 rounds to three digits: what is only rounding must not be taken for a neighbour, or for a wrong position.
    assert packs(tiny_model("gpt2").bfloat16())


def test_each_kind_of_model_gets_its_own_layout() -> None:
    examples = random_examples(9, seed=0)
    batches = {family: laid_out(tiny_model(family)).batches(examples) for family in ("llama", "opt", "t5")}
    assert {family: {type(batch) for batch in made} for family, made in batches.items()} == {
        "llama": {Row},
        "opt": {Row},
        "t5": {PairBatch},
    }


def test_a_window_of_attention_that_examples_outgrow_is_refused() -> None:
    sizes: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = MistralConfig(
        vocab_size=VOCABULARY, **sizes, num_key_value_heads=1, intermediate_size=32, sliding_window=40
    )
    model = families.random_model(config)
    with pytest.raises(ValueError, match=r"max_example_tokens = 48, the model attends to the last 40 tokens alone"):
        layout(model, CONFIG, 0, CPU)
    layout(model, CONFIG.model_copy(update={"max_example_tokens": 40}), 0, CPU)


def test_positions_that_change_with_the_longest_of_a_row_leave_each_example_a_row() -> None:
    sizes: dict[str, Any] = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    factors = {"short_factor": [1.0] * 16, "long_factor": [4.0] * 16}
    config = Phi3Config(
        vocab_size=VOCABULARY,
        **sizes,
        intermediate_size=32,
        pad_token_id=0,
        eos_token_id=0,
        max_position_embeddings=256,
        original_max_position_embeddings=40,
        rope_parameters={"rope_type": "longrope", "rope_theta": 10000.0, **factors},
    )
    model = families.random_model(deepcopy(config))
    short = CONFIG.model_copy(update={"max_example_tokens": 40})
    assert layout(model, short, 0, CPU).kind == "rows"
    model = families.random_model(config)
    apart = layout(model, CONFIG, 0, CPU)
    assert apart.kind == "singles"
    examples = examples_of([(4, [4]), (20, [28])])
    torch.testing.assert_close(
        loss_of(model, apart.batches(examples)), plain_loss(model, examples), rtol=1e-5, atol=1e-5
    )


def test_padding_of_a_pair_is_not_seen() -> None:
    model = tiny_model("t5")
    examples = [random_examples(1, seed=0, longest=3)[0], random_examples(1, seed=1, longest=60)[0]]
    (batch,) = pair_batches(group(examples, shares=True), 10_000, pad_id=0, start_id=0, shares=True)
    right = loss_of(model, [batch])
    torch.testing.assert_close(right, plain_loss(model, examples), rtol=1e-5, atol=1e-5)
    batch.attention_mask_GP.fill_(1)
    assert (loss_of(model, [batch]) - right).abs() > 1e-3, "the mask does nothing"


def test_an_encoder_reads_a_prompt_once_for_all_its_chains() -> None:
    examples = examples_of([(20, [9, 9, 9, 9]), (18, [9])])
    (shared,) = pair_batches(group(examples, shares=True), 10_000, pad_id=0, start_id=0, shares=True)
    assert (shared.input_ids_GP.shape[0], shared.labels_BT.shape[0]) == (2, 5)
    assert shared.num_tokens == 20 + 18 + 5 * 9
    (apart,) = pair_batches(group(examples, shares=False), 10_000, pad_id=0, start_id=0, shares=False)
    assert (apart.input_ids_GP.shape[0], apart.labels_BT.shape[0]) == (5, 5)
    assert apart.num_tokens == 4 * 20 + 18 + 5 * 9


def test_chains_of_one_prompt_come_together_also_among_prompts_of_one_length() -> None:
    rng = random.Random(0)
    examples = examples_of([(20, [rng.randint(1, 40) for _ in range(8)]) for _ in range(8)])
    batches = list(pair_batches(group(examples, shares=True), 1024, pad_id=0, start_id=0, shares=True))
    assert len(batches) > 2
    # A prompt is read once, and once more where a batch ends amid its chains.
    assert sum(len(batch.input_ids_GP) for batch in batches) < 8 + len(batches)


@pytest.mark.parametrize("make", [pair_batches, single_batches])
def test_unpacked_batches_hold_every_example_once_within_their_tokens(make: Any) -> None:
    arguments: dict[str, Any] = {"start_id": 0, "shares": True} if make is pair_batches else {}
    examples = random_examples(50, seed=3, longest=90)
    batches = list(make(group(examples, shares=True), max_tokens=400, pad_id=0, **arguments))
    labels = sorted(label for batch in batches for label in batch.labels_S.tolist())
    assert labels == sorted(token for example in examples for token in example.target_ids)
    assert all(len(batch.weights_S) == len(batch.labels_S) for batch in batches)
    assert sum(len(batch.labels_BT) for batch in batches) == 50
    assert all(batch.num_positions <= 400 for batch in batches)
    assert max(len(batch.labels_BT) for batch in batches) > 2
    # One that is alone larger than a batch still comes, by itself.
    few = group(examples[:2], shares=True)
    assert [len(batch.labels_BT) for batch in make(few, max_tokens=8, pad_id=0, **arguments)] == [1, 1]


@pytest.mark.parametrize("family", ["llama", "opt", "t5", "bart"])
def test_a_worker_without_examples_adds_nothing(family: str) -> None:
    model = tiny_model(family)
    loss = loss_of(model, [laid_out(model).empty()])
    assert loss.item() == 0
    found = gradients(model, loss)
    assert found
    assert all(gradient.abs().max() == 0 for gradient in found.values())


@given(st.lists(st.integers(1, 50), max_size=60))
@settings(max_examples=200, deadline=None)
def test_packing_keeps_every_example_once_within_the_row(lengths: list[int]) -> None:
    rows = pack(lengths, row_tokens=50)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in row) <= 50 for row in rows)


@given(SIZES)
@settings(max_examples=100, deadline=None)
def test_a_group_that_is_too_long_for_a_row_is_split_and_loses_no_chain(sizes: list[tuple[int, list[int]]]) -> None:
    groups = group(examples_of(sizes), shares=True)
    pieces = split(groups, row_tokens=60)
    assert all(len(piece) <= 60 for piece in pieces)
    kept = sorted((chain.problem_id, chain.target_ids) for piece in pieces for chain in piece.chains)
    assert kept == sorted((chain.problem_id, chain.target_ids) for each in groups for chain in each.chains)
    assert all(chain.prompt_ids == piece.prompt_ids for piece in pieces for chain in piece.chains)
    # One that fits stays whole. (Two groups may have one prompt, of one token: their pieces are not told apart.)
    assert all(each in pieces for each in groups if len(each) <= 60)


def test_what_is_too_long_is_dropped_or_cut_off_and_counted() -> None:
    examples = examples_of([(10, [5, 40]), (60, [5])])
    dropped = fit_to(examples, 48, "drop", apart=False)
    assert (len(dropped.examples), dropped.dropped, dropped.dropped_tokens) == (1, 2, 50 + 65)
    cut = fit_to(examples, 48, "truncate", apart=False)
    assert sorted(len(example) for example in cut.examples) == [15, 48]
    assert (cut.truncated, cut.truncated_tokens, cut.dropped) == (1, 2, 1)
    apart = fit_to(examples, 48, "drop", apart=True)
    assert (len(apart.examples), apart.dropped) == (2, 1)


def test_training_draws_by_the_weights_of_its_settings() -> None:
    config = CONFIG.model_copy(update={"thought_weights": {"cot": 1.0}})
    with pytest.raises(ValueError, match="none for 'pot'"):
        fit(tiny_model("llama"), [TokenizedExample("p0", "pot", (1,), (1,))], [], config, 0, CPU, lambda _: None)


def test_single_rows_hide_what_pads_them() -> None:
    model = tiny_model("llama")
    examples = random_examples(4, seed=5)
    batches = list(single_batches(group(examples, shares=True), 10_000, 0))
    assert all(isinstance(batch, SingleBatch) for batch in batches)
    assert_same_step(model, examples, [*batches])


@pytest.mark.parametrize("family", families.DECODERS)
def test_a_loss_from_states_and_output_layer_is_the_loss(family: str) -> None:
    """What a fused kernel is handed; the kernel itself takes a GPU."""
    model = tiny_model(family)
    assert has_bare_states(model)
    examples = [replace(example, weight=1.0) for example in examples_of([(8, [6, 6]), (5, [7])])]
    batches = laid_out(model).batches(examples)
    plain = loss_of(model, batches)
    scorer = Scorer(model, torch.float32, _plain)
    torch.testing.assert_close(sum(scorer(batch, CPU) for batch in batches), plain)
    assert fused_loss(model, torch.float32) is None, "there is a GPU here: then the kernel is to be tested as well"


def test_a_kernel_that_computes_something_else_is_found_out() -> None:
    weight = torch.randn(VOCABULARY, 16)
    assert agrees(_plain, weight, torch.float32)
    assert not agrees(lambda w, s, y: 1.05 * _plain(w, s, y), weight, torch.float32)
    assert not agrees(lambda w, s, y: _plain(w.detach(), s, y) + 0 * w.sum(), weight, torch.float32)
    sizes: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 16}
    capped = Gemma2Config(vocab_size=VOCABULARY, **sizes, num_key_value_heads=1, intermediate_size=32, pad_token_id=0)
    capped.final_logit_softcapping = 0.5
    assert not has_bare_states(families.random_model(capped, scale=10.0))
