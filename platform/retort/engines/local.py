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
    accelerator_type: str | None = Field(default=None, min_length=1)
    """Kind of GPU that an engine must have, as Ray calls it: `H100`, `A100-80G`, `L4`. None takes any."""
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

    @property
    def accelerator(self) -> str | None:
        return self.accelerator_type

    def on_gpus(self, has_gpus: bool) -> bool:
        """Whether an engine runs on GPUs, on a cluster that has some or not."""
        return self.device == "gpu" or (self.device == "auto" and has_gpus)

    def num_gpus(self, has_gpus: bool) -> int:
        return int(self.on_gpus(has_gpus))
