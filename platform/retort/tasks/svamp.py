"""`svamp`: 1,000 elementary word problems (Patel et al. 2021), one set without official splits.

{"ID": "chal-1", "Body": "Each pack of dvds costs 76 dollars. …", "Question": "How much do you have to pay …?",
 "Equation": "( 76.0 - 25.0 )", "Answer": 51.0, "Type": "Subtraction"}
"""

from collections.abc import Iterator
from typing import Literal

from retort.records import Problem
from retort.tasks import source
from retort.tasks.config import UnsplitTaskConfig, split_by_seed

LICENCE = "MIT (arkilpatel/SVAMP)"
OFFICIAL_COUNT = 1_000


class Config(UnsplitTaskConfig):
    """SVAMP from the file `path` (`SVAMP.json`), or from the hub."""

    kind: Literal["svamp"] = "svamp"


def load(config: Config) -> Iterator[Problem]:
    """The problems of every split. Raises ValueError for a missing field or a wrong number of rows."""
    return split_by_seed(_problems(config), config)


def _problems(config: Config) -> Iterator[Problem]:
    rows = source.read_rows(config.path) if config.path else _hub_rows()
    for place, row in source.count_is(rows, OFFICIAL_COUNT, config.path or "ChilleD/SVAMP"):
        body = str(source.field(row, "Body", place)).strip()
        body = body if body.endswith((".", "?", "!", ",")) else f"{body}."
        yield Problem(
            id=str(source.field(row, "ID", place)),
            task="svamp",
            split="train",
            question=f"{body} {source.field(row, 'Question', place)}",
            answer_kind="number",
            answer=source.gold("number", source.field(row, "Answer", place), place, "Answer"),
            steps=(str(source.field(row, "Equation", place)),),
        )


def _hub_rows() -> Iterator[tuple[str, object]]:
    for split in ("train", "test"):
        yield from source.hub_rows("ChilleD/SVAMP", None, split)
