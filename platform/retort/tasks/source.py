"""Rows of a data set: from local files, or from the Hugging Face hub where a recipe names none."""

import gzip
import importlib
import json
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from retort import answers
from retort.records import AnswerKind, Split, storable

HUB_SPLITS: dict[Split, str] = {"train": "train", "dev": "validation", "test": "test"}


def existing_file(path: str) -> str:
    """A path with its environment variables filled in. Raises ValueError where there is no such file."""
    expanded = os.path.expandvars(str(Path(path).expanduser()))
    if not Path(expanded).is_file():
        unset = " (an environment variable in it is not set)" if "$" in expanded else ""
        raise ValueError(f"no file {expanded!r}{unset}; expected an existing one")
    return expanded


def existing_folder(path: str, names: Iterable[str]) -> str:
    """The folder with its environment variables filled in. Raises ValueError where it lacks one of the files."""
    return [str(Path(existing_file(f"{path}/{name}")).parent) for name in names][-1]


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


def numbered_rows(rows: Iterator[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """The rows inside a row that is one object keyed by row number, `{"0": {…}, "1": {…}}`; other rows pass."""
    for place, row in rows:
        if isinstance(row, dict) and isinstance(row.get("0"), dict):
            for number, numbered in row.items():
                yield f"{place}, row {number!r}", numbered
        else:
            yield place, row


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


def text(row: Any, name: str, place: str) -> str:
    """A field that is a text with something in it, without the space around it. Raises ValueError otherwise."""
    value = field(row, name, place)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{place}: field {name!r} is {value!r}; expected a text")
    return value.strip()


def texts(row: Any, name: str, place: str) -> tuple[str, ...]:
    """A field that is a list of texts. Raises ValueError otherwise."""
    values = field(row, name, place)
    if not isinstance(values, list) or not all(isinstance(value, str) and value.strip() for value in values):
        raise ValueError(f"{place}: field {name!r} is {str(values)[:60]}; expected a list of texts")
    return tuple(value.strip() for value in values)


def gold(kind: AnswerKind, written: object, place: str, name: str, choices: tuple[str, ...] = ()) -> str:
    """A gold answer in its normal form. Raises ValueError where it cannot be read as one of its kind."""
    canonical = answers.canonical(kind, str(written), choices=choices)
    if canonical is None:
        raise ValueError(
            f"{place}: field {name!r} is {str(written)[:60]!r}; expected an answer of the kind {kind.replace('_', '/')}"
        )
    return canonical


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


def split_rows(
    paths: dict[Split, str] | None, split: Split, dataset: str, configuration: str | None
) -> Iterator[tuple[str, Any]]:
    """Rows of one split: of its file where there are files, else of the hub."""
    if paths is None:
        return hub_rows(dataset, configuration, HUB_SPLITS[split])
    return numbered_rows(read_rows(paths[split]))


def count_is(rows: Iterator[tuple[str, Any]], official: int, source: str, *copies: int) -> list[tuple[str, Any]]:
    """The rows, if there are as many as the data set officially has, or as a known copy of it has.

    Raises:
        ValueError: another number of rows.
    """
    listed = list(rows)
    if len(listed) not in (official, *copies):
        expected = "".join([f"the official {official}", *(f" or a known copy's {count}" for count in copies)])
        raise ValueError(f"{source}: {len(listed)} rows, expected {expected}; is it the complete, unchanged file?")
    return listed
