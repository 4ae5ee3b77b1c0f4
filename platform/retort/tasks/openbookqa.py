"""`openbookqa`: questions of elementary science with four choices (Mihaylov et al. 2018), 4,957 / 500 / 500.

Read as AI2 publishes it and as the hub serves it (`choices.listed`; `fact1`, where a row has it, is its fact), and in
two forms in which it circulates: rewritten as instructions, or with the choices inside the question (499 / 498 of dev
and test, as one object keyed by row number).

    {"instruction": "Please choose the correct answer to the question: Ice is\\n\\nAnswer1: hot Answer2: cold Answer3: …
     Answer4: …\\n\\nAnswer format: …", "answer": "answer2", …}
    {"0": {"question": "Ice is (a) hot (b) cold (c) dry (d) soft", "answer": "(b)", …}, …}

Five training questions are repeated, and three have two choices of the same text.
"""

import re
from collections.abc import Iterator
from typing import Any, Literal

from retort.records import Problem, Split
from retort.tasks import choices, source
from retort.tasks.config import SPLITS, SplitTaskConfig, as_split

LICENCE = "unknown for the original release; ODC-By 1.0 for the rewritten copy of AGI-Edgerunners/LLM-Adapters"
OFFICIAL_COUNTS: dict[Split, int] = {"train": 4_957, "dev": 500, "test": 500}
INLINE_COUNTS: dict[Split, tuple[int, ...]] = {"train": (), "dev": (499,), "test": (498,)}
HUB = "allenai/openbookqa"
INSTRUCTION = re.compile(
    r"Please choose the correct answer to the question: (.+)\n\n"
    r"Answer1: (.+) Answer2: (.+) Answer3: (.+) Answer4: (.+)\n\nAnswer format: .+",
    re.DOTALL,
)
NUMBERED = {f"answer{number}": letter for number, letter in enumerate("abcd", start=1)}


class Config(SplitTaskConfig):
    """OpenBookQA from files, or from the hub."""

    kind: Literal["openbookqa"] = "openbookqa"


def load(config: Config) -> Iterator[Problem]:
    """The problems of every split. Raises ValueError for a malformed row or a wrong number of rows."""
    return as_split(_problems(config), config)


def _problems(config: Config) -> Iterator[Problem]:
    for split in config.paths or SPLITS:
        name = config.paths[split] if config.paths else HUB
        rows = source.split_rows(config.paths, split, HUB, "main")
        counted = source.count_is(rows, OFFICIAL_COUNTS[split], name, *INLINE_COUNTS[split])
        for number, (place, row) in enumerate(counted):
            asked, key_name, key = _asked(row, place)
            yield Problem(
                id=str(row.get("id", f"{number:05d}")),
                task="openbookqa",
                split=split,
                question=asked.question,
                answer_kind="choice",
                answer=source.gold("choice", key, place, key_name, asked.choices),
                choices=asked.choices,
                facts=(source.text(row, "fact1", place),) if "fact1" in row else (),
            )


def _asked(row: Any, place: str) -> tuple[choices.Asked, str, str]:
    """The question, and the name and the content of the field that holds its answer, whichever form the row has."""
    if isinstance(row, dict) and "instruction" in row:
        instruction = source.text(row, "instruction", place)
        match = INSTRUCTION.fullmatch(instruction)
        if match is None:
            raise ValueError(
                f"{place}: field 'instruction' ends with {instruction[-60:]!r}; expected a question, Answer1: … to "
                f"Answer4: … and the answer's format"
            )
        question, *texts = (part.strip() for part in match.groups())
        answer = source.text(row, "answer", place)
        return choices.Asked(question, tuple(texts)), "answer", NUMBERED.get(answer, answer)
    if isinstance(row, dict) and isinstance(row.get("question"), str):
        inline = choices.inline(row["question"], "abcd", place)
        return inline, "answer", source.text(row, "answer", place)
    return choices.listed(row, "question_stem", 4, place), "answerKey", source.text(row, "answerKey", place)
