"""`gsm8k`: grade-school word problems with worked solutions (Cobbe et al. 2021), 7,473 for training and 1,319 for test.

{"question": "Natalia sold clips to 48 of her friends …", "answer": "… 48/2 = <<48/2=24>>24 clips …\\n#### 72"}
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import field_validator

from retort.records import Problem, Split
from retort.tasks import source
from retort.tasks.config import CorpusTaskConfig, hold_out, limit

OFFICIAL_COUNTS: dict[Split, int] = {"train": 7_473, "test": 1_319}


class Config(CorpusTaskConfig):
    """GSM8K from the folder `path` with `train.jsonl` and `test.jsonl`, or from the hub."""

    kind: Literal["gsm8k"] = "gsm8k"
    path: str | None = None

    @field_validator("path")
    @classmethod
    def _is_complete(cls, path: str | None) -> str | None:
        if path is None:
            return None
        return str(Path(source.existing_file(f"{path}/train.jsonl")).parent)

    def files(self) -> list[str]:
        return [source.existing_file(f"{self.path}/{split}.jsonl") for split in OFFICIAL_COUNTS] if self.path else []


def load(config: Config) -> Iterator[Problem]:
    """The problems of every split. Raises ValueError for a missing field or a wrong number of rows."""
    return limit(hold_out(_problems(config), "dev", config.dev_share, config.split_seed), config)


def _problems(config: Config) -> Iterator[Problem]:
    for split, count in OFFICIAL_COUNTS.items():
        name = f"{config.path}/{split}.jsonl" if config.path else "openai/gsm8k"
        rows = source.read_rows(name) if config.path else source.hub_rows(name, "main", split)
        for number, (place, row) in enumerate(source.count_is(rows, count, name)):
            *steps, answer = str(source.field(row, "answer", place)).split("\n")
            if not answer.startswith("#### "):
                raise ValueError(
                    f"{place}: field 'answer' ends with {answer[:40]!r}; expected a last line '#### number'"
                )
            yield Problem(
                id=f"{number:05d}",
                task="gsm8k",
                split=split,
                question=str(source.field(row, "question", place)),
                answer_kind="number",
                answer=answer.removeprefix("#### "),
                steps=tuple(steps),
            )
