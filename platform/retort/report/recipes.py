"""What a recipe's dump says: names of runs and bases, what is learned, the values of fields; and the dump as TOML.

In: the recipe as data, as an index keeps it. It is not made a `Recipe` again: that would look for its models and files,
which the machine that reads a store need not have.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from retort.combining import RULES, parse
from retort.report.formatting import visible

INNER = ("lesson", "settings")
"""Parts of an element whose fields stand beside its own in a recipe."""


def run_names(student: Mapping[str, Any]) -> list[str]:
    """`Student.runs` of a student that is only data: its name, once for each seed."""
    seeds = student["training"]["seeds"]
    return [student["id"]] if len(seeds) == 1 else [f"{student['id']}@{seed}" for seed in seeds]


def taught(corpus: Mapping[str, Any]) -> list[str]:
    """`Corpus.taught` of a corpus that is only data."""
    return ["answer"] if corpus["selection"]["target"] == "answer" else list(corpus["thoughts"])


def is_combiner(thought: str) -> bool:
    """Whether a score's thought is the text of a combiner."""
    return thought.partition(":")[0] in RULES


def is_bound(thought: str) -> bool:
    """Whether a score's thought is a combiner that is told the gold answers."""
    return is_combiner(thought) and parse(thought).is_upper_bound


def spaced(thought: str) -> str:
    """A thought or combiner with room to break: `fallback: pot, eot, cot`, which a recipe may hold as well."""
    return thought.replace(":", ": ").replace(",", ", ")


def worded(thought: str) -> str:
    """A thought or combiner as tables name it: what is no method says so."""
    return f"{spaced(thought)} (upper bound: needs gold)" if is_bound(thought) else spaced(thought)


def base_name(student: Mapping[str, Any]) -> str:
    """What a run calls the base of a student: two revisions are two bases."""
    revision = student["revision"]
    return f"base {student['base']}" if revision is None else f"base {student['base']}@{revision}"


def call(students: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What to call the bases that lie in directories: by the last part of the path, where it tells them apart.

    >>> call([{"base": "/models/small", "revision": None}, {"base": "org/tiny", "revision": None}])
    {'base /models/small': 'base small'}
    """
    bases = {student["base"] for student in students}
    short = {base: base.rstrip("/").rsplit("/", 1)[-1] for base in bases if base.startswith(("/", ".", "~"))}
    names = [*short.values(), *(base for base in bases if base not in short)]
    return {
        base_name(student): base_name({**student, "base": short[student["base"]]})
        for student in students
        if names.count(short.get(student["base"], "")) == 1
    }


def value(recipe: Mapping[str, Any], name: str) -> Any:
    """`Recipe.value` of a recipe that is only data: what stands at `teacher.tiny.num_chains`."""
    place: Any = recipe
    for part in name.split("."):
        place = {row["id"]: _flat(row) for row in place}[part] if isinstance(place, list) else place[part]
    return place


def recipe_text(recipe: Mapping[str, Any]) -> str:
    """A recipe's dump as TOML."""
    blocks = [_lines(recipe, "")]
    for key, field in recipe.items():
        if _is_tables(field):
            blocks += [f"[[{key}]]\n{_lines(_flat(element), key)}" for element in field]
        elif isinstance(field, dict):
            blocks.append(f"[{key}]\n{_lines(field, key)}")
    return "\n\n".join(block.strip() for block in blocks) + "\n"


def _flat(element: Mapping[str, Any]) -> dict[str, Any]:
    """An element as a recipe has it: the fields of its inner parts stand beside its own."""
    own = {key: field for key, field in element.items() if key not in INNER}
    return {
        "id": element["id"],
        **own,
        **{key: field for part in INNER for key, field in element.get(part, {}).items()},
    }


def _is_tables(field: Any) -> bool:
    return isinstance(field, list) and field != [] and all(isinstance(element, dict) for element in field)


def _lines(fields: Mapping[str, Any], path: str) -> str:
    """Keys and values, then tables in tables. What is None is left out: TOML has no word for it."""
    text = "".join(
        f"{_key(key)} = {toml(field)}\n"
        for key, field in fields.items()
        if field is not None and not isinstance(field, dict) and not _is_tables(field)
    )
    for key, field in fields.items() if path else ():
        name = f"{path}.{_key(key)}"
        if isinstance(field, dict):
            text += f"\n[{name}]\n{_lines(field, name)}"
        elif _is_tables(field):
            text += "".join(f"\n[[{name}]]\n{_lines(each, name)}" for each in field)
    return text


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else toml(key)


def toml(field: Any) -> str:
    """JSON's scalars and lists are TOML's too. Hidden characters are escaped: the page would show them as others."""
    text = json.dumps(field, ensure_ascii=False)
    return "".join(character if visible(character) == character else f"\\U{ord(character):08X}" for character in text)
