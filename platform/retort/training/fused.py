"""Cross-entropy without logits: Liger's fused kernel, where a GPU and a model allow.

Logits of all scored tokens are the largest tensor of a step where vocabularies are large; the kernel computes loss and
gradients block by block. It is tried out on the model's own output layer first: who gets another loss or gradient than
PyTorch does goes on without it.
"""

import contextlib
import logging
from collections.abc import Callable, Generator
from typing import Any

import torch
from torch.nn.functional import cross_entropy

logger = logging.getLogger(__name__)

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Output weights `[V, D]`, states `[S, D]` and labels `[S]` in, the summed loss out."""
TOLERANCE = 0.02
"""Relative; bfloat16 has three digits."""


@contextlib.contextmanager
def without_output(model: Any) -> Generator[Any]:
    """A model whose logits are the states that go into its output layer; that layer."""
    output = model.get_output_embeddings()
    model.set_output_embeddings(torch.nn.Identity())
    try:
        yield output
    finally:
        model.set_output_embeddings(output)


def fused_loss(model: Any, dtype: torch.dtype) -> Loss | None:
    """Liger's loss for a model on a GPU; None where there is neither, or it is not what PyTorch computes."""
    output = model.get_output_embeddings()
    if not output.weight.is_cuda or getattr(output, "bias", None) is not None or model.config.is_encoder_decoder:
        return None
    try:
        from liger_kernel.transformers import (  # pyright: ignore[reportMissingImports] - comes with the extra `gpu`
            LigerFusedLinearCrossEntropyLoss,
        )
    except ImportError:
        return None
    liger: Any = LigerFusedLinearCrossEntropyLoss(reduction="sum", accum_dtype=torch.float32)

    def loss(weight_VD: torch.Tensor, states_SD: torch.Tensor, labels_S: torch.Tensor) -> torch.Tensor:
        return liger(weight_VD.to(states_SD.dtype), states_SD, labels_S)

    if not (has_bare_states(model) and agrees(loss, output.weight, dtype)):
        logger.warning("Liger's cross-entropy is not used: it does not compute what PyTorch does for this model")
        return None
    return loss


def has_bare_states(model: Any) -> bool:
    """Whether logits are the output layer of the states and nothing else: no scale, no cap."""
    ids = torch.arange(8, device=model.device).remainder(model.config.vocab_size)[None]
    attention, was_training = model.config._attn_implementation, model.training
    model.eval()
    model.set_attn_implementation("sdpa")
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits
        with without_output(model) as output:
            states = model(input_ids=ids, use_cache=False).logits
        is_same = bool((output(states) - logits).norm() <= torch.finfo(logits.dtype).eps ** 0.5 * logits.norm())
    model.set_attn_implementation(attention)
    model.train(was_training)
    return is_same


def agrees(loss: Loss, weight_VD: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether loss and gradients are PyTorch's, on random states."""
    V, D = weight_VD.shape
    generator = torch.Generator(weight_VD.device).manual_seed(0)
    states_SD = torch.randn(32, D, dtype=dtype, generator=generator, device=weight_VD.device)
    labels_S = torch.randint(V, (32,), generator=generator, device=weight_VD.device)
    found: list[torch.Tensor] = []
    for compute in (loss, _plain):
        weight, states = weight_VD.detach().clone().requires_grad_(), states_SD.clone().requires_grad_()
        value = compute(weight, states, labels_S)
        value.backward()
        assert weight.grad is not None
        assert states.grad is not None
        found += [value.detach().float(), weight.grad.float(), states.grad.float()]
    pairs = zip(found[:3], found[3:], strict=True)
    return all(bool((ours - theirs).norm() <= TOLERANCE * theirs.norm()) for ours, theirs in pairs)


def _plain(weight_VD: torch.Tensor, states_SD: torch.Tensor, labels_S: torch.Tensor) -> torch.Tensor:
    return cross_entropy((states_SD @ weight_VD.to(states_SD.dtype).T).float(), labels_S, reduction="sum")
