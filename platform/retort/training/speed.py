"""How much a training computes, and how fast a device could: model FLOPs utilisation, and peak memory.

    FLOPs = tokens · (4 P + 2 P_trained) + scored · (4 H + 2 H_trained) + 12 · layers · width · pairs

`P` are the parameters of the layers and `H` those of the output, each with a multiplication and an addition in the
forward pass and two of each in the backward one (none for gradients of frozen weights); `tokens` are computed, padding
apart, `scored` of them through the output; each of `pairs` (a token and one that it attends to) costs a product of
queries and keys and one with the values. MFU is that by the time of a step and by the peak of all its devices: what the
data sheet says of a GPU in bfloat16 without sparsity, what a large matrix product reaches on others.
"""

import resource
import time
from functools import cache
from typing import Any

import torch

from retort.training.scoring import Batch

PEAK_FLOPS = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
}
"""NVIDIA's data sheets, bfloat16 without sparsity; the first name that a device's contains."""
MATRIX = 1024


def forward_backward_flops(model: Any, batch: Batch) -> float | None:
    """FLOPs of a forward and a backward pass over a batch; None for encoder-decoders, half of which sees each token."""
    config = model.config
    if config.is_encoder_decoder:
        return None
    head = model.get_output_embeddings().weight
    looked_up = {id(model.get_input_embeddings().weight), id(head)}
    layers = [parameter for parameter in model.parameters() if id(parameter) not in looked_up]
    total = sum(parameter.numel() for parameter in layers)
    trained = sum(parameter.numel() for parameter in layers if parameter.requires_grad)
    per_scored = (6 if head.requires_grad else 4) * head.numel()
    pairs = 12 * config.num_hidden_layers * config.hidden_size * batch.num_pairs
    return batch.num_tokens * (4 * total + 2 * trained) + len(batch.labels_S) * per_scored + pairs


@cache
def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """FLOPs per second that a device reaches at best."""
    if device.type == "cuda" and dtype == torch.bfloat16:
        name = torch.cuda.get_device_name(device)
        known = next((peak for part, peak in PEAK_FLOPS.items() if part in name), None)
        if known is not None:
            return known
    one, other = torch.rand(2, MATRIX, MATRIX, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(10):
        began = time.perf_counter()
        product = one @ other
        float(product[0, 0])  # waits for a device that computes behind our back
        best = min(best, time.perf_counter() - began)
    return 2 * MATRIX**3 / best


def peak_memory(device: torch.device) -> int:
    """The most bytes that were in use so far: of the GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
