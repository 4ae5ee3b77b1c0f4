"""Padded batches, for students that do not pack: encoder-decoders, and decoders that mix what stands in one row.

An encoder-decoder takes pairs: the prompt goes to the encoder, once for all chains that have it, and the target to the
decoder. Widths are rounded up, so that there are few shapes, which spares CPU back ends new kernels.

Shapes: G prompts of a batch, P tokens of a prompt, B examples, T tokens of an example or of its target, S scored target
tokens.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from retort.training.examples import TokenizedExample
from retort.training.packing import Group

WIDTH_STEP = 16
IGNORED = -100

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class PairBatch:
    """Pairs for an encoder-decoder; row b's prompt is `prompt_B[b]`. The decoder reads its labels one step late."""

    input_ids_GP: torch.Tensor
    attention_mask_GP: torch.Tensor
    prompt_B: torch.Tensor
    decoder_input_ids_BT: torch.Tensor
    labels_BT: torch.Tensor
    weights_S: torch.Tensor
    num_tokens: int

    @property
    def labels_S(self) -> torch.Tensor:
        return self.labels_BT[self.labels_BT != IGNORED]

    @property
    def num_positions(self) -> int:
        """Positions of the forward pass, with padding."""
        return self.input_ids_GP.numel() + self.labels_BT.numel()

    @property
    def num_pairs(self) -> int:
        """Pairs of a token and one that it attends to, in the encoder, the decoder and across."""
        prompts_G = self.attention_mask_GP.sum(1)
        targets_B = (self.labels_BT != IGNORED).sum(1)
        across = prompts_G[self.prompt_B] * targets_B
        return int((prompts_G**2).sum() + (targets_B * (targets_B + 1) // 2 + across).sum())

    def logits(self, model: Any, device: torch.device, flex: bool) -> torch.Tensor:
        """`[S, vocabulary]`: what the model says of each scored token."""
        from transformers.modeling_outputs import BaseModelOutput

        del flex
        mask_GP, prompt_B = self.attention_mask_GP.to(device), self.prompt_B.to(device)
        encoded_GPD = model.get_encoder()(input_ids=self.input_ids_GP.to(device), attention_mask=mask_GP)[0]
        logits_BTV = model(
            encoder_outputs=BaseModelOutput(last_hidden_state=encoded_GPD[prompt_B]),
            attention_mask=mask_GP[prompt_B],
            decoder_input_ids=self.decoder_input_ids_BT.to(device),
            use_cache=False,
        ).logits
        return logits_BTV[self.labels_BT.to(device) != IGNORED]


@dataclass(frozen=True, slots=True)
class SingleBatch:
    """One example a row. `labels_BT` holds at each position the token that follows it, or `IGNORED`."""

    input_ids_BT: torch.Tensor
    labels_BT: torch.Tensor
    weights_S: torch.Tensor
    num_tokens: int
    num_pairs: int

    @property
    def labels_S(self) -> torch.Tensor:
        return self.labels_BT[self.labels_BT != IGNORED]

    @property
    def num_positions(self) -> int:
        """Positions of the forward pass, with padding."""
        return self.input_ids_BT.numel()

    def logits(self, model: Any, device: torch.device, flex: bool) -> torch.Tensor:
        """`[S, vocabulary]`: what the model says of each scored token. Padding follows, and nobody looks ahead."""
        del flex
        logits_BTV = model(input_ids=self.input_ids_BT.to(device), use_cache=False).logits
        return logits_BTV[self.labels_BT.to(device) != IGNORED]


def single_batches(groups: Sequence[Group], max_tokens: int, pad_id: int) -> Iterator[SingleBatch]:
    """As many examples in a batch as `max_tokens` positions hold; at least one batch."""
    examples = [chain for group in groups for chain in group.chains]
    for batch in _alike(examples, _length, _length, lambda count, widths: count * widths[0], max_tokens):
        shape = max(len(batch), 1), _width(map(len, batch))
        input_ids_BT, labels_BT = torch.full(shape, pad_id), torch.full(shape, IGNORED)
        for row, example in enumerate(batch):
            input_ids_BT[row, : len(example)] = torch.tensor(example.prompt_ids + example.target_ids)
            labels_BT[row, len(example.prompt_ids) - 1 : len(example) - 1] = torch.tensor(example.target_ids)
        pairs = sum(len(example) * (len(example) + 1) // 2 for example in batch)
        yield SingleBatch(input_ids_BT, labels_BT, _weights(batch), sum(map(len, batch)), pairs)


def pair_batches(
    groups: Sequence[Group], max_tokens: int, pad_id: int, start_id: int, shares: bool
) -> Iterator[PairBatch]:
    """As many pairs in a batch as `max_tokens` positions hold, were no prompt shared; at least one batch.

    Where prompts are shared, the pairs of one come together, in one batch or in neighbours.
    """
    pairs = [(group.prompt_ids, chain) for group in groups for chain in group.chains]
    batches = _alike(
        # By prompt and then by the length of the target: `_alike` keeps the order of what is equally long.
        sorted(pairs, key=lambda pair: (pair[0], len(pair[1].target_ids)), reverse=True) if shares else pairs,
        lambda pair: (len(pair[0]),) if shares else (len(pair[0]), len(pair[1].target_ids)),
        lambda pair: (len(pair[0]), len(pair[1].target_ids)),
        lambda count, widths: count * sum(widths),
        max_tokens,
    )
    for batch in batches:
        numbers = [prompt_ids if shares else number for number, (prompt_ids, _) in enumerate(batch)]
        places = {each: place for place, each in enumerate(dict.fromkeys(numbers))}
        prompts = list({each: prompt_ids for each, (prompt_ids, _) in zip(numbers, batch, strict=True)}.values())
        chains = [chain for _, chain in batch]
        G, P, B = max(len(prompts), 1), _width(map(len, prompts)), max(len(batch), 1)
        T = _width(len(chain.target_ids) for chain in chains)
        input_ids_GP, attention_mask_GP = torch.full((G, P), pad_id), torch.zeros((G, P), dtype=torch.long)
        decoder_input_ids_BT, labels_BT = torch.full((B, T), pad_id), torch.full((B, T), IGNORED)
        attention_mask_GP[:, 0] = 1  # an encoder that sees nothing at all, as in an empty batch, computes nan
        decoder_input_ids_BT[:, 0] = start_id
        for row, prompt_ids in enumerate(prompts):
            input_ids_GP[row, : len(prompt_ids)] = torch.tensor(prompt_ids)
            attention_mask_GP[row, : len(prompt_ids)] = 1
        for row, chain in enumerate(chains):
            target = torch.tensor(chain.target_ids)
            decoder_input_ids_BT[row, 1 : len(target)] = target[:-1]
            labels_BT[row, : len(target)] = target
        prompt_B = torch.tensor([places[each] for each in numbers] or [0])
        num_tokens = sum(map(len, prompts)) + sum(len(chain.target_ids) for chain in chains)
        yield PairBatch(
            input_ids_GP, attention_mask_GP, prompt_B, decoder_input_ids_BT, labels_BT, _weights(chains), num_tokens
        )


def _alike(
    items: Sequence[Item],
    order: Callable[[Item], tuple[int, ...]],
    lengths: Callable[[Item], tuple[int, ...]],
    positions: Callable[[int, tuple[int, ...]], int],
    max_tokens: int,
) -> Iterator[list[Item]]:
    """Items of about one length together, at most `max_tokens` positions once padded (or one item); at least one."""
    batch: list[Item] = []
    longest: tuple[int, ...] = ()
    for item in sorted(items, key=order, reverse=True):
        grown = tuple(map(max, zip(longest or lengths(item), lengths(item), strict=True)))
        if batch and positions(len(batch) + 1, tuple(_width([length]) for length in grown)) > max_tokens:
            yield batch
            batch, grown = [], lengths(item)
        batch, longest = [*batch, item], grown
    yield batch


def _length(example: TokenizedExample) -> tuple[int]:
    return (len(example),)


def _weights(chains: Sequence[TokenizedExample]) -> torch.Tensor:
    """The weight of each scored token, in the order of the rows."""
    return torch.tensor([chain.weight for chain in chains for _ in chain.target_ids], dtype=torch.float32)


def _width(lengths: Iterable[int]) -> int:
    """The longest length, rounded up."""
    return max(1, -(-max(lengths, default=1) // WIDTH_STEP)) * WIDTH_STEP
