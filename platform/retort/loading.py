"""Loading a recipe: TOML, then dotted overrides, then the models of `config`; wrong input is refused in one line.

teacher.tiny.num_chains=16          (elements of lists are named by id)
"""

import difflib
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from retort.asking import Lesson
from retort.config import Recipe, Teacher, expected
from retort.engines import ENGINES
from retort.tasks import TASKS

WANTED = {
    "bool": "true or false",
    "dict": "a table",
    "float": "a number",
    "int": "an integer",
    "model": "a table",
    "string": "a text",
    "string_pattern_mismatch": "lower-case letters, digits, '-' and '_', of which the first is a letter or a digit",
    "too_short": "a list of at least {min_length}",
    "tuple": "a list",
}
"""Pydantic's kinds of error, or their first words, as what a recipe should have held."""


def load(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of a file with overrides applied.

    Raises:
        ValueError: one line that names the key, what it got, and what is allowed.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        near = difflib.get_close_matches(Path(path).name, [file.name for file in Path(path).parent.glob("*.toml")], n=1)
        hint = f"did you mean {near[0]!r}?" if near else "expected a TOML file"
        raise ValueError(f"recipe {str(path)!r} cannot be read ({type(error).__name__}): {hint}") from error
    try:
        fields = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"recipe {str(path)!r} is not TOML: {error}") from error
    for override in overrides:
        _override(fields, override)
    try:
        return Recipe.model_validate(fields)
    except ValidationError as error:
        line = " ".join(one_line(error, fields).splitlines())  # TOML keys may hold line ends
        raise ValueError(f"recipe {str(path)!r}: {line}") from error


def _override(fields: dict[str, Any], override: str) -> None:
    """Set one dotted key, in place: `teacher.tiny.num_chains=16`, `evaluation.decodes=["greedy"]`, `store=/data`."""
    dotted, separator, text = override.partition("=")
    if not separator or not all(dotted.split(".")):
        raise ValueError(f"override {override!r}: expected KEY=VALUE, as in teacher.tiny.num_chains=16")
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        parsed = {}
    value = parsed["value"] if parsed.keys() == {"value"} else text  # a bare word is a string
    place: Any = fields
    *parents, last = dotted.split(".")
    for parent in parents:
        if isinstance(place, list):
            elements = {
                str(element["id"]): element for element in place if isinstance(element, dict) and "id" in element
            }
            if parent not in elements:
                raise ValueError(f"override {override!r}: no element {parent!r}: {expected(parent, elements)}")
            place = elements[parent]
        else:
            place = place.setdefault(parent, {})
        if not isinstance(place, dict | list):
            raise ValueError(f"override {override!r}: {parent!r} is a value; expected a table or a list of tables")
    if isinstance(place, list):
        raise ValueError(f"override {override!r}: expected an element's id and key, as in teacher.tiny.num_chains=16")
    place[last] = value


def one_line(error: ValidationError, fields: dict[str, Any]) -> str:
    """The most telling of pydantic's findings as: key, what it got, what is allowed, the nearest name."""
    findings = error.errors(include_url=False)
    # Where a name is misspelt another one is missing: the first says more.
    finding = next((finding for finding in findings if finding["type"] == "extra_forbidden"), findings[0])
    *parents, name = finding["loc"] or ("",)
    key = _dotted(finding["loc"], fields)
    match finding["type"]:
        case "extra_forbidden":
            return f"{key}: unknown key; {expected(name, _fields_at(parents, fields))}"
        case "missing":
            return f"{key}: missing; expected {_description(_fields_at(parents, fields)[str(name)])}"
        case "value_error":
            return ": ".join(filter(None, [key, finding["msg"].removeprefix("Value error, ")]))
        case _:
            got = repr(finding["input"])
            return f"{key} = {got if len(got) < 80 else got[:77] + '…'}: {_wanted(finding)}"


def _wanted(finding: ErrorDetails) -> str:
    """What would have been right, in the words of a recipe."""
    if finding["type"] == "literal_error":
        return expected(finding["input"], re.findall(r"'([^']*)'", finding["ctx"]["expected"]))  # type: ignore[typeddict-item]
    kind = finding["type"]
    wanted = WANTED.get(kind) or WANTED.get(kind.split("_")[0]) or finding["msg"].removeprefix("Input should be ")
    return f"expected {wanted.format(**finding.get('ctx', {}))}"


def _description(field: FieldInfo) -> str:
    """What a field takes, found out by giving it something that no field takes."""
    try:
        TypeAdapter[Any](field.annotation).validate_python(object())  # type: ignore[arg-type]
    except ValidationError as error:
        return _wanted(error.errors()[0]).removeprefix("expected ")
    return "a value"


def _dotted(location: tuple[int | str, ...], fields: Any) -> str:
    """A location with list positions replaced by ids."""
    parts: list[str] = []
    for part in location:
        if isinstance(part, int):
            element = fields[part] if isinstance(fields, list) and part < len(fields) else None
            parts.append(str(element.get("id", part)) if isinstance(element, dict) else str(part))
            fields = element
        elif part not in ("settings", "lesson", "[key]"):
            parts.append(part)
            fields = fields.get(part) if isinstance(fields, dict) else None
    return ".".join(parts)


def _fields_at(location: Sequence[int | str], fields: dict[str, Any]) -> dict[str, FieldInfo]:
    """The keys that are allowed at a location."""
    known: dict[str, FieldInfo] = Recipe.model_fields
    match location:
        case ["task", int(number), *location]:
            row = fields["task"][number]
            known = TASKS[row.get("kind", row["id"])].Config.model_fields
        case ["teacher", int(number), *location]:
            engine = ENGINES[fields["teacher"][number]["engine"]]
            known = Teacher.model_fields | Lesson.model_fields | engine.Config.model_fields
        case _:
            pass
    for part in location:
        if isinstance(part, str):
            annotation = known[part].annotation
            kinds = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type)]
            known = next(kind.model_fields for kind in kinds if issubclass(kind, BaseModel))
    return known
