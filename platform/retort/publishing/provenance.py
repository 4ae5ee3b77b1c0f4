"""What the cards of a corpus and of a student share: where it comes from, who made it, under which licences.

In: a run's contents. Out: blocks of Markdown. Folders of the machine are cut to their last part.
"""

import importlib.metadata
from collections.abc import Iterable, Iterator, Sequence

from retort.engines import ENGINES
from retort.publishing.cards import code, fenced, placeless, settings, table
from retort.report.acceptance import by_split
from retort.report.contents import Contents
from retort.report.formatting import count, counted, moment
from retort.report.lineage import ASSUMED, SEEDING_WORDS
from retort.report.reasons import Counts
from retort.report.recipes import recipe_text, toml, value
from retort.store.artifacts import Artifact
from retort.tasks import TASKS

TAGS = ("retort", "distillation", "reasoning", "chain-of-thought")
UNSTATED = "not stated"
Made = tuple[str, str, Artifact]
"""An artifact under its stage and name."""


def kinds(contents: Contents, tasks: Sequence[str]) -> dict[str, str]:
    """The kinds of some tasks."""
    return {task["id"]: task["kind"] for task in contents.recipe["task"] if task["id"] in tasks}


def language(contents: Contents, tasks: Sequence[str]) -> list[str] | None:
    """The built-in tasks are in English; of other files nothing is known."""
    return ["en"] if "jsonl" not in kinds(contents, tasks).values() else None


def licences(contents: Contents, corpus_id: str, whole: tuple[str, str | None], base: str | None = None) -> list[str]:
    """The licence of the whole, under its name, as it was given, and those of what it is made of, as far as known."""
    corpus = contents.corpora[corpus_id]
    rows = [[whole[0], UNSTATED if whole[1] is None else code(whole[1])]]
    if base is not None:
        rows.append([f"base model {code(placeless(base))}", _of_model(base)])
    for teacher in corpus["teachers"]:
        model = contents.teachers[teacher].get("settings", {}).get("model")
        named = f"teacher {code(teacher)}" + (f", {code(placeless(model))}" if model else "")
        rows.append([f"what {named} wrote", _of_model(model or "")])
    for task, kind in kinds(contents, corpus["tasks"]).items():
        rows.append([f"data of task {code(task)}", TASKS[kind].LICENCE])
    check = (
        "What is not stated or unknown here is not free: before you pass this on, check the licence of each data set "
        "and model, and the terms of the service that a teacher was asked through, some of which limit training other "
        "models on what it writes."
    )
    return ["## Licence", table(["of", "licence"], rows), check]


def _of_model(model: str) -> str:
    return "Apache-2.0, as retort, which it ships with" if model.startswith("shipped:") else UNSTATED


def teaching(contents: Contents, corpus_id: str) -> Iterator[str]:
    """How a corpus was made: its teachers' decoding, the selection, and what became of every chain."""
    corpus = contents.corpora[corpus_id]
    for teacher in corpus["teachers"]:
        engine = contents.teachers[teacher]["engine"]
        yield f"Teacher {code(teacher)}; seeding {SEEDING_WORDS[ENGINES[engine].SEEDING]}."
        yield settings(placeless(value(contents.recipe, f"teacher.{teacher}")))
        for plan, verdicts in judged(contents, corpus_id).items():
            if plan.startswith(f"{teacher}/"):
                thought = plan.removeprefix(f"{teacher}/")
                yield f"Verdicts on its {count(verdicts.stats['rows'])} chains under {code(thought)}:"
                yield _counts("reason", verdicts.stats["reasons"])
    if not corpus["teachers"]:
        yield "The gold annotations of the tasks, without a teacher."
    yield "Which chains are taken:"
    yield settings(corpus["selection"])
    for split, fates in by_split(contents.stage("corpus")[corpus_id].stats["fates"]).items():
        yield f"What became of the {count(sum(fates.values()))} that selection saw of split {code(split)}:"
        yield _counts("fate", fates)
    if (overlap := contents.stage("overlap").get(corpus_id)) is not None:
        stats = overlap.stats
        yield (
            f"Of the {count(stats['problems'])} training and dev questions that there were to select from, "
            f"{count(stats['equal'])} are equal to a test question of the run, and {count(stats['half'])} share at "
            f"least half of their word {overlap.manifest['config']['words']}-grams with test questions."
        )


def judged(contents: Contents, corpus_id: str) -> dict[str, Artifact]:
    """The verdicts that a corpus was selected from, by plan; a run may have judged other plans of its teachers too."""
    ids = contents.stage("corpus")[corpus_id].manifest["inputs"]["verdicts"]
    return {plan: made for plan, made in contents.stage("verdicts").items() if made.id in ids}


def _counts(name: str, counts: Counts) -> str:
    whole = sum(counts.values())
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return table([name, "chains"], ([code(key), counted(number, whole)] for key, number in ordered))


def behind_corpus(contents: Contents, corpus_id: str) -> list[Made]:
    """The artifacts that a corpus is made of, and itself."""
    asked = judged(contents, corpus_id)
    wanted = {
        "problems": contents.corpora[corpus_id]["tasks"],
        "sampling": asked,
        "verdicts": asked,
        "overlap": [corpus_id],
        "corpus": [corpus_id],
    }
    return [
        (stage, name, contents.stage(stage)[name])
        for stage, names in wanted.items()
        for name in names
        if name in contents.stage(stage)
    ]


def lineage(contents: Contents, made: Iterable[Made]) -> Iterator[str]:
    """Run, artifacts, versions, assumed fields and recipe."""
    made = list(made)
    version = importlib.metadata.version("retort")
    yield "## Lineage"
    yield (
        f"Made by recipe {code(contents.recipe['name'])}, run {code(contents.run.id)} of "
        f"{moment(contents.run.manifest['created_at_s'])}; published with retort {version}. An artifact's name is the "
        f"hash of all that decides it: settings, inputs, code and libraries."
    )
    rows = (
        [stage, code(name), code(artifact.id), moment(artifact.manifest["created_at_s"]), _versions(artifact)]
        for stage, name, artifact in made
    )
    yield table(["stage", "of", "artifact", "made", "versions"], rows)
    if assumed := contents.recipe["assumed"]:
        yield ASSUMED
        yield table(
            ["field", "value"],
            ([code(name), code(toml(placeless(value(contents.recipe, name))))] for name in assumed),
        )
    yield "The recipe with every default; folders of the machine that ran it are left out:"
    yield fenced(recipe_text(placeless(contents.recipe)), "toml")


def _versions(artifact: Artifact) -> str:
    libraries = artifact.manifest["libraries"].items()
    return ", ".join([f"stage {artifact.manifest['version']}", *(f"{name} {version}" for name, version in libraries)])
