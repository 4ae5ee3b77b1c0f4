"""Multiple-choice questions as others write them: choices in a field of their own, or inside the question.

    {"question": {"stem": "Which is a fruit?", "choices": [{"label": "A", "text": "apple"}, …]}, "answerKey": "A"}
    {"question_stem": "Which is a fruit?", "choices": {"label": ["A", …], "text": ["apple", …]}, "answerKey": "A"}
    "Which is a fruit? (a) apple (b) stone"

The first is how AI2 publishes its sets, the second how the Hugging Face hub serves them.
"""

import re
from string import ascii_uppercase
from typing import Any, NamedTuple

from retort.tasks import source


class Asked(NamedTuple):
    """A question without its choices, and the choices."""

    question: str
    choices: tuple[str, ...]


def listed(row: Any, stem: str, count: int, place: str) -> Asked:
    """A row of AI2's, or one of the hub's with its question in the field `stem`.

    Raises:
        ValueError: a missing field, or other choices than `count` texts labelled A, B, C, … in order.
    """
    is_nested = isinstance(row, dict) and isinstance(row.get("question"), dict)
    where, name = (row["question"], "stem") if is_nested else (row, stem)
    question = source.text(where, name, place)
    found = source.field(where, "choices", place)
    if isinstance(found, dict):
        labels, texts = source.texts(found, "label", place), source.texts(found, "text", place)
    elif isinstance(found, list):
        labels, texts = (tuple(source.text(choice, key, place) for choice in found) for key in ("label", "text"))
    else:
        raise ValueError(f"{place}: field 'choices' is {str(found)[:60]}; expected {count} labels and texts")
    if "".join(labels) != ascii_uppercase[:count] or len(texts) != count:
        wanted = ascii_uppercase[:count]
        raise ValueError(f"{place}: field 'choices' has the labels {''.join(labels)[:60]!r}; expected {wanted!r}")
    return Asked(question, texts)


def inline(text: str, labels: str, place: str) -> Asked:
    """A question that carries its choices; each of the labels stands in it once, in order, as `(a)`.

    Raises:
        ValueError: other labels than these, or nothing behind one.
    """
    question, *rest = re.split(rf"\(([{labels}])\)", text)
    asked = Asked(question.strip(), tuple(choice.strip() for choice in rest[1::2]))
    if "".join(rest[::2]) != labels or not all([asked.question, *asked.choices]):
        wanted = " ".join(f"({label}) …" for label in labels)
        raise ValueError(f"{place}: field 'question' ends with {text[-60:]!r}; expected a question with {wanted}")
    return asked
