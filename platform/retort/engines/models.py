"""Names of models and what they stand for: `shipped:NAME`, a directory here or in a store, or a Hugging Face id."""

import functools
import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

from retort.store import fetch
from retort.store.hashing import digest, digest_file

SHIPPED = ("teacher", "student")
_CONTENT = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "*.py")


def locate(model: str) -> str:
    """What transformers and vLLM are to load: a directory, or the id as it is.

    A checkpoint in S3 is fetched into this machine's cache, unless it is there.

    Raises:
        ValueError: no such shipped model, or a path or URI that is not of a directory with a `config.json`.
        OSError: storage that cannot be read.
    """
    kind, separator, name = model.partition(":")
    if separator and kind == "shipped":
        if name not in SHIPPED:
            raise ValueError(f"model {model!r}: expected one of {[f'shipped:{known}' for known in SHIPPED]}")
        return str(resources.files("retort.shipped") / name)
    if model.startswith(("/", ".", "~")) or "://" in model or Path(model).is_dir():
        path = Path(fetch(model) if "://" in model else model).expanduser()
        if not (path / "config.json").is_file():
            raise ValueError(
                f"model {model!r}: expected a directory with a config.json; is the path right on this machine?"
            )
        return str(path.resolve())
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", model):
        raise ValueError(
            f"model {model!r}: expected 'shipped:NAME', a directory, its URI in a store, or a Hugging Face id such as "
            f"'org/name'"
        )
    return model


@functools.cache
def pin(model: str, revision: str | None) -> str | None:
    """The revision to load: None for a directory, else the given one or the commit that the hub has now.

    Asked once in a process, so that what is loaded is what the identity names.

    Raises:
        ValueError: an id without a revision whose commit the hub does not tell.
    """
    if Path(locate(model)).is_dir():
        return None
    return revision if revision is not None else _resolve_commit(model)


@functools.cache
def identity(model: str, revision: str | None, has_weights: bool = True) -> str:
    """A name for a model's content: the hash of its files, or its id at a revision.

    Raises:
        ValueError: a directory without safetensors weights, which alone are loaded; a commit that cannot be resolved.
    """
    located = Path(locate(model))
    if not located.is_dir():
        return f"{model}@{pin(model, revision)}"
    if has_weights and not any(located.glob("*.safetensors")):
        raise ValueError(
            f"model {model!r}: no *.safetensors in {located}; expected weights in that format, convert them"
        )
    files = sorted(path for pattern in _CONTENT for path in located.glob(pattern))
    return f"sha256:{digest({path.name: digest_file(path) for path in files})}"


def is_encoder_decoder(model: str, revision: str | None) -> bool:
    """Whether a model reads its prompt with an encoder of its own, as T5 does."""
    from transformers import AutoConfig

    return bool(AutoConfig.from_pretrained(locate(model), revision=pin(model, revision)).is_encoder_decoder)


def context(model: str) -> int | None:
    """Tokens that a model sees, prompt and completion together; None where its configuration does not say for sure.

    It does not where rotary positions are stretched, nor of encoder-decoders, which read the prompt apart. Of an id
    nothing is known here: the hub is not asked, for what is planned need not run on this machine.
    """
    file = Path(locate(model)) / "config.json"
    if not file.is_file():
        return None
    config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    rope: dict[str, Any] = config.get("rope_scaling") or config.get("rope_parameters") or {}
    is_plain = rope.get("rope_type", rope.get("type", "default")) == "default"
    if config.get("is_encoder_decoder") or not is_plain or any(isinstance(value, dict) for value in rope.values()):
        return None
    return config.get("max_position_embeddings", config.get("n_positions"))


def _resolve_commit(model: str) -> str:
    from huggingface_hub import HfApi
    from huggingface_hub.utils import httpx

    try:
        commit = HfApi().model_info(model, timeout=5).sha
    except (httpx.HTTPError, OSError) as error:
        raise ValueError(
            f"model {model!r}: its commit cannot be resolved ({type(error).__name__}); expected a local directory, "
            f"or `revision` set to a commit"
        ) from error
    if commit is None:
        raise ValueError(f"model {model!r}: the hub names no commit; set `revision` to one")
    return commit
