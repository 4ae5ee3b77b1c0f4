"""`replay`: plays recorded completions back, so that a corpus somebody already paid for runs through the whole path.

Rows in, JSON lines (`.jsonl`) or one JSON list (`.json`), either gzipped:

    {"question": "Tom has 12 apples. …", "thought": "cot", "completions": ["12 + 5 = 17. …", "…"]}

A row is found by its question, or where it has none by its id (`gsm8k/train/00017`, or its last part). Several rows of
one problem add up, in the order of the record, and the index of a chain is its place in that order. Rows that do not
say their question, bare strings among them, are paired with those of the files `questions`. Field names can be set, for
corpora in other shapes. A recording knows nothing of seeds or budgets; stop strings end its completions as they would
a model's. The last part of an id says nothing of the task: a recording that is found by these is one for one task.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from retort.engines.interface import Completion, EngineConfig, SamplingDistribution, Seeding, until_stop
from retort.prompts import Messages
from retort.records import Request
from retort.store.hashing import digest, digest_file
from retort.tasks import source

SEEDING: Seeding = "none"


class Config(EngineConfig):
    """A recorded corpus. Paths may hold environment variables: `${RETORT_DATA}/…`."""

    paths: tuple[str, ...] = Field(min_length=1)
    """Files of the recording, in order."""
    questions: tuple[str, ...] = ()
    """Files whose rows pair, in order, with those of `paths`, where these do not say their question."""
    id_field: str = "id"
    question_field: str = "question"
    completions_field: str = "completions"
    """Holds one completion or a list of them."""
    thought: str = "cot"
    """The thought of rows that do not say theirs."""

    @field_validator("paths", "questions")
    @classmethod
    def _exist(cls, paths: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(source.existing_file(path) for path in paths)

    def identity(self) -> dict[str, str]:
        files = [*self.paths, *self.questions]
        fields = [self.id_field, self.question_field, self.completions_field, self.thought]
        return {"recording": digest([*(digest_file(Path(path)) for path in files), *fields])}

    def check(self) -> None:
        read_recording(self)


class Engine:
    """A recording in memory."""

    def __init__(self, config: Config) -> None:
        self._completions = read_recording(config)
        self._num_given = 0

    @property
    def num_tokens(self) -> int:
        return self._num_given

    async def start(self) -> None:
        return

    async def complete(
        self, prompt: str | Messages, request: Request, distribution: SamplingDistribution
    ) -> Completion | None:
        del prompt
        problem_id = request.problem_id
        for key in map(question_key, (request.question, problem_id, problem_id.split("/", 2)[2])):
            found = self._completions.get((key, request.thought), [])
            if request.index < len(found):
                text, stop = until_stop(found[request.index], distribution.stop)
                self._num_given += 1
                return Completion(text, "stop", num_prompt_tokens=0, num_tokens=0, stop=stop)
        return None

    def close(self) -> None:
        self._completions.clear()


def question_key(question: str) -> str:
    """What two copies of one question have in common: blanks and case differ between corpora."""
    return " ".join(question.split()).casefold()


def read_recording(config: Config) -> dict[tuple[str, str], list[str]]:
    """Completions by (question or id, thought).

    Raises:
        ValueError: a row names neither question nor id, or has no completions; the paired files differ in length.
    """
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for place, row in _paired_rows(config):
        name = row.get(config.question_field, row.get(config.id_field))
        if name is None:
            raise ValueError(f"{place}: no field {config.question_field!r} or {config.id_field!r}; got {sorted(row)}")
        completions = source.field(row, config.completions_field, place)
        listed = [completions] if isinstance(completions, str) else completions
        if not isinstance(listed, list) or not all(isinstance(completion, str) for completion in listed):
            got = repr(completions)[:60]
            raise ValueError(
                f"{place}: field {config.completions_field!r} is {got}; expected a text or a list of texts"
            )
        found[question_key(str(name)), str(row.get("thought", config.thought))] += listed
    return found


def _paired_rows(config: Config) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, row) of the recording, each with its partner's fields in `questions`; a bare text is a completion."""
    recorded = itertools.chain.from_iterable(source.read_rows(path) for path in config.paths)
    partners = itertools.chain.from_iterable(source.read_rows(path) for path in config.questions)
    for one, two in itertools.zip_longest(recorded, partners):
        if one is None or (config.questions and two is None):
            place = (one or two or ("", None))[0]
            raise ValueError(f"{place}: stands alone; expected as many rows in `questions` as in `paths`")
        row = {config.completions_field: one[1]} if isinstance(one[1], str) else one[1]
        for place, part in filter(None, (two, (one[0], row))):
            if not isinstance(part, dict):
                raise ValueError(f"{place}: got {repr(part)[:60]}; expected an object")
        yield one[0], {**(two[1] if two else {}), **row}
