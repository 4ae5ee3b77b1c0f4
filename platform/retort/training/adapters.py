"""LoRA and DoRA adapters (`peft`): put on before training, merged into the weights when a student is saved."""

from typing import Any

from retort.training.config import LoraConfig


def with_adapters(model: Any, config: LoraConfig | None) -> Any:
    """The model with adapters on its linear layers, which alone are trained; as it is without settings."""
    if config is None:
        return model
    import peft

    return peft.get_peft_model(
        model,
        peft.LoraConfig(
            r=config.rank,
            lora_alpha=config.alpha,
            lora_dropout=config.dropout,
            use_dora=config.dora,
            target_modules="all-linear",
            task_type="SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM",
        ),
    )


def merged(model: Any, config: LoraConfig | None) -> Any:
    """The model by itself, with what the adapters learned in its weights."""
    return model if config is None else model.merge_and_unload()
