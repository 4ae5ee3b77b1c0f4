"""Rows of a data set: from local files, or from the Hugging Face hub where a recipe names none."""

import gzip
import importlib
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from retort.records import storable


def existing_file(path: str) -> str:
    """A path with its environment variables filled in. Raises ValueError where there is no such file."""
    expanded = os.path.expandvars(str(Path(path).expanduser()))
    if not Path(expanded).is_file():
        unset = " (an environment variable in it is not set)" if "$" in expanded else ""
        raise ValueError(f"no file {expanded!r}{unset}; expected an existing one")
    return expanded


def read_rows(path: str) -> Iterator[tuple[str, Any]]:
    """(place, row) of a JSON-lines file or of one JSON list, either gzipped; the place is for error messages.

    Texts are `storable`, so that two files agree on a question whatever spells it.

    Raises:
        ValueError: not JSON, with the file and the line; not UTF-8, or damaged gzip.
    """
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8")
            if path.endswith(".gz")
            else Path(path).open(encoding="utf-8") as file
        ):
            is_list = file.read(1) == "["
            file.seek(0)
            if is_list:
                for number, row in enumerate(_json(file.read(), path, "one list, or one object a line"), start=1):
                    yield f"{path}, element {number}", row
                return
            for number, line in enumerate(file, start=1):
                if line.strip():
                    place = f"{path}, line {number}"
                    yield place, _json(line, place, "one object a line")
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(
            f"{path}: cannot be read ({error}); expected UTF-8, gzipped where the name ends in .gz"
        ) from error


def _json(text: str, place: str, expected: str) -> Any:
    try:
        return storable(json.loads(text))
    except json.JSONDecodeError as error:
        raise ValueError(f"{place}: not JSON ({error.msg}); expected {expected}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place}: cannot be read ({error}); expected {expected}") from error


def field(row: Any, name: str, place: str) -> Any:
    """A field of a row. Raises ValueError where the row lacks it, with file, line and field."""
    if not isinstance(row, dict) or name not in row:
        has = sorted(row) if isinstance(row, dict) else type(row).__name__
        raise ValueError(f"{place}: no field {name!r}; got {has}")
    return row[name]


def hub_rows(dataset: str, configuration: str | None, split: str) -> Iterator[tuple[str, Any]]:
    """Rows of a data set on the Hugging Face hub.

    Raises:
        ValueError: the hub cannot be reached, or the package `datasets` is not there.
    """
    try:
        rows = importlib.import_module("datasets").load_dataset(dataset, configuration, split=split)
    except ImportError as error:
        raise ValueError(
            f"data set {dataset!r}: the Hugging Face hub is read with the package datasets ({error}); install it, or "
            f"set `path` to a local copy"
        ) from error
    except (OSError, ValueError) as error:
        raise ValueError(
            f"data set {dataset!r} cannot be had from the Hugging Face hub ({type(error).__name__}); "
            f"set `path` to a local copy"
        ) from error
    for number, row in enumerate(rows):
        yield f"{dataset}, {split} row {number}", row


def count_is(rows: Iterator[tuple[str, Any]], expected: int, source: str) -> list[tuple[str, Any]]:
    """The rows, if there are as many as the data set officially has. Raises ValueError otherwise."""
    listed = list(rows)
    if len(listed) != expected:
        raise ValueError(
            f"{source}: {len(listed)} rows, expected the official {expected}; is it the complete, unchanged file?"
        )
    return listed
