"""Where everything comes from: the recipe, the artifact of every stage, rows in and out, versions and seeding.

The recipe is written out with every default, as TOML that starts the same run.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from retort.engines import ENGINES
from retort.engines.interface import Seeding
from retort.report.blocks import Listing, Remark, Section, Table, table
from retort.report.contents import ROLE_WORDS, Contents
from retort.report.cost import STAGES
from retort.report.formatting import ABSENT, count, duration, moment, visible

SEEDING_WORDS: dict[Seeding, str] = {
    "exact": "exact: the seed of a chain fixes its draw",
    "none": "none: the index is the order of the record",
}


def lineage(contents: Contents) -> Section:
    """Artifacts, engines and recipe."""
    index = f"Index of this run: artifact {contents.run.id}, of {moment(contents.run.manifest['created_at_s'])}."
    listing = Listing("The recipe with every default, as a file that starts the same run", recipe_text(contents.recipe))
    tables = [_engines(contents), *_libraries(contents), _artifacts(contents)]
    return Section("lineage", "Lineage", (Remark(index), *tables, listing))


def rows_in_out(stage: str, name: str, contents: Contents) -> tuple[int | None, int | None]:
    """Rows that a stage read and wrote for one artifact; None where it reads or writes no rows."""
    stats = contents.stage(stage)[name].stats
    match stage:
        case "problems":
            return None, sum(stats[split] for split in ("train", "dev", "test"))
        case "sampling":
            return stats["wanted"], stats["wanted"] - stats["lacking"]
        case "verdicts":
            return stats["wanted"], stats["rows"]
        case "corpus":
            return stats["rows_in"], sum(n for fate, n in stats["fates"].items() if fate.endswith("/selected"))
        case "checkpoint":
            used = stats["train_examples"] + stats["dev_examples"]
            return used + stats["too_long"], used
        case "evaluation":
            tests = [
                artifact for plan, artifact in contents.stage("verdicts").items() if plan.startswith(f"{name}/test-")
            ]
            return sum(artifact.stats["rows"] for artifact in tests), stats["predictions"]
        case _:
            return None, None


def _artifacts(contents: Contents) -> Table:
    rows: list[list[str]] = []
    for stage, word in STAGES.items():
        for name, artifact in contents.stage(stage).items():
            read, written = rows_in_out(stage, name, contents)
            rows.append(
                [
                    word,
                    name,
                    artifact.id,
                    moment(artifact.manifest["created_at_s"]),
                    count(artifact.manifest["version"]),
                    ABSENT if read is None else count(read),
                    ABSENT if written is None else count(written),
                    duration(artifact.manifest["seconds"]),
                ]
            )
    words = ["stage", "of", "artifact", "made"]
    return table("Artifacts", words, ["version", "rows in", "rows out", "time"], rows)


def _libraries(contents: Contents) -> list[Table]:
    """The libraries that decide results, with the stages that name them in their addresses."""
    used: dict[tuple[str, str], dict[str, None]] = {}
    for stage, word in STAGES.items():
        for artifact in contents.stage(stage).values():
            for library in artifact.manifest["libraries"].items():
                used.setdefault(library, {})[word] = None
    rows = [[library, version, ", ".join(stages)] for (library, version), stages in sorted(used.items())]
    return [table("Libraries that decide results", ["library", "version", "of"], [], rows)] if rows else []


def _engines(contents: Contents) -> Table:
    rows: list[list[str]] = []
    for model in dict.fromkeys(sampling.model for sampling in contents.samplings):
        engine = contents.engine(model)
        rows.append([model, ROLE_WORDS[contents.role(model)], engine, SEEDING_WORDS[ENGINES[engine].SEEDING]])
    return table("Engines and their seeding", ["model", "role", "engine", "seeding"], [], rows)


def recipe_text(recipe: Mapping[str, Any]) -> str:
    """A recipe's dump as TOML."""
    blocks = [_lines(recipe, "")]
    for key, value in recipe.items():
        if isinstance(value, list):
            blocks += [f"[[{key}]]\n{_lines(_flat(element), key)}" for element in value]
        elif isinstance(value, dict):
            blocks.append(f"[{key}]\n{_lines(value, key)}")
    return "\n\n".join(block.strip() for block in blocks) + "\n"


def _flat(element: Mapping[str, Any]) -> dict[str, Any]:
    """An element as a recipe has it: the settings of its engine stand beside its own."""
    own = {key: value for key, value in element.items() if key != "settings"}
    return {"id": element["id"], **own, **element.get("settings", {})}


def _lines(fields: Mapping[str, Any], path: str) -> str:
    """Keys and values, then tables in tables. What is None is left out: TOML has no word for it."""
    is_top = not path
    plain = {key: value for key, value in fields.items() if value is not None and not isinstance(value, dict)}
    text = "".join(
        f"{_key(key)} = {_value(value)}\n" for key, value in plain.items() if not (is_top and isinstance(value, list))
    )
    for key, value in fields.items():
        if isinstance(value, dict) and not is_top:
            text += f"\n[{path}.{_key(key)}]\n{_lines(value, f'{path}.{_key(key)}')}"
    return text


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _value(key)


def _value(value: Any) -> str:
    """JSON's scalars and lists are TOML's too. Hidden characters are escaped: the page would show them as others."""
    text = json.dumps(value, ensure_ascii=False)
    return "".join(character if visible(character) == character else f"\\U{ord(character):08X}" for character in text)
