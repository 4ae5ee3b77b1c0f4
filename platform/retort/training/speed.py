"""How much a training computes, and how fast a device could: model FLOPs utilisation, and peak memory.

    FLOPs = tokens · (4 P + 2 P_trained) + scored · (4 H + 2 H_trained) + 12 · layers · width · pairs

`P` are the parameters of the layers and `H` those of the output (tables that are looked up apart), each with a
multiplication and an addition in the forward pass and two of each in the backward one (none for gradients of frozen
weights); `tokens` are computed, padding apart, `scored` of them through the output; each of `pairs` (a token and one
that it attends to) costs a product of queries and keys and one with the values, as wide as all heads. MFU is that by
the time of a step and by the peak of all its GPUs: what the data sheet says in bfloat16 without sparsity, what a large
matrix product reaches in float32 or on a GPU that is not listed. Of CPUs, whose speed others share, none is told.
"""

import contextlib
import re
import time
from functools import cache
from pathlib import Path
from typing import Any

import torch

from retort.training.scoring import Batch

PEAK_FLOPS = {
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
    "A10G": 70e12,
}
"""NVIDIA's data sheets, bfloat16 without sparsity; the first of which a device's name has all words."""
MATRIX = 8192
"""Rows and columns of the matrices that other peaks are measured with."""


def forward_backward_flops(model: Any, batch: Batch) -> float | None:
    """FLOPs of a forward and a backward pass over a batch; None for encoder-decoders and mixtures of experts, of which
    each token sees a part."""
    config = model.config
    if config.is_encoder_decoder or any(hasattr(config, name) for name in EXPERTS):
        return None
    head = model.get_output_embeddings().weight
    tables = [module.weight for module in model.modules() if isinstance(module, torch.nn.Embedding)]
    looked_up = {id(weight) for weight in (*tables, head)}
    layers = [parameter for parameter in model.parameters() if id(parameter) not in looked_up]
    total = sum(parameter.numel() for parameter in layers)
    trained = sum(parameter.numel() for parameter in layers if parameter.requires_grad)
    per_scored = (6 if head.requires_grad else 4) * head.numel()
    heads = config.num_attention_heads
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    pairs = 12 * config.num_hidden_layers * width * batch.num_pairs
    return batch.num_tokens * (4 * total + 2 * trained) + len(batch.labels_S) * per_scored + pairs


EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
"""Settings that mixtures of experts have."""


@cache
def peak_flops(device: torch.device, dtype: torch.dtype) -> float | None:
    """FLOPs per second that a GPU reaches at best; None for a CPU."""
    if device.type != "cuda":
        return None
    if dtype == torch.bfloat16:
        known = known_peak(torch.cuda.get_device_name(device))
        if known is not None:
            return known
    one, other = torch.rand(2, MATRIX, MATRIX, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(10):
        began = time.perf_counter()
        torch.matmul(one, other)
        torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - began)
    return 2 * MATRIX**3 / best


def known_peak(name: str) -> float | None:
    """What the data sheet says of a GPU; None of one that is not listed."""
    words = set(name.replace("-", " ").split())
    return next((peak for known, peak in PEAK_FLOPS.items() if words >= set(known.split())), None)


def forget_peak_memory(device: torch.device) -> None:
    """Begin anew: one process may train several students."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with contextlib.suppress(OSError):  # a container may forbid it: the peak is then the process's
            Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> int:
    """The most bytes that were in use since then: of the GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024
