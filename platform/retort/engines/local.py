"""What the settings of engines share that load a model themselves, inside an actor."""

from typing import Literal, Self

from pydantic import Field, field_validator

from retort.engines import models
from retort.engines.interface import ModelConfig


class LocalModelConfig(ModelConfig):
    """A model, and where and how often it is loaded. Engines name a model alike, and so share its pools."""

    model: str
    """`shipped:NAME`, a directory, or a Hugging Face id."""
    revision: str | None = None
    """Commit of a Hugging Face id; None takes the one that the hub has when the run starts."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    actors: int = Field(default=1, ge=1)
    """Engines that sample side by side."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """`auto` asks for GPUs where the cluster has any when the stage starts."""
    trust_remote_code: bool = False
    """Run code that comes with the model. Off, unless you have read it."""

    @field_validator("model")
    @classmethod
    def _exists(cls, model: str) -> str:
        models.locate(model)
        return model

    def identity(self) -> dict[str, str]:
        return {"model": models.identity(self.model, self.revision), "quantization": "none"}

    @property
    def num_actors(self) -> int:
        return self.actors

    def pinned(self) -> Self:
        return self.model_copy(update={"revision": models.pin(self.model, self.revision)})

    def num_gpus(self, has_gpus: bool) -> int:
        return int(self.device == "gpu" or (self.device == "auto" and has_gpus))
