"""Micro-batches: examples laid out as tensors, for each kind of student.

A decoder-only student takes packed rows: several examples in one row of fixed length, none of which sees another.
Positions restart at 0 with each example; transformers reads those restarts as the borders of its attention mask when it
is given no mask. Fixed lengths also spare CPU back ends a new kernel for every shape. An encoder-decoder student takes
pairs, padded: the prompt goes to the encoder, the target to the decoder.

Shapes: B rows of a micro-batch, T tokens of a row or of a target, S tokens of a prompt.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from retort.training.config import TrainingConfig
from retort.training.examples import TokenizedExample

logger = logging.getLogger(__name__)

IGNORED = -100
WIDTH_STEP = 16
"""What is not packed is padded to a multiple of this, so that there are few shapes."""


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Rows for a decoder-only model. `labels_BT` holds at each position the token that follows it, or `IGNORED`."""

    input_ids_BT: torch.Tensor
    position_ids_BT: torch.Tensor
    labels_BT: torch.Tensor

    @property
    def inputs(self) -> dict[str, torch.Tensor]:
        """What the model is called with."""
        return {"input_ids": self.input_ids_BT, "position_ids": self.position_ids_BT}

    @property
    def num_tokens(self) -> int:
        """Tokens of the forward pass, with padding."""
        return self.input_ids_BT.numel()


@dataclass(frozen=True, slots=True)
class PairBatch:
    """Pairs for an encoder-decoder model. The decoder reads `labels_BT` one step late, behind its start token."""

    input_ids_BS: torch.Tensor
    attention_mask_BS: torch.Tensor
    decoder_input_ids_BT: torch.Tensor
    labels_BT: torch.Tensor

    @property
    def inputs(self) -> dict[str, torch.Tensor]:
        """What the model is called with."""
        return {
            "input_ids": self.input_ids_BS,
            "attention_mask": self.attention_mask_BS,
            "decoder_input_ids": self.decoder_input_ids_BT,
        }

    @property
    def num_tokens(self) -> int:
        """Tokens of the forward pass, with padding."""
        return self.input_ids_BS.numel() + self.labels_BT.numel()


Batch = MicroBatch | PairBatch
Layout = Callable[[Sequence[TokenizedExample]], Iterator[Batch]]
"""Examples of a step in, the micro-batches that a model takes out."""


def layout(model: Any, config: TrainingConfig, pad_id: int) -> Layout:
    """How examples are laid out for a model: pairs, packed rows, or rows of one where it would mix packed examples.

    Raises:
        ValueError: rows are longer than the model has positions for; an encoder-decoder does not say how it starts.
    """
    max_tokens = config.micro_batch_rows * config.row_tokens
    positions = getattr(model.config, "max_position_embeddings", None)  # none where positions are relative (T5)
    if positions is not None and config.row_tokens > positions:
        raise ValueError(
            f"training.row_tokens = {config.row_tokens} exceeds the model's {positions} positions; lower it and raise "
            f"micro_batch_rows instead"
        )
    if model.config.is_encoder_decoder:
        start_id = model.config.decoder_start_token_id
        if start_id is None:
            raise ValueError("encoder-decoder without decoder_start_token_id: expected it in its config.json; set it")
        return partial(pair_batches, max_tokens=max_tokens, pad_id=pad_id, start_id=start_id)
    if not keeps_apart(model):
        logger.warning("model type %r mixes packed examples: each takes a row of its own", model.config.model_type)
        return partial(single_batches, max_tokens=max_tokens, pad_id=pad_id)
    return partial(micro_batches, row_tokens=config.row_tokens, micro_batch_rows=config.micro_batch_rows, pad_id=pad_id)


