"""Where everything comes from: the recipe, the artifact of every stage, rows in and out, versions and seeding.

The recipe is written out with every default, as TOML that starts the same run.
"""

from retort.engines import ENGINES
from retort.engines.interface import Seeding
from retort.report.blocks import Block, Listing, Remark, Section, Table, table
from retort.report.contents import ROLE_WORDS, Contents
from retort.report.cost import STAGES
from retort.report.formatting import ABSENT, count, duration, moment
from retort.report.recipes import recipe_text, toml, value

ASSUMED = (
    "The paper behind this recipe does not state the values of these fields: they are assumptions of the recipe, and "
    "other values might have given other results."
)
SEEDING_WORDS: dict[Seeding, str] = {
    "exact": "exact: the seed of a chain fixes its draw",
    "none": "none: the index is the order of the record",
}


def lineage(contents: Contents) -> Section:
    """Artifacts, engines and recipe."""
    index = f"Index of this run: artifact {contents.run.id}, of {moment(contents.run.manifest['created_at_s'])}."
    listing = Listing("The recipe with every default, as a file that starts the same run", recipe_text(contents.recipe))
    tables = [_engines(contents), *_libraries(contents), _artifacts(contents)]
    return Section("lineage", "Lineage", (Remark(index), *_assumed(contents), *tables, listing))


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
        case "comparison":
            return None, stats["seeds"] + stats["pairs"]
        case _:
            return None, None


def _assumed(contents: Contents) -> list[Block]:
    """What stands in for what a paper leaves open."""
    names = contents.recipe["assumed"]
    rows = [[name, toml(value(contents.recipe, name))] for name in names]
    return [table("Assumed by the recipe", ["field", "value"], [], rows), Remark(ASSUMED)] if names else []


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
    rows: dict[tuple[str, ...], None] = {}
    for model in dict.fromkeys(sampling.model for sampling in contents.samplings):
        engine, student = contents.engine(model), contents.student(model)
        name = model if student is None else student["id"]
        rows[name, ROLE_WORDS[contents.role(model)], engine, SEEDING_WORDS[ENGINES[engine].SEEDING]] = None
    return table("Engines and their seeding", ["model", "role", "engine", "seeding"], [], rows)
