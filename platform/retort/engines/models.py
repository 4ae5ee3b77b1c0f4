"""Names of models and what they stand for: `shipped:NAME`, a local directory, or a Hugging Face id."""

import re
from importlib import resources
from pathlib import Path

from retort.store.hashing import digest, digest_file

SHIPPED = ("teacher", "student")
_CONTENT = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")


def locate(model: str) -> str:
    """What transformers and vLLM are to load: a directory, or the id as it is.

    Raises:
        ValueError: no such shipped model, or a path that is not a directory with a `config.json`.
    """
    kind, separator, name = model.partition(":")
    if separator and kind == "shipped":
        if name not in SHIPPED:
            raise ValueError(f"model {model!r}: expected one of {[f'shipped:{known}' for known in SHIPPED]}")
        return str(resources.files("retort.shipped") / name)
    if model.startswith(("/", ".", "~")) or Path(model).is_dir():
        path = Path(model).expanduser()
        if not (path / "config.json").is_file():
            raise ValueError(
                f"model {model!r}: expected a directory with a config.json; is the path right on this machine?"
            )
        return str(path.resolve())
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", model):
        raise ValueError(
            f"model {model!r}: expected 'shipped:NAME', a directory, or a Hugging Face id such as 'org/name'"
        )
    return model


def identity(model: str, revision: str | None) -> str:
    """A name for a model's content: the hash of its files, or its id at a revision.

    Raises:
        ValueError: neither a directory nor a revision is given, and the hub cannot be asked.
    """
    located = locate(model)
    if Path(located).is_dir():
        files = sorted(path for pattern in _CONTENT for path in Path(located).glob(pattern))
        return f"sha256:{digest({path.name: digest_file(path) for path in files})}"
    if revision is not None:
        return f"{model}@{revision}"
    return f"{model}@{_resolve_commit(model)}"


def _resolve_commit(model: str) -> str:
    from huggingface_hub import HfApi
    from huggingface_hub.utils import httpx

    try:
        commit = HfApi().model_info(model, timeout=5).sha
    except (httpx.HTTPError, OSError) as error:
        raise ValueError(
            f"model {model!r}: its commit cannot be resolved ({type(error).__name__}); expected a local directory, "
            f"or `revision` set to the commit or a label of your own"
        ) from error
    if commit is None:
        raise ValueError(f"model {model!r}: the hub names no commit; set `revision` to a label of your own")
    return commit
