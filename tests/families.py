"""Tiny random models of the families that the papers' students come from, with the shipped student's tokenizer."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BartConfig,
    GPT2Config,
    LlamaConfig,
    OPTConfig,
    Qwen2Config,
    T5Config,
)

from retort.engines import models

DECODERS = ("llama", "qwen2", "gpt2", "opt")
ENCODER_DECODERS = ("t5", "bart")
FAMILIES = (*DECODERS, *ENCODER_DECODERS)

VOCABULARY = 507
POSITIONS = 256
END = 0


def architecture(family: str, vocabulary: int = VOCABULARY) -> Any:
    """Two layers of 64, without dropout."""
    tokens: dict[str, Any] = {"vocab_size": vocabulary, "bos_token_id": None, "eos_token_id": END, "pad_token_id": END}
    sizes: dict[str, Any] = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes["max_position_embeddings"] = POSITIONS
    start: dict[str, Any] = {"decoder_start_token_id": END}
    match family:
        case "llama":
            return LlamaConfig(**tokens, **sizes, intermediate_size=128)
        case "qwen2":
            return Qwen2Config(**tokens, **sizes, intermediate_size=128, num_key_value_heads=1)
        case "gpt2":
            no_dropout: dict[str, Any] = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
            return GPT2Config(**tokens, **no_dropout, n_embd=64, n_layer=2, n_head=2, n_positions=POSITIONS)
        case "opt":
            return OPTConfig(**tokens, **sizes, ffn_dim=128, word_embed_proj_dim=64, dropout=0.0)
        case "t5":
            layers: dict[str, Any] = {"d_model": 64, "d_kv": 32, "d_ff": 128, "num_layers": 2, "num_heads": 2}
            return T5Config(**tokens, **layers, **start, dropout_rate=0.0)
        case "bart":
            encoder: dict[str, Any] = {"encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 128}
            decoder: dict[str, Any] = {"decoder_layers": 2, "decoder_attention_heads": 2, "decoder_ffn_dim": 128}
            both = encoder | decoder
            return BartConfig(**tokens, **both, **start, d_model=64, dropout=0.0, max_position_embeddings=POSITIONS)
        case _:
            raise ValueError(family)


def random_model(config: Any, scale: float = 1.0) -> Any:
    """The same weights every time; scaled up, they make a model that minds its context."""
    torch.manual_seed(0)
    auto: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    model = auto.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale if parameter.ndim > 1 else 1.0)
    return model


def save(family: str, directory: Path, scale: float = 1.0) -> str:
    """A checkpoint as a user would bring it; its path."""
    random_model(architecture(family), scale).save_pretrained(directory)
    AutoTokenizer.from_pretrained(models.locate("shipped:student")).save_pretrained(directory)
    return str(directory)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Models this small are fastest on one thread; on a busy machine two wait for each other for minutes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
