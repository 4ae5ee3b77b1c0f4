"""The loss of a student on batches of each kind, and which kind it takes.

`Scorer` is what is trained: a module that turns a batch into a loss, so that whoever wraps it (DDP, FSDP2) sees all
that touches weights. `Layout` turns the examples of a step into batches.
"""

import inspect
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch.nn.functional import cross_entropy

from retort.training import attention
from retort.training.config import TrainingConfig
from retort.training.examples import TokenizedExample
from retort.training.fused import Loss, without_output
from retort.training.packing import Group, Row, deal, group, pack_rows, split
from retort.training.padding import PairBatch, SingleBatch, pair_batches, single_batches

logger = logging.getLogger(__name__)

Batch = Row | PairBatch | SingleBatch
Kind = Literal["rows", "pairs", "singles"]
WIDTH_STEP = 64
"""Rows end at a multiple of this: few shapes, and little padding."""
COMPILED_WIDTHS = 4
"""Lengths that rows have where each of them is compiled: about a quarter of the longest, and its multiples."""
FLEX_BLOCK = 128
"""Positions of a block of FlexAttention's masks."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How the examples of a step become batches for one model."""

    kind: Kind
    row_tokens: int
    pad_id: int
    start_id: int
    shares: bool
    width_step: int
    """Rows end at a multiple of this."""

    def batches(self, examples: Sequence[TokenizedExample], rank: int = 0, world: int = 1) -> list[Batch]:
        """A worker's share of some examples; at least one batch, which may be empty."""
        groups = deal(split(group(examples, self.shares), self.row_tokens), world)[rank]
        return list(self._batches(groups))

    def _batches(self, groups: Sequence[Group]) -> Iterator[Batch]:
        match self.kind:
            case "rows":
                return pack_rows(groups, self.row_tokens, self.pad_id, self.width_step)
            case "pairs":
                return pair_batches(groups, self.row_tokens, self.pad_id, self.start_id, self.shares)
            case "singles":
                return single_batches(groups, self.row_tokens, self.pad_id)

    def empty(self) -> Batch:
        """A batch that adds nothing, for a worker that has fewer than the others."""
        return next(self._batches([]))


def layout(model: Any, config: TrainingConfig, pad_id: int, device: torch.device) -> Layout:
    """Pairs, packed rows, or rows of one where a model would mix packed examples; packed ones switch its attention.

    Raises:
        ValueError: an encoder-decoder does not say how it starts; a window of attention is shorter than examples.
    """
    start_id = 0
    if model.config.is_encoder_decoder:
        kind: Kind = "pairs"
        if model.config.decoder_start_token_id is None:
            raise ValueError("encoder-decoder without decoder_start_token_id: expected it in its config.json; set it")
        start_id = model.config.decoder_start_token_id
    elif packs(model) and config.max_example_tokens <= _short_positions(model):
        kind = "rows"
        windows = (getattr(model.config, name, None) for name in ("sliding_window", "attention_chunk_size"))
        window = min((each for each in windows if each is not None), default=None)
        if window is not None and config.max_example_tokens > window:
            raise ValueError(
                f"training.max_example_tokens = {config.max_example_tokens}, the model attends to the last {window} "
                f"tokens alone; expected no more than that"
            )
        model.set_attn_implementation(attention.NAME)
    else:
        kind = "singles"
        logger.warning("model type %r mixes packed examples: each takes a row of its own", model.config.model_type)
    is_compiled = config.compile or device.type == "cuda"  # as FlexAttention is
    return Layout(
        kind=kind,
        row_tokens=config.row_tokens,
        pad_id=pad_id,
        start_id=start_id,
        shares=config.share_prompts,
        width_step=_compiled_step(config.row_tokens) if is_compiled else WIDTH_STEP,
    )


