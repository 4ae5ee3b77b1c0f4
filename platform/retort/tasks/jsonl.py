"""`jsonl`: anybody's own problems, one JSON object a line (or one JSON list), gzipped or not.

    {"id": "7", "question": "Is the sky blue?", "answer": "yes"}
    {"question": "Which is a fruit?", "choices": ["apple", "stone"], "answer": "(a)", "context": "…"}

`question` is required; `answer`, `id`, `choices` and `context` are optional (null is as good as none), and so are the
lists `steps`, `facts` and `sub_questions`, which gold corpora and annotating teachers use. Without `answer` a problem
has no gold label. Other field names are mapped with `fields`.
"""

from collections.abc import Iterator
from typing import Any, Literal, get_args

from pydantic import Field, field_validator

from retort import answers
from retort.records import AnswerKind, Problem, Split
from retort.tasks import source
from retort.tasks.config import CorpusTaskConfig, hold_out, limit

Name = Literal["id", "question", "answer", "choices", "context", "steps", "facts", "sub_questions"]
LICENCE = "not stated: the problems are files of the recipe's own"
FIELDS: tuple[Name, ...] = get_args(Name)


class Config(CorpusTaskConfig):
    """Problems from files of one's own."""

    kind: Literal["jsonl"] = "jsonl"
    paths: dict[Split, str] = Field(min_length=1)
    """File of each split; a missing dev is a seeded share of train."""
    answer_kind: AnswerKind
    """What an answer is: a number, a choice, yes or no, or a text."""
    fields: dict[Name, str] = Field(default={})
    """Names of the fields in the files, where they differ from ours."""

    @field_validator("paths")
    @classmethod
    def _exist(cls, paths: dict[Split, str]) -> dict[Split, str]:
        return {split: source.existing_file(path) for split, path in paths.items()}

    def files(self) -> list[str]:
        return [self.paths[split] for split in sorted(self.paths)]


def load(config: Config) -> Iterator[Problem]:
    """The problems of every split. Raises ValueError for a malformed row, with file, line and field."""
    problems = _problems(config)
    if "dev" not in config.paths:
        problems = hold_out(problems, "dev", config.dev_share, config.split_seed)
    return limit(problems, config)


def _problems(config: Config) -> Iterator[Problem]:
    names = {name: config.fields.get(name, name) for name in FIELDS}
    for split, path in config.paths.items():
        seen: set[str] = set()
        for number, (place, row) in enumerate(source.read_rows(path)):
            problem = _problem(config, names, split, number, place, row)
            if problem.id in seen:
                raise ValueError(
                    f"{place}: field {names['id']!r} is {problem.id!r} for a second time; expected distinct ids"
                )
            seen.add(problem.id)
            yield problem


def _problem(config: Config, names: dict[str, str], split: Split, number: int, place: str, row: Any) -> Problem:
    question = source.field(row, names["question"], place)
    if not isinstance(question, str) or not question.strip():
        raise ValueError(f"{place}: field {names['question']!r} is {question!r}; expected a text")
    choices = [] if row.get(names["choices"]) is None else row[names["choices"]]
    if not isinstance(choices, list) or (config.answer_kind == "choice" and not choices):
        raise ValueError(f"{place}: field {names['choices']!r} is {choices!r}; expected a list of texts")
    gold = row.get(names["answer"])
    if gold is not None:
        gold = _gold(config, str(gold), tuple(map(str, choices)), f"{place}: field {names['answer']!r}")
    context, own_id = row.get(names["context"]), row.get(names["id"])
    return Problem(
        id=f"{number:05d}" if own_id is None else str(own_id),
        task=config.id,
        split=split,
        question=question.strip(),
        answer_kind=config.answer_kind,
        answer=gold,
        choices=tuple(map(str, choices)),
        context=None if context is None else str(context),
        steps=_texts(row, names["steps"], place),
        facts=_texts(row, names["facts"], place),
        sub_questions=_texts(row, names["sub_questions"], place),
    )


def _texts(row: dict[str, Any], name: str, place: str) -> tuple[str, ...]:
    listed = row.get(name) or []
    if not isinstance(listed, list) or not all(isinstance(text, str) for text in listed):
        raise ValueError(f"{place}: field {name!r} is {repr(listed)[:60]}; expected a list of texts")
    return tuple(listed)


def _gold(config: Config, written: str, choices: tuple[str, ...], place: str) -> str:
    """A gold answer in canonical form, from a bare answer or a worked solution that ends in one."""
    found = answers.find(config.answer_kind, written, choices=choices) or written
    canonical = answers.canonical(config.answer_kind, found, choices=choices)
    if canonical is None:
        raise ValueError(f"{place} is {written[:60]!r}; expected {config.answer_kind.replace('_', ' or ')}")
    return canonical
