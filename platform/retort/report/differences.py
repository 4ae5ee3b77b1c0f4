"""What differs between runs beside their scores: recipes, versions and libraries, data, tokens and seconds.

In: the runs of a comparison; the others are held against the first. What is equal in all is left out, or said to be.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, get_args

from retort.records import Problem, Split
from retort.report.blocks import Block, Listing, Remark, Section, Table, table
from retort.report.contents import ROLE_WORDS, Contents, Role
from retort.report.cost import STAGES, Stats, sampling_stats, stage_seconds
from retort.report.duels import Side
from retort.report.formatting import ABSENT, count, counted, duration, number, percent, shortened, tokens
from retort.report.recipes import INNER, recipe_text, toml
from retort.store.artifacts import Artifact
from retort.verification import ACCEPTED

MAX_CHARACTERS = 200
"""Of a value in a table: exemplars may be long, and the recipes stand below in full."""
HASH = 12
FIELDS = (
    "A table that has no namesake in the other run is held against the only one that is left there, if there is one "
    "of each; its id is then among the differences. A dash marks a table or field that a run does not have: an older "
    "release may not have known it."
)
LEARNED = ["target tokens", "best step", "dev loss", "dev accuracy"]
SPENT = (
    "Times are wall-clock times. Prompt tokens count once a chain, though chains of a prompt share their prefill. What "
    "an earlier run had finished stands here with what it cost then; tokens of chains that their pools had before are "
    "not counted."
)
EQUAL = "What is not listed is the same in all."


def recipes(sides: Sequence[Side]) -> Section:
    """Fields that differ, and the recipes in full."""
    parts = [elements(side.contents.recipe) for side in sides]
    parts = [parts[0], *(renamed(part, parts[0]) for part in parts[1:])]
    rows = list(_differing(parts))
    listings = [
        Listing(f"The recipe of {side.letter} with every default", recipe_text(side.contents.recipe)) for side in sides
    ]
    if not rows:
        return Section("recipe", "Recipe", (Remark("The recipes are equal."), *listings))
    found = table("Fields that differ", ["field", *(side.letter for side in sides)], [], rows)
    return Section("recipe", "Recipe", (found, Remark(f"{EQUAL} {FIELDS}"), *listings))


Elements = Mapping[str, Mapping[str, Any]]
"""Fields by dotted name below the elements of a recipe's lists; those of no element below the empty name."""


def elements(recipe: Mapping[str, Any]) -> Elements:
    """A recipe's fields, dotted as overrides name them.

    >>> elements({"name": "demo", "task": [{"id": "sums", "train": 9}]})
    {'': {'name': 'demo'}, 'task.sums': {'id': 'sums', 'train': 9}}
    """
    found: dict[str, dict[str, Any]] = {"": {}}
    for key, field in recipe.items():
        if isinstance(field, list) and field and all(isinstance(row, dict) and "id" in row for row in field):
            for row in field:
                found[f"{key}.{row['id']}"] = dict(_flat(row, ""))
        elif not (key in TABLES and field == []):
            found[""].update(_flat(field, key))
    return found


TABLES = ("task", "teacher", "corpus", "student")


def renamed(part: Elements, first: Elements) -> Elements:
    """Elements under the names of the first recipe, where each has one of a kind that the other has not."""
    names: dict[str, str] = {}
    for kind in TABLES:
        here, there = ([name for name in one if name.startswith(f"{kind}.")] for one in (part, first))
        left, gone = [name for name in here if name not in there], [name for name in there if name not in here]
        if len(left) == len(gone) == 1:
            names[left[0]] = gone[0]
    return {names.get(name, name): fields for name, fields in part.items()}


