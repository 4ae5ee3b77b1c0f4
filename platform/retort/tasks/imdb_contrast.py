"""`imdb_contrast`: film reviews and the same reviews minimally changed to say the opposite (Gardner et al. 2020).

    Sentiment	Text
    Negative	"A dull film, and ""long"" too.<br /><br />I slept."

488 of each for test, 100 of each for dev; nothing to train on. Two elements of a recipe, one with `part = "original"`
and one with `part = "contrast"`, report the two side by side (PAPERS 1.8): the problem `…/test/00017` of one is the
changed twin of that of the other, with the other answer. No copy on the hub is known to be the original's.
"""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from retort.records import Problem, Split
from retort.tasks import source
from retort.tasks.config import EvaluationTaskConfig, limit

Part = Literal["original", "contrast"]

LICENCE = "unknown: none is stated in allenai/contrast-sets"
OFFICIAL_COUNTS: dict[Split, int] = {"dev": 100, "test": 488}
PARTS: tuple[Part, ...] = ("original", "contrast")
CHOICES = ("negative", "positive")
QUESTION = "Is this review negative or positive?"


class Config(EvaluationTaskConfig):
    """One part of the IMDb contrast sets, from the folder `path` with `{dev,test}_{original,contrast}.tsv`."""

    kind: Literal["imdb_contrast"] = "imdb_contrast"
    path: str
    """The folder."""
    part: Part
    """The reviews as they were written, or changed."""
    max_characters: int = Field(default=2_800, ge=100)
    """A review is cut there: SCoTD cuts at 700 tokens of about four characters. The longest has 1,954."""

    @field_validator("path")
    @classmethod
    def _is_complete(cls, path: str) -> str:
        return source.existing_folder(path, (f"{split}_{part}.tsv" for split in OFFICIAL_COUNTS for part in PARTS))

    def files(self) -> list[str]:
        return [f"{self.path}/{split}_{self.part}.tsv" for split in OFFICIAL_COUNTS]


def load(config: Config) -> Iterator[Problem]:
    """The problems of dev and test. Raises ValueError for a malformed row or a wrong number of rows."""
    return limit(_problems(config), config)


def _problems(config: Config) -> Iterator[Problem]:
    for (split, count), path in zip(OFFICIAL_COUNTS.items(), config.files(), strict=True):
        for number, (place, row) in enumerate(source.count_is(_rows(path), count, path)):
            review = source.text(row, "Text", place)
            label = source.text(row, "Sentiment", place)
            yield Problem(
                id=f"{number:05d}",
                task="imdb_contrast",
                split=split,
                question=QUESTION,
                answer_kind="choice",
                answer=source.gold("choice", label, place, "Sentiment", CHOICES),
                choices=CHOICES,
                context=review[: config.max_characters],
            )


def _rows(path: str) -> Iterator[tuple[str, Any]]:
    """Rows of a table with tabs between its columns and quotes around texts that hold quotes."""
    try:
        with Path(path).open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t", restkey="more", strict=True)
            for row in reader:
                yield f"{path}, line {reader.line_num}", row
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: cannot be read ({error}); expected UTF-8 with tabs between columns") from error
