"""Rows on disk: every record survives Arrow, hostile text included, and a foreign table is refused."""

import io
import types
import typing
from dataclasses import replace
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retort.records import SCHEMA_VERSION, Chain, Example, Problem, Record, as_row, from_table, storable, to_table
from retort.store.artifacts import parquet_bytes

RECORDS = Record.__constraints__
EXAMPLE = Example("t/train/0", "train", "cot", 0, "Question: 1 + 1?\n", "The answer is 2.")
SIMPLE: dict[Any, st.SearchStrategy[Any]] = {
    str: st.text(),
    int: st.integers(-(2**63), 2**63 - 1),
    float: st.floats(allow_nan=False),
    bool: st.booleans(),
    types.NoneType: st.none(),
}


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Everything that a field's annotation allows."""
    parts = typing.get_args(hint)
    if isinstance(hint, types.UnionType):
        return st.one_of([values(part) for part in parts])
    if typing.get_origin(hint) is Literal:
        return st.sampled_from(parts)
    if typing.get_origin(hint) is tuple:
        return st.lists(values(parts[0]), max_size=3).map(tuple)
    return SIMPLE[hint]


def rows_of(record: type) -> st.SearchStrategy[list[Any]]:
    fields = {name: values(hint) for name, hint in typing.get_type_hints(record).items()}
    return st.lists(st.builds(record, **fields), max_size=4)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_record_survives_arrow_and_parquet(record: type, data: st.DataObject):
    rows = data.draw(rows_of(record))
    table = to_table(record, rows)
    assert list(from_table(record, table)) == rows
    assert list(from_table(record, pq.read_table(io.BytesIO(parquet_bytes(table))))) == rows


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("\ud800", "\ufffd"),
        ("a\udfffb", "a\ufffdb"),
        ("\ude00\ud83d", "\ufffd\ufffd"),
        ("\ud83d\ude00", "😀"),
        ("😀 \ufeff é \x00", "😀 \ufeff é \x00"),
    ],
)
def test_a_lone_surrogate_is_stored_as_the_replacement_character(text: str, stored: str):
    problem = Problem("t/train/0", "t", "train", text, "text", text, choices=("b", text), context=text)
    chain = Chain("0" * 64, 0, text, text, "stop", 1, 1, 8, 0, "t/train/0", "cot", 1.5)
    (back,) = from_table(Problem, to_table(Problem, [problem]))
    assert (back.question, back.answer, back.choices, back.context) == (stored, stored, ("b", stored), stored)
    (sampled,) = from_table(Chain, to_table(Chain, [chain]))
    assert (sampled.text, sampled.prompt) == (stored, stored)
    assert as_row(chain) == as_row(sampled)


@given(st.text(st.one_of(st.characters(categories=["Cs"]), st.characters())))
def test_storable_text_is_utf_8_and_stays_as_it_is(text: str):
    stored = storable(text)
    assert stored.encode().decode() == stored == storable(stored)
    if not any("\ud800" <= character <= "\udfff" for character in text):
        assert stored == text


def test_storable_reaches_every_text_of_a_json_value():
    assert storable({"\ud800": ["\ud800", {"a": "\ud800"}, 1, None]}) == {
        "\ufffd": ["\ufffd", {"a": "\ufffd"}, 1, None]
    }


def with_metadata(**changes: str) -> pa.Table:
    table = to_table(Example, [EXAMPLE])
    metadata = {"retort.record": "Example", "retort.version": str(SCHEMA_VERSION)}
    return table.replace_schema_metadata(metadata | {f"retort.{name}": value for name, value in changes.items()})


@pytest.mark.parametrize(
    ("table", "got"),
    [
        (with_metadata(record="Problem"), "'Problem'"),
        (with_metadata(version=str(SCHEMA_VERSION + 1)), f"version '{SCHEMA_VERSION + 1}'"),
        (with_metadata(version="0"), "version '0'"),
        (with_metadata(version="one"), "version 'one'"),
        (with_metadata().replace_schema_metadata(None), "'unknown'"),
        (with_metadata().append_column("fate", pa.array(["selected"])), "fate"),
        (with_metadata().set_column(3, "index", pa.array(["0"])), "index: string"),
    ],
)
def test_another_table_is_refused_in_one_line(table: pa.Table, got: str):
    with pytest.raises(ValueError, match=r"^[^\n]+\Z") as refusal:
        from_table(Example, table)
    assert got in str(refusal.value)


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION + 1))
def test_a_table_of_every_version_so_far_is_read(version: int):
    assert list(from_table(Example, with_metadata(version=str(version)))) == [EXAMPLE]


def test_chains_that_were_paid_for_before_turns_were_kept_are_read():
    chain = Chain("0" * 64, 0, '"q"', "17", "stop", 1, 1, 8, 0, "t/train/0", "cot", 1.5)
    old = to_table(Chain, [chain]).drop_columns("turns")
    old = old.replace_schema_metadata({"retort.record": "Chain", "retort.version": "1"})
    assert list(from_table(Chain, old)) == [chain]


def test_the_longest_turn_is_what_a_budget_bounds():
    chain = Chain("0" * 64, 0, '"q"', "17", "stop", 1, 12, 8, 0, "t/train/0", "socratic", 1.5)
    assert chain.longest_turn == 12
    assert replace(chain, turns=('{"num_tokens": 5}', '{"num_tokens": 7}')).longest_turn == 7
