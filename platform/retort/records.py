"""The rows that stages exchange: frozen dataclasses, their ids and their Arrow schemas (DESIGN, invariant 11).

A row on disk is exactly one of these records; `to_table` and `from_table` are the only way there and back. A table
carries its record's name and `SCHEMA_VERSION` in the schema metadata. Versions only add fields, which have defaults, so
that rows of every version so far are read: chains are paid for.

Text from models and files may hold lone surrogates (JSON can spell them, UTF-8 and so Arrow cannot): `storable` is the
rule for them, and no row on disk has any.
"""

import dataclasses
import functools
import json
import types
import typing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import pyarrow as pa

SCHEMA_VERSION = 4
READ_VERSIONS = tuple(str(version) for version in range(1, SCHEMA_VERSION + 1))

AnswerKind = Literal["number", "choice", "yes_no", "text"]
Split = Literal["train", "dev", "test"]
FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One row of a task. `id` is `task/split/number`; `answer` is None where no gold answer is known.

    `steps` are a human's worked solution, `facts` what it rests on, `sub_questions` its decomposition: empty where the
    data set has none. Teachers may be shown them; students never are.
    """

    id: str
    task: str
    split: Split
    question: str
    answer_kind: AnswerKind
    answer: str | None = None
    choices: tuple[str, ...] = ()
    context: str | None = None
    steps: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()
    sub_questions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """One chain to be sampled: what the engine is handed, and the key under which the chain is kept.

    `prompt` is the canonical JSON of a string or of a list of chat messages; `prompt_hash` is its SHA-256 (hex).
    """

    prompt_hash: str
    index: int
    prompt: str
    seed: int
    max_new_tokens: int
    problem_id: str
    thought: str
    question: str


@dataclass(frozen=True, slots=True)
class Chain:
    """One sampled completion of one prompt: the unit that is paid for. Key: (prompt_hash, index).

    Token counts include the end token; they are 0 where the engine cannot tell (a recording without them). A rollout
    of several turns is one chain: `prompt` is its first prompt, `turns` holds each turn as JSON (`rollouts.Turn`),
    `max_new_tokens` is each turn's budget, and the counts are sums. `turns` is empty where there was but one.

    `logprob` is the sum of the log-probabilities of its tokens under the model, before temperature and cuts, None where
    the engine does not tell; `token_logprobs` and `token_ids` are empty unless asked for. `source` says where a chain
    came from that was imported, and is empty for those sampled here.
    """

    prompt_hash: str
    index: int
    prompt: str
    text: str
    finish_reason: FinishReason
    num_prompt_tokens: int
    num_tokens: int
    max_new_tokens: int
    seed: int
    problem_id: str
    thought: str
    finished_at_s: float
    turns: tuple[str, ...] = ()
    logprob: float | None = None
    token_logprobs: tuple[float, ...] = ()
    token_ids: tuple[int, ...] = ()
    source: str = ""

    @property
    def longest_turn(self) -> int:
        """Tokens of the longest turn, which is what `max_new_tokens` bounds."""
        return max((json.loads(turn)["num_tokens"] for turn in self.turns), default=self.num_tokens)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What verification says of a chain, beside the chain itself, so that later stages join nothing.

    `prompt` is what a student is asked on this problem under this thought, whatever the teacher was asked.
    `answer` is canonical (`answers.canonical`); `is_correct` is None where the problem has no gold answer.
    `reason` is `correct` or why not (`verification.REASONS`, and those of solvers). Of the calculator annotations
    `<<12+5=17>>` in the text, `num_steps` could be recomputed and `num_right_steps` were right.
    """

    problem_id: str
    task: str
    split: Split
    thought: str
    index: int
    question: str
    prompt: str
    gold: str | None
    text: str
    answer: str | None
    is_correct: bool | None
    reason: str
    num_prompt_tokens: int
    num_tokens: int
    model_id: str
    num_steps: int = 0
    num_right_steps: int = 0
    logprob: float | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """One thing to learn: a prompt and its target as text; `training.examples` turns it into token ids.

    `pass_rate` is the share of right chains among all that were looked at of the problem and thought, by which a
    curriculum orders problems; None for gold labels, and where the problem has no gold answer.
    """

    problem_id: str
    split: Split
    thought: str
    index: int
    prompt: str
    target: str
    pass_rate: float | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a student (or teacher) says on one problem under one decode, from `num_chains` chains."""

    problem_id: str
    task: str
    thought: str
    decode: str
    question: str
    gold: str | None
    answer: str | None
    is_correct: bool | None
    num_chains: int
    num_correct: int
    num_tokens: int


Record = TypeVar("Record", Problem, Request, Chain, Verdict, Example, Prediction)

_ARROW = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}


def _arrow_field(name: str, hint: Any) -> pa.Field:
    nullable = False
    if isinstance(hint, types.UnionType):
        (hint,) = (part for part in typing.get_args(hint) if part is not types.NoneType)
        nullable = True
    if typing.get_origin(hint) is Literal:
        hint = str
    if typing.get_origin(hint) is tuple:
        return pa.field(name, pa.list_(_ARROW[typing.get_args(hint)[0]]), nullable=False)
    return pa.field(name, _ARROW[hint], nullable=nullable)


@functools.cache
def schema(record: type) -> pa.Schema:
    """The Arrow schema of a record class, derived from its annotations so that the two cannot differ."""
    hints = typing.get_type_hints(record)
    fields = [_arrow_field(field.name, hints[field.name]) for field in dataclasses.fields(record)]
    return pa.schema(fields, metadata={"retort.record": record.__name__, "retort.version": str(SCHEMA_VERSION)})


def to_table(record: type[Record], rows: Iterable[Record]) -> pa.Table:
    """Rows of one record class as an Arrow table."""
    return pa.Table.from_pylist([as_row(row) for row in rows], schema=schema(record))


def as_row(row: Record) -> dict[str, Any]:
    """A record as a flat dict, as Arrow and Ray Data want it: `storable` (tuples become lists in Arrow)."""
    return {field.name: storable(getattr(row, field.name)) for field in dataclasses.fields(row)}


def storable(value: Any) -> Any:
    """A value with every text fit for UTF-8: two halves of a character are joined, a lone surrogate becomes U+FFFD."""
    match value:
        case str():
            return (
                value if value.isascii() else value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
            )
        case list() | tuple():
            return type(value)(map(storable, value))
        case dict():
            return {storable(key): storable(item) for key, item in value.items()}
        case _:
            return value


def from_table(record: type[Record], table: pa.Table) -> Iterator[Record]:
    """Records of an Arrow table.

    Raises:
        ValueError: the table holds another record, or a schema version or columns that this release does not read.
    """
    metadata = table.schema.metadata or {}
    name, version = (
        metadata.get(key, b"unknown").decode(errors="replace") for key in (b"retort.record", b"retort.version")
    )
    if name != record.__name__ or version not in READ_VERSIONS:
        raise ValueError(
            f"table of {name!r} rows, schema version {version!r}: expected {record.__name__!r}, version "
            f"1 to {SCHEMA_VERSION}; read it with the release that wrote it"
        )
    expected = {field.name: field.type for field in schema(record)}
    strange = [f"{field.name}: {field.type}" for field in table.schema if expected.get(field.name) != field.type]
    if strange:
        raise ValueError(f"table of {name!r} rows has columns that such rows do not have: {', '.join(strange)}")
    return from_rows(record, table.to_pylist())


def from_rows(record: type[Record], rows: Iterable[dict[str, Any]]) -> Iterator[Record]:
    """Records of plain dicts; unknown keys are an error, lists become tuples."""
    for row in rows:
        values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
        yield record(**values)
