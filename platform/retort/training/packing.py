"""Packing: several examples in one row of fixed length, none of which sees another.

Positions restart at 0 with each example; transformers reads those restarts as the borders of its attention mask when it
is given no mask. Fixed lengths also spare CPU back ends a new kernel for every shape.

Shapes: B rows of a micro-batch, T tokens of a row.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from retort.training.examples import TokenizedExample

IGNORED = -100


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """`labels_BT` holds at each position the token that follows it, or `IGNORED`."""

    input_ids_BT: torch.Tensor
    position_ids_BT: torch.Tensor
    labels_BT: torch.Tensor


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
        input_ids_BT = torch.full((micro_batch_rows, row_tokens), pad_id)
        position_ids_BT = torch.arange(row_tokens).repeat(micro_batch_rows, 1)
        labels_BT = torch.full((micro_batch_rows, row_tokens), IGNORED)
        for row, indices in enumerate(rows[start : start + micro_batch_rows]):
            begin = 0
            for index in indices:
                example = examples[index]
                end = begin + len(example)
                answer = begin + len(example.prompt_ids) - 1
                input_ids_BT[row, begin:end] = torch.tensor(example.prompt_ids + example.target_ids)
                position_ids_BT[row, begin:end] = torch.arange(end - begin)
                labels_BT[row, answer : end - 1] = torch.tensor(example.target_ids)
                begin = end
            position_ids_BT[row, begin:] = torch.arange(row_tokens - begin)
        yield MicroBatch(input_ids_BT, position_ids_BT, labels_BT)
