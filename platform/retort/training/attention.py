"""Attention of a packed row: each chain sees its prompt and itself, each prompt itself, nobody a neighbour.

    prompt A · chain A0 · chain A1 · prompt B · chain B0 · padding

Registered with transformers' attention interface, so that no model code is touched; a model calls it in every layer
with the layout of the row. Two back ends: FlexAttention over the whole row on a GPU; elsewhere the pieces of about one
length are computed together, because a mask over a long row costs more than sharing saves on small models.

Shapes: T positions of the row, N pieces of a block, Q and K queries and keys of a piece, H heads, D their width.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

NAME = "retort_packed"
"""Of this attention in a model's configuration."""

FLEX_VARIANTS = 64
"""Shapes that FlexAttention may be compiled for in one process."""

Piece = tuple[tuple[int, int], ...]
"""Begin and end of stretches of a row, of which the last asks and all are seen."""


class Span(NamedTuple):
    """A group in a row: where its prompt begins, and where each of its chains ends; the first begins at `prompt_end`.

    A prompt and its only chain need not be told apart: `chain_ends` is empty, and `prompt_end` the end of both.
    """

    begin: int
    prompt_end: int
    chain_ends: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """Pieces that are computed together; shorter ones are padded. Without a mask the queries are the keys, causal."""

    query_NQ: torch.Tensor
    key_NK: torch.Tensor
    mask_NQK: torch.Tensor | None


@dataclass(frozen=True, slots=True)
class Pieces:
    """The layout of a row for `scaled_dot_product_attention`: `place_T` finds each position in the blocks' outputs."""

    blocks: tuple[Block, ...]
    place_T: torch.Tensor

    def to(self, device: torch.device) -> "Pieces":
        """The same on a device."""
        blocks = tuple(
            Block(
                block.query_NQ.to(device),
                block.key_NK.to(device),
                None if block.mask_NQK is None else block.mask_NQK.to(device),
            )
            for block in self.blocks
        )
        return Pieces(blocks, self.place_T.to(device))


Layout = Pieces | BlockMask


def pieces(spans: Sequence[Span], num_positions: int) -> Pieces:
    """The blocks of a row: what is causal in itself, and chains behind a prompt, those of about one length together.

    Positions outside of the groups attend anywhere, and nobody to them.
    """
    # A row of nothing goes through the model all the same: its weights have gradients.
    alone = [((span.begin, span.prompt_end),) for span in spans] or [((0, 1),)]
    behind = [((span.begin, span.prompt_end), chain) for span in spans for chain in _chains(span)]
    place_T = torch.zeros(num_positions, dtype=torch.long)
    blocks: list[Block] = []
    offset = 0
    for chosen in _alike(alone):
        (query_NQ,) = _padded(chosen)
        blocks.append(Block(query_NQ, query_NQ, None))
        offset = _place(place_T, chosen, query_NQ.shape[1], offset)
    for chosen in _alike(behind):
        prompt_NP, query_NQ = _padded(chosen)
        lengths_N = torch.tensor([end - begin for (begin, end), _ in chosen])
        N, P, Q = *prompt_NP.shape, query_NQ.shape[1]
        sees_prompt_NQP = (torch.arange(P) < lengths_N[:, None])[:, None].expand(N, Q, P)
        sees_itself_NQQ = torch.ones(Q, Q, dtype=torch.bool).tril().expand(N, Q, Q)
        mask_NQK = torch.cat([sees_prompt_NQP, sees_itself_NQQ], 2)
        blocks.append(Block(query_NQ, torch.cat([prompt_NP, query_NQ], 1), mask_NQK))
        offset = _place(place_T, chosen, Q, offset)
    return Pieces(tuple(blocks), place_T)


def _chains(span: Span) -> Iterator[tuple[int, int]]:
    """Begin and end of each chain of a group."""
    return zip((span.prompt_end, *span.chain_ends), span.chain_ends, strict=False)


def _alike(found: Sequence[Piece]) -> Iterator[list[Piece]]:
    """Pieces whose lengths lie between the same powers of two, so that none is padded to more than twice its length."""

    def kind(piece: Piece) -> tuple[int, ...]:
        return tuple((end - begin).bit_length() for begin, end in piece)

    for _, chosen in groupby(sorted(found, key=kind), key=kind):
        yield list(chosen)


