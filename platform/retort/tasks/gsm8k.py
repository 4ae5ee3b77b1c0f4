"""`gsm8k`: grade-school word problems with worked solutions (Cobbe et al. 2021), 7,473 for training and 1,319 for test.

    {"question": "Ann has 48 pens and sells half …", "answer": "She sells 48/2 = <<48/2=24>>24 pens …\\n#### 24"}

Its Socratic files hold the same problems in the same order, with a sub-question before each line of the solution; where
a recipe names them, they give the sub-questions.

    {"question": "Ann has 48 pens …", "answer": "How many does she sell? ** She sells 48/2 = <<48/2=24>>24 …\\n#### 24"}
"""

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field, field_validator

from retort.records import Problem
from retort.tasks import source
from retort.tasks.config import CorpusTaskConfig, hold_out, limit

OfficialSplit = Literal["train", "test"]

LICENCE = "MIT (openai/grade-school-math)"
OFFICIAL_COUNTS: dict[OfficialSplit, int] = {"train": 7_473, "test": 1_319}
BETWEEN = " ** "  # a sub-question and its step


class Config(CorpusTaskConfig):
    """GSM8K from the folder `path` with `train.jsonl` and `test.jsonl`, or from the hub."""

    kind: Literal["gsm8k"] = "gsm8k"
    path: str | None = None
    """The folder; None reads the Hugging Face hub."""
    socratic_paths: dict[OfficialSplit, str] = Field(default={})
    """Socratic file of a split of a local copy; without one its problems have no sub-questions. The hub has both."""

    @field_validator("path")
    @classmethod
    def _is_complete(cls, path: str | None) -> str | None:
        return path and source.existing_folder(path, (f"{split}.jsonl" for split in OFFICIAL_COUNTS))

    @field_validator("socratic_paths")
    @classmethod
    def _exist(cls, paths: dict[OfficialSplit, str]) -> dict[OfficialSplit, str]:
        return {split: source.existing_file(path) for split, path in paths.items()}

    def files(self) -> list[str]:
        plain = [source.existing_file(f"{self.path}/{split}.jsonl") for split in OFFICIAL_COUNTS] if self.path else []
        return [*plain, *(path for _, path in sorted(self.socratic_paths.items()))]


def load(config: Config) -> Iterator[Problem]:
    """The problems of every split. Raises ValueError for a missing field or a wrong number of rows."""
    return limit(hold_out(_problems(config), "dev", config.dev_share, config.split_seed), config)


def _problems(config: Config) -> Iterator[Problem]:
    for split, count in OFFICIAL_COUNTS.items():
        name = f"{config.path}/{split}.jsonl" if config.path else "openai/gsm8k"
        rows = source.read_rows(name) if config.path else source.hub_rows(name, "main", split)
        socratic = _socratic(config, split)
        for number, (place, row) in enumerate(source.count_is(rows, count, name)):
            steps, answer = _solution(row, place)
            problem = Problem(
                id=f"{number:05d}",
                task="gsm8k",
                split=split,
                question=source.text(row, "question", place),
                answer_kind="number",
                answer=answer,
                steps=steps,
                sub_questions=_sub_questions(*socratic[number]) if socratic else (),
            )
            if socratic:
                _agree(problem, place, *socratic[number])
            yield problem


def _solution(row: Any, place: str) -> tuple[tuple[str, ...], str]:
    """The lines of a worked solution, with their `<<48/2=24>>`, and its answer; some solutions have blank lines."""
    *steps, last = source.text(row, "answer", place).split("\n")
    if not last.startswith("#### "):
        raise ValueError(f"{place}: field 'answer' ends with {last[:40]!r}; expected a last line '#### number'")
    answer = source.gold("number", last.removeprefix("#### "), place, "answer")
    return tuple(step for step in steps if step.strip()), answer


def _socratic(config: Config, split: OfficialSplit) -> list[tuple[str, Any]]:
    """(place, row) of the Socratic file of a split, or the hub's own; none where a local copy has no such file."""
    path = config.socratic_paths.get(split)
    if config.path is None and path is None:
        return source.count_is(source.hub_rows("openai/gsm8k", "socratic", split), OFFICIAL_COUNTS[split], "the hub")
    return source.count_is(source.read_rows(path), OFFICIAL_COUNTS[split], path) if path else []


def _sub_questions(place: str, row: Any) -> tuple[str, ...]:
    """One sub-question a step; those before a blank line of the solution go with it (two in the test file)."""
    asked: list[str] = []
    for line in _solution(row, place)[0]:
        question, between, step = f"{line} ".partition(BETWEEN)
        if not between or not question.strip():
            raise ValueError(f"{place}: field 'answer' has the line {line[:40]!r}; expected 'sub-question ** step'")
        asked += [question.strip()] if step.strip() else []
    return tuple(asked)


def _agree(problem: Problem, place: str, socratic_place: str, row: Any) -> None:
    """Raises ValueError where the Socratic row is not of this problem."""
    for name, plain, other in (
        ("question", problem.question, source.text(row, "question", socratic_place)),
        ("answer", problem.answer, _solution(row, socratic_place)[1]),
    ):
        if plain != other:
            raise ValueError(
                f"{socratic_place}: field {name!r} is {other[:40]!r}, but {place} has {str(plain)[:40]!r}; expected "
                f"the Socratic file of the same problems in the same order"
            )
