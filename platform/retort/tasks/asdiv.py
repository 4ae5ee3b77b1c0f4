"""`asdiv`: 2,305 word problems of elementary school (Miao et al. 2020), one set without official splits.

    <Problem ID="nluds-0001" Grade="1" Source="…"><Body>Ann has 7 red pens and 2 blue ones.</Body><Question>How many
    pens does she have?</Question><Solution-Type>Addition</Solution-Type><Answer>9 (pens)</Answer>
    <Formula>7+2=9</Formula></Problem>

2,095 problems have one number as their answer, and are kept. The other 210 have no answer of a kind of ours; they are
left out, and the log counts them: 90 have several numbers, 61 a ratio or a time, 59 words. ASDiv is CC BY-NC 4.0: for
non-commercial use only.
"""

import logging
from collections import Counter
from collections.abc import Iterator
from typing import Any, Literal
from xml.etree import ElementTree

from retort import answers
from retort.records import Problem
from retort.tasks import source
from retort.tasks.config import UnsplitTaskConfig, split_by_seed

LICENCE = "CC BY-NC 4.0, for non-commercial use only (chaochun/nlu-asdiv-dataset)"
OFFICIAL_COUNT = 2_305
HUB = "EleutherAI/asdiv"

logger = logging.getLogger(__name__)


class Config(UnsplitTaskConfig):
    """ASDiv from the file `path` (`ASDiv.xml`), or from the hub."""

    kind: Literal["asdiv"] = "asdiv"


def load(config: Config) -> Iterator[Problem]:
    """The problems of every split whose answer is one number.

    Raises:
        ValueError: not XML, a missing field, or a wrong number of rows.
    """
    return split_by_seed(_problems(config), config)


def reason(written: str) -> str | None:
    """Why an answer is not one number, or None where it is."""
    if answers.canonical("number", written) is not None:
        return None
    if ";" in written:
        return "several numbers"
    return "a ratio or a time" if ":" in written else "words"


def _problems(config: Config) -> Iterator[Problem]:
    rows = _xml_rows(config.path) if config.path else _hub_rows()
    left_out: Counter[str] = Counter()
    for place, row in source.count_is(rows, OFFICIAL_COUNT, config.path or HUB):
        written = source.text(row, "Answer", place)
        why_not = reason(written)
        if why_not is not None:
            left_out[why_not] += 1
            continue
        body, question = source.text(row, "Body", place), source.text(row, "Question", place)
        yield Problem(
            id=source.text(row, "ID", place),
            task="asdiv",
            split="train",
            question=" ".join(f"{body} {question}".split()),
            answer_kind="number",
            answer=source.gold("number", written, place, "Answer"),
            steps=tuple(step.strip() for step in source.text(row, "Formula", place).split(";") if step.strip()),
        )
    counts = ", ".join(f"{why}: {count}" for why, count in sorted(left_out.items()))
    logger.info("task %s: left out %d of %d (%s)", config.id, left_out.total(), OFFICIAL_COUNT, counts)


def _xml_rows(path: str) -> Iterator[tuple[str, Any]]:
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise ValueError(f"{path}: not XML ({error}); expected the file ASDiv.xml") from error
    for number, problem in enumerate(root.iter("Problem"), start=1):
        yield f"{path}, problem {number}", {**problem.attrib, **{field.tag: field.text for field in problem}}


def _hub_rows() -> Iterator[tuple[str, Any]]:
    """The hub has the same fields in lower case, and no ids."""
    for number, (place, row) in enumerate(source.hub_rows(HUB, None, "validation")):
        yield place, {"ID": f"{number:05d}", **{name.capitalize(): value for name, value in row.items()}}
