"""A student's weights: as they are before training, and as they are saved."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from retort.engines import models
from retort.training.config import TrainingConfig

if TYPE_CHECKING:
    from retort.training.progress import Weights


def load_student(base: str, revision: str | None, init: str, config: TrainingConfig) -> Any:
    """The student before training, in float32. Weights of a random one come from the seed."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    located = models.locate(base)
    architecture = AutoConfig.from_pretrained(located, revision=revision)
    auto: Any = AutoModelForSeq2SeqLM if architecture.is_encoder_decoder else AutoModelForCausalLM
    torch.manual_seed(config.seed)
    if init == "random":
        return auto.from_config(architecture, dtype=torch.float32)
    return auto.from_pretrained(located, revision=revision, dtype=torch.float32, use_safetensors=True)


def save_student(student: Any, weights: "Weights", config: TrainingConfig, directory: Path) -> None:
    """Write trained weights in Hugging Face format; `student` is as `load_student` made it, and is used up."""
    import torch

    from retort.training.adapters import merged, with_adapters
    from retort.training.scoring import Scorer

    scorer = Scorer(with_adapters(student, config.lora), torch.float32)
    trained = {name for name, parameter in scorer.named_parameters() if parameter.requires_grad}
    found = scorer.load_state_dict(weights, strict=False)
    lacking = trained & set(found.missing_keys)
    assert not lacking, f"a student without {sorted(lacking)[:3]}"
    assert not found.unexpected_keys, f"weights of another student: {found.unexpected_keys[:3]}"
    merged(scorer.model, config.lora).to(getattr(torch, config.dtype)).save_pretrained(directory)
