"""Markdown of a card, README.md to the hub: front matter, tables, and texts that nobody vouches for.

code("raised NameError")  →  `raised NameError`
fenced("a\\n```\\nb")      →  a fence of four backticks

What models and users wrote stands in code alone, where it is neither markup nor a link.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from retort.report.formatting import visible
from retort.report.recipes import toml

HUB_LICENCES = {
    "apache-2.0",
    "mit",
    "odc-by",
    "cc0-1.0",
    "cc-by-4.0",
    "cc-by-sa-4.0",
    "cc-by-nc-4.0",
    "cc-by-nc-sa-4.0",
}
"""Licences as the hub writes them. Any other text goes as the name of a licence that is `other`."""
_NOT_IN_SPAN = frozenset("`|\\")
_MACHINE = re.compile(r"(?:~|\.{0,2}/|file://).*/(.+)")
Fields = Mapping[str, Any]


def code(text: str) -> str:
    """A text in one line of code, in a sentence or a table."""
    shown = " ".join(visible(text).split())
    if shown and not _NOT_IN_SPAN & set(shown):
        return f"`{shown}`"
    return f"<code>{''.join(each if each.isalnum() or each == ' ' else f'&#{ord(each)};' for each in shown)}</code>"


def fenced(text: str, language: str = "") -> str:
    """A text as a block of code, whatever fences it holds itself."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return "\n".join([fence + language, visible(text).removesuffix("\n"), fence])


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows of cells that are Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def settings(fields: Fields) -> str:
    """Keys and values as a recipe has them; what is None, and so not said, is left out."""
    rows = ([code(key), code(toml(value))] for key, value in fields.items() if value is not None)
    return table(["field", "value"], rows)


def card(fields: Fields, blocks: Iterable[str]) -> str:
    """A whole card. JSON's values are YAML's too; a field that is None is left out."""
    front = [f"{key}: {visible(json.dumps(value, ensure_ascii=False))}" for key, value in fields.items() if value]
    return "\n\n".join(["\n".join(["---", *front, "---"]), *blocks]) + "\n"


def licence_fields(licence: str | None) -> dict[str, str]:
    """A licence as front matter names it."""
    if licence is None:
        return {"license": "unknown"}
    name = re.sub(r"[^a-z0-9.]+", "-", licence.lower()).strip("-")
    return {"license": name} if name in HUB_LICENCES else {"license": "other", "license_name": name or "other"}


def placeless(value: Any) -> Any:
    """A value without the folders of a machine: `/home/ann/models/small` becomes `…/small`."""
    match value:
        case str():
            return f"…/{found[1]}" if (found := _MACHINE.fullmatch(value)) else value
        case list():
            return [placeless(each) for each in value]
        case dict():
            return {key: placeless(each) for key, each in value.items()}
        case _:
            return value