def keeps_apart(model: Any) -> bool:
    """Whether a decoder-only model computes for a packed example what it computes for the example alone.

    Tried out, since only some architectures read positions as borders. Behind another neighbour the logits must stay
    the same to the bit (what is masked adds exactly nothing); alone they may differ by rounding.
    """
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    one, other, example = torch.arange(3 * 8, device=device).remainder(model.config.vocab_size).view(3, 1, 8)
    positions = torch.arange(8, device=device)[None]
    with torch.no_grad():
        logits = [
            model(input_ids=ids, position_ids=positions.repeat(1, ids.shape[1] // 8), use_cache=False).logits[:, -8:]
            for ids in (torch.cat([one, example], 1), torch.cat([other, example], 1), example)
        ]
    model.train(was_training)
    beside_one, beside_other, alone = (each.float() for each in logits)
    rounding = torch.finfo(logits[0].dtype).eps ** 0.5 * alone.norm()
    return bool(torch.equal(beside_one, beside_other) and (beside_one - alone).norm() <= rounding)


def pack(lengths: Sequence[int], row_tokens: int) -> list[list[int]]:
    """Indices of the examples of each row, best fit decreasing.

        >>> pack([5, 3, 4, 2], row_tokens=7)
        [[0, 3], [2, 1]]

    Every length must be at most `row_tokens`.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        fits = [row for row, free in enumerate(room) if free >= lengths[index]]
        if fits:
            best = min(fits, key=lambda row: room[row])
            rows[best].append(index)
            room[best] -= lengths[index]
        else:
            rows.append([index])
            room.append(row_tokens - lengths[index])
    return rows


def micro_batches(
    examples: Sequence[TokenizedExample], row_tokens: int, micro_batch_rows: int, pad_id: int
) -> Iterator[MicroBatch]:
    """Packed rows in batches of one fixed shape; at least one batch, padded with empty rows."""
    rows = pack([len(example) for example in examples], row_tokens)
    for start in range(0, max(len(rows), 1), micro_batch_rows):
        packed = [[examples[index] for index in row] for row in rows[start : start + micro_batch_rows]]
        yield _row_batch(packed, (micro_batch_rows, row_tokens), pad_id)


def single_batches(examples: Sequence[TokenizedExample], max_tokens: int, pad_id: int) -> Iterator[MicroBatch]:
    """One example a row, for a model that mixes packed ones: as many rows in a batch as `max_tokens` hold."""
    for batch in _alike(examples, lambda example: (len(example),), max_tokens):
        yield _row_batch([[example] for example in batch], (max(len(batch), 1), _width(map(len, batch))), pad_id)


def pair_batches(
    examples: Sequence[TokenizedExample], max_tokens: int, pad_id: int, start_id: int
) -> Iterator[PairBatch]:
    """Pairs of about one length together, as many in a batch as `max_tokens` hold; at least one batch."""
    for batch in _alike(examples, lambda example: (len(example.prompt_ids), len(example.target_ids)), max_tokens):
        B = max(len(batch), 1)
        S = _width(len(example.prompt_ids) for example in batch)
        T = _width(len(example.target_ids) for example in batch)
        input_ids_BS = torch.full((B, S), pad_id)
        attention_mask_BS = torch.zeros((B, S), dtype=torch.long)
        decoder_input_ids_BT = torch.full((B, T), pad_id)
        labels_BT = torch.full((B, T), IGNORED)
        attention_mask_BS[:, 0] = 1  # an encoder that sees nothing at all, as in an empty batch, computes nan
        decoder_input_ids_BT[:, 0] = start_id
        for row, example in enumerate(batch):
            target = torch.tensor(example.target_ids)
            input_ids_BS[row, : len(example.prompt_ids)] = torch.tensor(example.prompt_ids)
            attention_mask_BS[row, : len(example.prompt_ids)] = 1
            decoder_input_ids_BT[row, 1 : len(target)] = target[:-1]
            labels_BT[row, : len(target)] = target
        yield PairBatch(input_ids_BS, attention_mask_BS, decoder_input_ids_BT, labels_BT)


def _row_batch(rows: Sequence[Sequence[TokenizedExample]], shape: tuple[int, int], pad_id: int) -> MicroBatch:
    """Examples of each row one after another; rows of the shape that have none are padding."""
    input_ids_BT = torch.full(shape, pad_id)
    position_ids_BT = torch.arange(shape[1]).repeat(shape[0], 1)
    labels_BT = torch.full(shape, IGNORED)
    for row, examples in enumerate(rows):
        begin = 0
        for example in examples:
            end = begin + len(example)
            answer = begin + len(example.prompt_ids) - 1
            input_ids_BT[row, begin:end] = torch.tensor(example.prompt_ids + example.target_ids)
            position_ids_BT[row, begin:end] = torch.arange(end - begin)
            labels_BT[row, answer : end - 1] = torch.tensor(example.target_ids)
            begin = end
        position_ids_BT[row, begin:] = torch.arange(shape[1] - begin)
    return MicroBatch(input_ids_BT, position_ids_BT, labels_BT)


def _alike(
    examples: Sequence[TokenizedExample], lengths: Callable[[TokenizedExample], tuple[int, ...]], max_tokens: int
) -> Iterator[list[TokenizedExample]]:
    """Examples of about one length together, padded at most `max_tokens` (or one example); at least one batch."""
    batch: list[TokenizedExample] = []
    longest: tuple[int, ...] = ()
    for example in sorted(examples, key=lengths, reverse=True):
        grown = tuple(map(max, zip(longest or lengths(example), lengths(example), strict=True)))
        if batch and (len(batch) + 1) * sum(_width([length]) for length in grown) > max_tokens:
            yield batch
            batch, grown = [], lengths(example)
        batch, longest = [*batch, example], grown
    yield batch


def _width(lengths: Iterable[int]) -> int:
    """The longest length, rounded up."""
    return max(1, -(-max(lengths, default=1) // WIDTH_STEP)) * WIDTH_STEP
