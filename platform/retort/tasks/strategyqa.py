"""`strategyqa`: 2,290 yes/no questions with the facts and sub-questions that lead to the answer (Geva et al. 2021).

    {"qid": "…", "question": "Can a cat outlive a mayfly?", "answer": true, "facts": ["A mayfly lives for a day.", …],
     "decomposition": ["How long does a mayfly live?", "Is a cat's life longer than #1?"], "term": …, "evidence": …}

The labels of its test set are hidden, so that papers split the 2,290 themselves. Here: files of a 72 / 8 / 20 split
(1,648 / 184 / 458; one question stands in both train and test), or the whole as `train`, split by seed.
"""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from retort.records import Problem, Split
from retort.tasks import source
from retort.tasks.config import SplitTaskConfig, hold_out, limit

LICENCE = "MIT (eladsegal/strategyqa)"
OFFICIAL_COUNT = 2_290
SPLIT_COUNTS: dict[Split, int] = {"train": 1_648, "dev": 184, "test": 458}
HUB = "tasksource/strategy-qa"


class Config(SplitTaskConfig):
    """StrategyQA from files, or from the hub."""

    kind: Literal["strategyqa"] = "strategyqa"
    test_share: float = Field(default=0.2, gt=0, le=1)
    """Share of the problems kept for the reported accuracy, where there is no test file."""


def load(config: Config) -> Iterator[Problem]:
    """The problems of every split. Raises ValueError for a malformed row or a wrong number of rows."""
    problems = _problems(config)
    shares: dict[Split, float] = {"test": config.test_share, "dev": config.dev_share}
    for split, share in shares.items():
        if config.paths is None or split not in config.paths:
            problems = hold_out(problems, split, share, config.split_seed)
    return limit(problems, config)


def _problems(config: Config) -> Iterator[Problem]:
    is_whole = config.paths is None or config.paths.keys() == {"train"}
    for split in config.paths or ("train",):
        name = config.paths[split] if config.paths else HUB
        rows = source.read_rows(name) if config.paths else source.hub_rows(HUB, None, "train")
        count = OFFICIAL_COUNT if is_whole else SPLIT_COUNTS[split]
        for place, row in source.count_is(rows, count, name):
            yield Problem(
                id=source.text(row, "qid", place),
                task="strategyqa",
                split=split,
                question=source.text(row, "question", place),
                answer_kind="yes_no",
                answer=source.gold("yes_no", source.field(row, "answer", place), place, "answer"),
                facts=source.texts(row, "facts", place),
                sub_questions=source.texts(row, "decomposition", place),
            )
