"""Completions that somebody owns already, read from files in the shape that the engine `replay` plays back.

Rows in, JSON lines or one JSON list, either gzipped, or Parquet:

    {"question": "Tom has 12 apples. …", "thought": "cot", "completions": ["12 + 5 = 17. …", "…"],
     "finish_reason": ["stop", "length"], "num_tokens": [31, 96], "num_prompt_tokens": 25, "max_new_tokens": 96}

`id` may stand for the question. A file may leave out the last four, or give one value for all completions of a row.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from retort.records import FinishReason, storable
from retort.tasks import source

REASONS = get_args(FinishReason)


class Completion(NamedTuple):
    """One completion; `number` counts those of the file from 1. No budget is one that the file does not say."""

    number: int
    text: str
    finish_reason: FinishReason
    num_prompt_tokens: int
    num_tokens: int
    max_new_tokens: int | None


class Row(NamedTuple):
    """The completions of one question under one thought. `name` is the question, or an id."""

    place: str
    name: str
    thought: str
    completions: list[Completion]


def read(path: Path) -> Iterator[Row]:
    """The rows of a file, in their order.

    Raises:
        ValueError: a row names neither question nor id, has no completions, or a field of another kind; a file that
            cannot be read.
    """
    number = 1
    for place, row in _parquet_rows(path) if path.suffix == ".parquet" else source.read_rows(str(path)):
        if not isinstance(row, dict):
            raise ValueError(f"{place}: got {repr(row)[:60]}; expected an object")
        name = row.get("question", row.get("id"))
        if name is None:
            raise ValueError(f"{place}: no field 'question' or 'id'; got {sorted(row)}")
        given = source.field(row, "completions", place)
        texts = [given] if isinstance(given, str) else given
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"{place}: field 'completions' is {repr(given)[:60]}; expected a text or a list of texts")
        reasons = _values(row, "finish_reason", len(texts), place, "stop")
        counts = [_values(row, each, len(texts), place, 0) for each in ("num_prompt_tokens", "num_tokens")]
        budgets = _values(row, "max_new_tokens", len(texts), place, None)
        columns = zip(range(number, number + len(texts)), texts, reasons, *counts, budgets, strict=True)
        yield Row(place, str(name), str(row.get("thought") or "cot"), [Completion(*values) for values in columns])
        number += len(texts)


def _values(row: dict[str, Any], name: str, count: int, place: str, default: Any) -> list[Any]:
    """A field's value for each completion of a row."""
    given = row.get(name)
    values = given if isinstance(given, list) else [given] * count
    if len(values) != count:
        raise ValueError(f"{place}: field {name!r} has {len(values)} values for {count} completions")
    values = [default if value is None else value for value in values]
    for value in values:
        least = 1 if name == "max_new_tokens" else 0
        if name == "finish_reason" and value not in REASONS:
            raise ValueError(f"{place}: field {name!r} is {value!r}; expected {' or '.join(REASONS)}")
        if name != "finish_reason" and value is not None and (type(value) is not int or value < least):
            raise ValueError(f"{place}: field {name!r} is {value!r}; expected an integer of at least {least}")
    return values


def _parquet_rows(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        with pq.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(1000, use_threads=False):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", storable(row)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path}: cannot be read ({' '.join(str(error).split())}); expected Parquet") from error
