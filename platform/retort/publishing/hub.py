"""Pushing a published folder to the Hugging Face hub, with the token of the environment or of `hf auth login`."""

from pathlib import Path
from typing import Literal

Kind = Literal["dataset", "model"]


def check(repo: str) -> None:
    """Refuse a push that cannot be, before anything is written.

    Raises:
        ValueError: a name that the hub does not take, or no token.
    """
    from huggingface_hub import get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ValueError(f"--push {repo!r}: expected OWNER/NAME as the hub has them ({error})") from error
    if not get_token():
        raise ValueError("--push: no token for the hub; set HF_TOKEN, or log in with `hf auth login`")


def push(folder: Path, repo: str, kind: Kind) -> str:
    """Upload a folder as one commit; its address. A repository that is not there is made, and is private.

    Raises:
        ValueError: the hub cannot be reached, or refuses. The folder stays.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils import httpx

    try:
        api = HfApi()
        made = api.create_repo(repo, repo_type=kind, private=True, exist_ok=True)
        api.upload_folder(repo_id=repo, repo_type=kind, folder_path=folder, commit_message="Published with retort")
    except (httpx.HTTPError, OSError) as error:
        told = " ".join(str(error).split())
        raise ValueError(
            f"--push {repo}: {type(error).__name__}: {told}; {folder} is written, push it again with `hf upload {repo} "
            f"{folder} --repo-type {kind}`"
        ) from error
    return str(made)
