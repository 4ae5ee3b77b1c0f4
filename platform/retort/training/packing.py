"""Packed rows for decoder-only students: several groups, each one prompt with its chains, in one forward pass.

    prompt A · chain A0 · chain A1 · prompt B · chain B0 · padding        a row
    0 … p−1  · p …      · p …      · 0 …      · …                        its positions

A prompt is computed once for all chains of a step that have it: positions of each chain go on behind the prompt, a
chain attends to its prompt and to itself (`attention`), and the logits at the prompt's last token are scored against
the first token of every chain. So loss and gradients are those of each example alone.

Shapes: T positions of a row, S scored target tokens.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from retort.training.attention import Layout, Span, flex_layout, pieces
from retort.training.examples import TokenizedExample


@dataclass(frozen=True, slots=True)
class Group:
    """Examples with one prompt."""

    prompt_ids: tuple[int, ...]
    chains: tuple[TokenizedExample, ...]

    def __len__(self) -> int:
        return len(self.prompt_ids) + sum(len(chain.target_ids) for chain in self.chains)


@dataclass(frozen=True, slots=True)
class Row:
    """A packed row. Logits at `source_S` (one position may be scored several times) are to predict `labels_S`."""

    input_ids_T: torch.Tensor
    position_ids_T: torch.Tensor
    source_S: torch.Tensor
    labels_S: torch.Tensor
    weights_S: torch.Tensor
    spans: tuple[Span, ...]
    num_tokens: int
    """Tokens that are computed, without padding."""

    @property
    def num_positions(self) -> int:
        """Positions of the forward pass, with padding."""
        return len(self.input_ids_T)

    @property
    def num_pairs(self) -> int:
        """Pairs of a token and one that it attends to: what attention costs."""
        total = 0
        for span in self.spans:
            prompt = span.prompt_end - span.begin
            begins = (span.prompt_end, *span.chain_ends)
            lengths = [end - begin for begin, end in zip(begins, span.chain_ends, strict=False)]
            total += prompt * (prompt + 1) // 2 + sum(
                length * prompt + length * (length + 1) // 2 for length in lengths
            )
        return total

    def attention(self, device: torch.device, flex: bool) -> Layout:
        """How the row attends, for `attention.attend`."""
        if flex:
            return flex_layout(self.spans, self.num_positions, device)
        return pieces(self.spans, self.num_positions).to(device)

    def logits(self, model: Any, device: torch.device, flex: bool) -> torch.Tensor:
        """`[S, vocabulary]`: what the model says of each scored token."""
        return model(
            input_ids=self.input_ids_T[None].to(device),
            position_ids=self.position_ids_T[None].to(device),
            packed=self.attention(device, flex),
            logits_to_keep=self.source_S.to(device),
            use_cache=False,
        ).logits[0]


def group(examples: Sequence[TokenizedExample], shares: bool) -> list[Group]:
    """Examples with one prompt together, in the order of their first; each alone where prompts are not shared."""
    if not shares:
        return [Group(example.prompt_ids, (example,)) for example in examples]
    chains: dict[tuple[int, ...], list[TokenizedExample]] = {}
    for example in examples:
        chains.setdefault(example.prompt_ids, []).append(example)
    return [Group(prompt_ids, tuple(found)) for prompt_ids, found in chains.items()]


def split(groups: Sequence[Group], row_tokens: int) -> list[Group]:
    """Groups that fit a row: one that is too long becomes several, each with the prompt."""
    made: list[Group] = []
    for each in groups:
        room = [row_tokens - len(each.prompt_ids)] * len(each.chains)
        for chosen in pack([len(chain.target_ids) for chain in each.chains], room[0]):
            made.append(Group(each.prompt_ids, tuple(each.chains[index] for index in sorted(chosen))))
    return made


def pack(lengths: Sequence[int], row_tokens: int) -> list[list[int]]:
    """Indices of what goes into each row, best fit decreasing.

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


def deal(groups: Sequence[Group], num_workers: int) -> list[list[Group]]:
    """Groups for each worker, the longest first and each to whoever has least, so that all end at about one time.

    A group that is longer than a worker's share becomes two, each with the prompt, as long as it has chains to share.
    """
    most = sum(map(len, groups)) / num_workers
    groups = list(groups)
    while num_workers > 1 and any(len(each) > most and len(each.chains) > 1 for each in groups):
        groups = [half for each in groups for half in (_halves(each) if len(each) > most else [each])]
    dealt: list[list[Group]] = [[] for _ in range(num_workers)]
    loads = [0] * num_workers
    for each in sorted(groups, key=len, reverse=True):
        worker = loads.index(min(loads))
        dealt[worker].append(each)
        loads[worker] += len(each)
    return dealt


def _halves(group: Group) -> list[Group]:
    """A group as two, which have every other chain; as it is where it has but one."""
    return [Group(group.prompt_ids, chains) for chains in (group.chains[::2], group.chains[1::2]) if chains]


def pack_rows(groups: Sequence[Group], row_tokens: int, pad_id: int, width_step: int) -> Iterator[Row]:
    """Packed rows, at least one; each is as long as the next multiple of `width_step`, so that there are few shapes."""
    fitting = split(groups, row_tokens)
    for chosen in pack([len(each) for each in fitting], row_tokens) or [[]]:
        yield _row([fitting[index] for index in chosen], width_step, pad_id)


def _row(groups: Sequence[Group], width_step: int, pad_id: int) -> Row:
    """Groups one after another."""
    input_ids: list[int] = []
    position_ids: list[int] = []
    source: list[int] = []
    labels: list[int] = []
    weights: list[float] = []
    spans: list[Span] = []
    for each in groups:
        begin, prompt = len(input_ids), len(each.prompt_ids)
        input_ids += each.prompt_ids
        position_ids += range(prompt)
        ends: list[int] = []
        for chain in each.chains:
            start, length = len(input_ids), len(chain.target_ids)
            input_ids += chain.target_ids
            position_ids += range(prompt, prompt + length)
            source += [begin + prompt - 1, *range(start, start + length - 1)]
            labels += chain.target_ids
            weights += [chain.weight] * length
            ends.append(len(input_ids))
        is_plain = len(ends) == 1
        spans.append(Span(begin, ends[0], ()) if is_plain else Span(begin, begin + prompt, tuple(ends)))
    num_tokens = len(input_ids)
    num_positions = max(1, -(-num_tokens // width_step)) * width_step
    return Row(
        torch.tensor(input_ids + [pad_id] * (num_positions - num_tokens)),
        torch.tensor(position_ids + [0] * (num_positions - num_tokens)),
        torch.tensor(source, dtype=torch.long),
        torch.tensor(labels, dtype=torch.long),
        torch.tensor(weights, dtype=torch.float32),
        tuple(spans),
        num_tokens,
    )
