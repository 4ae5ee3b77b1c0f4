"""`quarel`: stories that compare two things, with two choices (Tafjord et al. 2019), 1,941 / 278 / 552.

    {"id": "QuaRel_V1_Fr_0001", "question": "Ann's sled slows on gravel, so gravel is (A) rougher or (B) smoother.",
     "answer_index": 0, "logical_forms": […], …}
    {"0": {"question": "Ann's sled … (A) rougher or (B) smoother.", "answer": "(A)", "rationale": "…"}, …}

The first is the official form, which the hub serves too. The second is one object keyed by row number; its training
file has a row for each of 8,203 recorded chains, of 1,757 distinct questions: these are the problems, their rationales
are no part of them. The two choices are taken out of the question, without the `or` between them.
"""

import logging
import re
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from retort.records import Problem, Split
from retort.tasks import choices, source
from retort.tasks.config import SPLITS, SplitTaskConfig, as_split

LICENCE = "unknown: none is stated in the copy of INK-USC/RationaleMultiRewardDistillation"
OFFICIAL_COUNTS: dict[Split, int] = {"train": 1_941, "dev": 278, "test": 552}
CHAINS_COUNT = 8_203  # rows of the training file with recorded chains
HUB = "allenai/quarel"
BEHIND_CHOICE = re.compile(r"[\s,./?]*(?:\b(?:or|and)\b)?[\s,./?]*$")

logger = logging.getLogger(__name__)


class Config(SplitTaskConfig):
    """QuaRel from files, or from the hub."""

    kind: Literal["quarel"] = "quarel"


def load(config: Config) -> Iterator[Problem]:
    """The problems of every split. Raises ValueError for a malformed row or a wrong number of rows."""
    return as_split(_problems(config), config)


def _problems(config: Config) -> Iterator[Problem]:
    for split in config.paths or SPLITS:
        name = config.paths[split] if config.paths else HUB
        rows = source.split_rows(config.paths, split, HUB, None)
        counted = source.count_is(rows, OFFICIAL_COUNTS[split], name, *([CHAINS_COUNT] if split == "train" else []))
        problems = [_problem(split, number, place, row) for number, (place, row) in enumerate(counted)]
        if len(problems) == CHAINS_COUNT:
            problems = _distinct(problems, name)
            logger.info("task %s: %d rows of %s are %d questions", config.id, CHAINS_COUNT, name, len(problems))
        yield from problems


def _problem(split: Split, number: int, place: str, row: Any) -> Problem:
    asked = choices.inline(source.text(row, "question", place), "AB", place)
    texts = tuple(BEHIND_CHOICE.sub("", choice) for choice in asked.choices)
    if "answer_index" in row:
        name, index = "answer_index", row["answer_index"]
        key = "ab"[index] if index in (0, 1) else str(index)
    else:
        name, key = "answer", source.text(row, "answer", place)
    return Problem(
        id=str(row.get("id", f"{number:05d}")),
        task="quarel",
        split=split,
        question=asked.question,
        answer_kind="choice",
        answer=source.gold("choice", key, place, name, texts),
        choices=texts,
    )


def _distinct(problems: Iterable[Problem], path: str) -> list[Problem]:
    """Each problem once, under the number of its first row. Raises ValueError where its copies have two answers."""
    firsts: dict[tuple[str, tuple[str, ...]], Problem] = {}
    for problem in problems:
        first = firsts.setdefault((problem.question, problem.choices), problem)
        if first.answer != problem.answer:
            raise ValueError(
                f"{path}: field 'answer' of row {problem.id} is {problem.answer!r}, of row {first.id} with the same "
                f"question {first.answer!r}; expected one answer"
            )
    return list(firsts.values())
