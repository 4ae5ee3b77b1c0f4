"""`multiarith`: 600 multi-step word problems (Roy and Roth 2015), one set without official splits.

{"iIndex": 0, "sQuestion": " For Halloween Debby and her sister …", "lEquations": ["X=((32.0+42.0)-35.0)"],
 "lSolutions": [39.0], "lAlignments": [80, 120, 136]}
"""

from collections.abc import Iterator
from typing import Literal

from retort.records import Problem
from retort.tasks import source
from retort.tasks.config import UnsplitTaskConfig, split_by_seed

LICENCE = "unknown: none is stated in the copy of kojima-takeshi188/zero_shot_cot"
OFFICIAL_COUNT = 600


class Config(UnsplitTaskConfig):
    """MultiArith from the file `path` (`MultiArith.json`), or from the hub."""

    kind: Literal["multiarith"] = "multiarith"


def load(config: Config) -> Iterator[Problem]:
    """The problems of every split. Raises ValueError for a missing field or a wrong number of rows."""
    return split_by_seed(_problems(config), config)


def _problems(config: Config) -> Iterator[Problem]:
    rows = source.read_rows(config.path) if config.path else _hub_rows()
    for number, (place, row) in enumerate(source.count_is(rows, OFFICIAL_COUNT, config.path or "ChilleD/MultiArith")):
        if config.path:
            question, solutions = source.field(row, "sQuestion", place), source.field(row, "lSolutions", place)
            if not isinstance(solutions, list) or len(solutions) != 1:
                raise ValueError(f"{place}: field 'lSolutions' is {solutions!r}; expected a list of one number")
            name, answer = "lSolutions", solutions[0]
        else:
            question, name = source.field(row, "question", place), "final_ans"
            answer = source.field(row, name, place)
        yield Problem(
            id=f"{number:05d}",
            task="multiarith",
            split="train",
            question=str(question).strip(),
            answer_kind="number",
            answer=source.gold("number", answer, place, name),
        )


def _hub_rows() -> Iterator[tuple[str, object]]:
    for split in ("train", "test"):
        yield from source.hub_rows("ChilleD/MultiArith", None, split)