def _padded(found: Sequence[Piece]) -> list[torch.Tensor]:
    """Positions of each stretch of the pieces, one tensor for all first ones and so on, padded with the last."""
    made: list[torch.Tensor] = []
    for stretches in zip(*found, strict=True):
        begins, ends = torch.tensor(stretches).unbind(1)
        width = int((ends - begins).max())
        made.append(torch.minimum(begins[:, None] + torch.arange(width), ends[:, None] - 1))
    return made


def _place(place_T: torch.Tensor, found: Sequence[Piece], width: int, offset: int) -> int:
    """Note where a block puts its queries, from `offset` on; where the next one starts."""
    for number, (*_, (begin, end)) in enumerate(found):
        start = offset + number * width
        place_T[begin:end] = torch.arange(start, start + end - begin)
    return offset + len(found) * width


def flex_layout(spans: Sequence[Span], num_positions: int, device: torch.device) -> BlockMask:
    """The same for FlexAttention, which has no dropout; of one shape for rows of one length, which spares compiling."""
    group_T = torch.full((num_positions,), -1, dtype=torch.int32)
    chain_T = torch.zeros(num_positions, dtype=torch.int32)
    for group, span in enumerate(spans):
        group_T[span.begin : (span.prompt_end, *span.chain_ends)[-1]] = group
        for number, (begin, end) in enumerate(_chains(span), start=1):
            chain_T[begin:end] = number
    group_T, chain_T = group_T.to(device), chain_T.to(device)

    def sees(batch: torch.Tensor, head: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        del batch, head
        is_own = (chain_T[key] == 0) | (chain_T[key] == chain_T[query])
        return (query >= key) & (group_T[query] == group_T[key]) & is_own

    return create_block_mask(sees, None, None, num_positions, num_positions, device=str(device))


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    *,
    packed: Layout,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers calls: `[1, H, T, D]` each (key and value with fewer heads, perhaps) in, `[1, T, H, D]` out."""
    del module, attention_mask
    if kwargs.get("softcap") is not None or kwargs.get("s_aux") is not None:
        raise TypeError("attention with capped scores or sinks: not computed here")
    if isinstance(packed, BlockMask):
        assert not dropout, "rows of a model with attention dropout are laid out in pieces"
        gqa = query.shape[1] != key.shape[1]
        flex: Any = _flex(query.is_cuda)
        return flex(query, key, value, block_mask=packed, scale=scaling, enable_gqa=gqa).transpose(1, 2), None
    return _attend_in_pieces(query, key, value, packed, scaling, dropout), None


def _in_pieces(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, packed: Pieces, scaling: float | None, dropout: float
) -> torch.Tensor:
    """Block by block."""
    H, D = query.shape[1], query.shape[3]
    query_HTD = query[0]
    shared = H // key.shape[1]
    key_HTD, value_HTD = (each[0] if shared == 1 else each[0].repeat_interleave(shared, 0) for each in (key, value))
    outputs: list[torch.Tensor] = []
    for block in packed.blocks:
        output_NHQD = scaled_dot_product_attention(
            _taken(query_HTD, block.query_NQ),
            _taken(key_HTD, block.key_NK),
            _taken(value_HTD, block.key_NK),
            attn_mask=None if block.mask_NQK is None else block.mask_NQK[:, None],
            is_causal=block.mask_NQK is None,
            scale=scaling,
            dropout_p=dropout,
        )
        outputs.append(output_NHQD.transpose(1, 2).reshape(-1, H, D))
    return torch.cat(outputs).index_select(0, packed.place_T)[None]


def _taken(states_HTD: torch.Tensor, positions_NQ: torch.Tensor) -> torch.Tensor:
    """`[N, H, Q, D]`: the states at some positions."""
    # Not by indexing, whose backward pass takes three times as long.
    taken = states_HTD.index_select(1, positions_NQ.flatten())
    return taken.unflatten(1, positions_NQ.shape).transpose(0, 1)


_attend_in_pieces: Any = torch.compiler.disable(_in_pieces)
"""Not compiled with the rest of a model: the shapes of its blocks differ from row to row."""


@cache
def _flex(is_compiled: bool) -> Any:
    """FlexAttention; uncompiled, which holds the whole matrix of scores, where there is no GPU."""
    if not is_compiled:
        return flex_attention
    # Each length of a row, with gradients and without, is compiled once, for each student of this process; past the
    # limit dynamo would go on uncompiled.
    dynamo: Any = import_module("torch._dynamo.config")
    dynamo.recompile_limit = max(dynamo.recompile_limit, FLEX_VARIANTS)
    return torch.compile(flex_attention, dynamic=False, fullgraph=True)


def register() -> None:
    """Make the attention known to transformers; again is harmless."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attend)
