"""Folders that are there when all of them is, and copies of what an artifact's manifest names."""

import contextlib
import os
import shutil
from collections.abc import Generator
from pathlib import Path

from retort.store.artifacts import Artifact


@contextlib.contextmanager
def new_folder(folder: Path) -> Generator[Path]:
    """A folder to be filled, which gets its name at the end. What a killed process leaves has another one.

    Raises:
        ValueError: something is there already.
    """
    target = folder.expanduser().absolute()
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise ValueError(f"{folder} is there already; expected a new folder, or an empty one")
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    partial.mkdir(parents=True)
    try:
        yield partial
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def copy_files(artifact: Artifact, folder: Path) -> None:
    """Copy the files of an artifact into a folder.

    Raises:
        ValueError: a file is gone, or not as long as it was when it was written.
    """
    source = Path(artifact.directory())
    for file in artifact.manifest["files"]:
        path = source / file["name"]
        size = path.stat().st_size if path.is_file() else None
        if size != file["size"]:
            found = "is gone" if size is None else f"has {size} bytes"
            raise ValueError(
                f"{artifact.uri} is damaged: {file['name']} {found}, expected {file['size']} bytes; delete "
                f"{artifact.uri}/manifest.json and start the recipe again: all of it is made anew"
            )
        shutil.copyfile(path, folder / file["name"])