def _short_positions(model: Any) -> float:
    """The longest example up to which positions are those of short ones, whatever stands in the row: LongRoPE has other
    angles for all of a row that is longer."""
    rope: dict[str, Any] = getattr(model.config, "rope_parameters", None) or {}
    if rope.get("rope_type") != "longrope":
        return float("inf")
    return rope.get("original_max_position_embeddings") or model.config.original_max_position_embeddings


def _compiled_step(row_tokens: int) -> int:
    """What the lengths of compiled rows are multiples of: itself one of FlexAttention's blocks."""
    return -(-row_tokens // (COMPILED_WIDTHS * FLEX_BLOCK)) * FLEX_BLOCK


def packs(model: Any) -> bool:
    """Whether a decoder-only model computes for the chains of a shared prompt what it computes for each alone.

    Tried out, since not all architectures take their attention from transformers' interface, or the positions that they
    are given. The logits may differ by rounding.
    """
    if "logits_to_keep" not in inspect.signature(model.forward).parameters:
        return False
    if model.config._attn_implementation == attention.NAME:
        return True  # it was tried out before
    attention.register()
    before, was_training = model.config._attn_implementation, model.training
    device = next(model.parameters()).device
    ids = torch.arange(24).remainder(model.config.vocab_size).tolist()
    examples = [
        TokenizedExample("", "", tuple(ids[:6]), tuple(ids[6:12])),
        TokenizedExample("", "", tuple(ids[:6]), tuple(ids[12:19])),
        TokenizedExample("", "", tuple(ids[19:22]), tuple(ids[22:])),
    ]
    model.eval()
    with torch.no_grad():
        alone = torch.cat([_logits_alone(model, example, device) for example in examples]).float()
        model.set_attn_implementation(attention.NAME)
        (row,) = pack_rows(group(examples, shares=True), 64, 0, WIDTH_STEP)
        try:
            packed = row.logits(model, device, flex=False).float()
        except TypeError:  # an architecture that hands nothing on to its attention
            packed = torch.zeros_like(alone)
        model.set_attn_implementation(before)
    model.train(was_training)
    rounding = torch.finfo(next(model.parameters()).dtype).eps ** 0.5
    return bool((packed - alone).norm() <= rounding * alone.norm())


def _logits_alone(model: Any, example: TokenizedExample, device: torch.device) -> torch.Tensor:
    """What a model says of an example's target by itself."""
    input_ids = torch.tensor([example.prompt_ids + example.target_ids], device=device)
    return model(input_ids=input_ids, use_cache=False).logits[0, len(example.prompt_ids) - 1 : -1]


class Scorer(torch.nn.Module):
    """A student that says what a batch costs."""

    def __init__(self, model: Any, dtype: torch.dtype, fused: Loss | None = None) -> None:
        super().__init__()
        self.model = model
        self._dtype, self._fused = dtype, fused
        config = model.config
        dropout = max(getattr(config, name, 0.0) or 0.0 for name in ("attention_dropout", "attn_pdrop"))
        self._flex = torch.cuda.is_available() and dropout == 0
        if torch.cuda.is_available() and not self._flex:
            logger.warning("attention dropout %g: FlexAttention has none, a slower one is used; it takes 0", dropout)

    def forward(self, batch: Batch, device: torch.device) -> torch.Tensor:
        """Weighted cross-entropy summed over the target tokens of a batch, in float32."""
        flex, labels_S = self._flex and device.type == "cuda", batch.labels_S.to(device)
        with torch.autocast(device.type, self._dtype, enabled=self._dtype != torch.float32):
            if self._fused is not None and len(labels_S) and bool((batch.weights_S == 1).all()):
                with without_output(self.model) as output:
                    states_SD = batch.logits(self.model, device, flex)
                return self._fused(output.weight, states_SD, labels_S)
            logits_SV = batch.logits(self.model, device, flex)
        losses_S = cross_entropy(logits_SV.float(), labels_S, reduction="none")
        return (losses_S * batch.weights_S.to(device)).sum()