def _flat(field: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Values by dotted name; the fields of inner parts stand beside those of their element."""
    if isinstance(field, dict):
        for key, inner in field.items():
            yield from _flat(inner, path if key in INNER else f"{path}.{key}".lstrip("."))
    else:
        yield path, field


def _differing(parts: Sequence[Elements]) -> Iterator[list[str]]:
    for name in dict.fromkeys(name for part in parts for name in part):
        having = [part[name] for part in parts if name in part]
        if len(having) < len(parts):
            yield [name, *("there" if name in part else ABSENT for part in parts)]
        for key in dict.fromkeys(key for fields in having for key in fields):
            values = [_value(part.get(name, {}), key) for part in parts]
            if len({_value(fields, key) for fields in having}) > 1:
                yield [f"{name}.{key}".lstrip("."), *values]


def _value(fields: Mapping[str, Any], key: str) -> str:
    if key not in fields:
        return ABSENT
    return "not set" if fields[key] is None else shortened(toml(fields[key]), MAX_CHARACTERS)


def versions(sides: Sequence[Side]) -> Section:
    """Versions of stages, and of the libraries that decide their results, where they differ."""
    used = [_versions(side.contents) for side in sides]
    rows: list[list[str]] = []
    for stage, what in dict.fromkeys(key for found in used for key in found):
        # A stage that a run has not come to has no version to differ in.
        having = [found for found in used if any(of == stage for of, _ in found)]
        if len({found.get((stage, what)) for found in having}) > 1:
            rows.append([what, stage, *(found.get((stage, what), ABSENT) for found in used)])
    if not rows:
        told = "Every stage, and every library that decides results, has the same version in all runs that used it."
        return Section("versions", "Versions", (Remark(told),))
    words = ["version of", "in", *(side.letter for side in sides)]
    return Section("versions", "Versions", (table("Versions that differ", words, [], rows), Remark(EQUAL)))


def _versions(contents: Contents) -> dict[tuple[str, str], str]:
    """By stage and by what has the version; several where artifacts of several releases were found."""
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    for stage, made in contents.artifacts.items():
        for artifact in made.values():
            word = STAGES.get(stage, stage)
            found[word, "the stage"].add(str(artifact.manifest["version"]))
            for library, version in artifact.manifest["libraries"].items():
                found[word, library].add(version)
    return {key: ", ".join(sorted(values)) for key, values in found.items()}


def data(sides: Sequence[Side]) -> Section:
    """Problems and how many of them are shared, the teachers' chains, the corpora, and what identifies each."""
    blocks: list[Block] = [
        *_table("Problems", ["task", "split"], [*(side.letter for side in sides), "in all"], _problems(sides)),
        *_table("Teachers' chains", ["model", "plan", "run"], ["verdicts", "accepted"], _accepted(sides)),
        *_table("Corpora", ["corpus", "run"], ["chains in", "examples", "problems"], _corpora(sides)),
        *_table("Hashes", ["of", *(side.letter for side in sides)], [], _hashes(sides)),
    ]
    told = (
        "A problem is in all where its id, question and gold answer are. A hash is the start of an artifact's name, "
        "which is that of all that decides it: settings, inputs, code and libraries."
    )
    return Section("data", "Data", (*blocks, Remark(told)))


def _table(caption: str, words: Sequence[str], numbers: Sequence[str], rows: Iterable[Sequence[str]]) -> list[Table]:
    cells = list(rows)
    return [table(caption, words, numbers, cells)] if cells else []


def _problems(sides: Sequence[Side]) -> Iterator[list[str]]:
    kept = [side.contents.stage("problems") for side in sides]
    for task in dict.fromkeys(name for made in kept for name in made):
        found = [_by_split(made[task]) if task in made else {} for made in kept]
        for split in get_args(Split):
            sets = [problems.get(split, set()) for problems in found]
            if any(sets):
                yield [task, split, *(count(len(each)) for each in sets), count(len(set.intersection(*sets)))]


def _by_split(problems: Artifact) -> dict[str, set[tuple[str, str, str | None]]]:
    found: dict[str, set[tuple[str, str, str | None]]] = defaultdict(set)
    for problem in problems.records(Problem):
        found[problem.split].add((problem.id, problem.question, problem.answer))
    return found


def _accepted(sides: Sequence[Side]) -> Iterator[list[str]]:
    judged = [
        (sampling.model, sampling.wording, side.letter, sampling.verdicts.stats)
        for side in sides
        for sampling in side.contents.samplings
        if sampling.verdicts is not None and side.contents.role(sampling.model) == "teacher"
    ]
    for model, plan, letter, stats in sorted(judged, key=lambda row: row[:3]):
        accepted = sum(stats["reasons"].get(reason, 0) for reason in ACCEPTED)
        yield [model, plan, letter, count(stats["rows"]), counted(accepted, stats["rows"])]


def _corpora(sides: Sequence[Side]) -> Iterator[list[str]]:
    made = [(name, side.letter, kept.stats) for side in sides for name, kept in side.contents.stage("corpus").items()]
    for name, letter, stats in sorted(made, key=lambda row: row[:2]):
        selected = sum(rows for fate, rows in stats["fates"].items() if fate.endswith("/selected"))
        whole = sum(stats["fates"].values())
        yield [name, letter, count(whole), counted(selected, whole), count(stats["problems"])]


def _hashes(sides: Sequence[Side]) -> Iterator[list[str]]:
    for stage, word in (("problems", "problems of"), ("corpus", "corpus")):
        kept = [side.contents.stage(stage) for side in sides]
        for name in dict.fromkeys(name for made in kept for name in made):
            yield [f"{word} {name}", *(made[name].id[:HASH] if name in made else ABSENT for made in kept)]


def cost(sides: Sequence[Side]) -> Section:
    """Seconds by stage, tokens by role and checkpoint."""
    letters = [side.letter for side in sides]
    seconds = [stage_seconds(side.contents) for side in sides]
    by_stage = (
        [word, *(duration(sum(found[stage].values())) if stage in found else ABSENT for found in seconds)]
        for stage, word in STAGES.items()
        if any(stage in found for found in seconds)
    )
    numbers = ["chains sampled", "prompt tokens", "new tokens"]
    blocks = [
        *_table("Seconds by stage", ["stage"], letters, by_stage),
        *_table("Tokens sampled", ["from", "run"], numbers, _tokens(sides)),
        *_table(
            "Tokens learned",
            ["checkpoint", "run"],
            ["target tokens", "best step", "dev loss", "dev accuracy"],
            _learned(sides),
        ),
    ]
    return Section("cost", "Cost", (*blocks, Remark(SPENT)))


def _learned(sides: Sequence[Side]) -> Iterator[list[str]]:
    made = [
        (name, side.letter, kept.stats) for side in sides for name, kept in side.contents.stage("checkpoint").items()
    ]
    for name, letter, stats in sorted(made, key=lambda row: row[:2]):
        spent = (count(stats[key]) for key in ("target_tokens", "best_step"))
        accuracy = ABSENT if stats["best_dev_accuracy"] is None else percent(stats["best_dev_accuracy"])
        yield [name, letter, *spent, number(stats["best_dev_loss"]), accuracy]


def _tokens(sides: Sequence[Side]) -> Iterator[list[str]]:
    """What was sampled from models of each role."""
    for role, word in ROLE_WORDS.items():
        for side in sides:
            stats = list(_sampled(side.contents, role))
            if stats:
                chains, *spent = (
                    int(sum(of_model.get(key, 0) for of_model in stats))
                    for key in ("sampled", "prompt_tokens", "output_tokens")
                )
                yield [word, side.letter, count(chains), *(tokens(each, chains) for each in spent)]


def _sampled(contents: Contents, role: Role) -> Iterator[Stats]:
    """What sampling each model of a role took."""
    by_model: dict[str, list[Artifact]] = defaultdict(list)
    for sampling in contents.samplings:
        if sampling.sampled is not None and contents.role(sampling.model) == role:
            by_model[sampling.model].append(sampling.sampled)
    yield from map(sampling_stats, by_model.values())
