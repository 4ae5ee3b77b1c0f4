"""`commonsense_qa`: questions of common sense with five choices (Talmor et al. 2019), 9,741 of train, 1,221 of dev.

    {"id": "…", "question": {"stem": "Where is bread baked?", "question_concept": "bread", "choices": [{"label": "A",
     "text": "bank"}, …]}, "answerKey": "C"}

The labels of its test set are hidden, so that papers report on the official dev set: it is `test` here, and `dev` is a
seeded share of train. In 146 of the questions two choices read the same; the gold letter is then the first of them.
"""

from collections.abc import Iterator
from typing import Literal

from pydantic import field_validator

from retort.records import Problem, Split
from retort.tasks import choices, source
from retort.tasks.config import CorpusTaskConfig, hold_out, limit

LICENCE = "MIT (its dataset card; the copies of its files hold no licence)"
OFFICIAL_COUNTS: dict[Split, int] = {"train": 9_741, "test": 1_221}
FILES: dict[Split, str] = {"train": "train_rand_split.jsonl", "test": "dev_rand_split.jsonl"}
HUB = "tau/commonsense_qa"
HUB_SPLITS: dict[Split, str] = {"train": "train", "test": "validation"}


class Config(CorpusTaskConfig):
    """CommonsenseQA from a folder with `train_rand_split.jsonl` and `dev_rand_split.jsonl`, or from the hub."""

    kind: Literal["commonsense_qa"] = "commonsense_qa"
    path: str | None = None
    """The folder; None reads the Hugging Face hub."""

    @field_validator("path")
    @classmethod
    def _is_complete(cls, path: str | None) -> str | None:
        return path and source.existing_folder(path, FILES.values())

    def files(self) -> list[str]:
        return [f"{self.path}/{name}" for name in FILES.values()] if self.path else []


def load(config: Config) -> Iterator[Problem]:
    """The problems of every split. Raises ValueError for a malformed row or a wrong number of rows."""
    return limit(hold_out(_problems(config), "dev", config.dev_share, config.split_seed), config)


def _problems(config: Config) -> Iterator[Problem]:
    for split, count in OFFICIAL_COUNTS.items():
        name = f"{config.path}/{FILES[split]}" if config.path else HUB
        rows = source.read_rows(name) if config.path else source.hub_rows(HUB, None, HUB_SPLITS[split])
        for place, row in source.count_is(rows, count, name):
            asked = choices.listed(row, "question", 5, place)
            key = source.text(row, "answerKey", place)
            yield Problem(
                id=source.text(row, "id", place),
                task="commonsense_qa",
                split=split,
                question=asked.question,
                answer_kind="choice",
                answer=source.gold("choice", key, place, "answerKey", asked.choices),
                choices=asked.choices,
            )
