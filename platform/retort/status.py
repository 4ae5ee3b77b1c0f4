"""The command line of `jobs/status.py`: what runs on a store, what was done, what it cost, and what failed.

Yields the lines to print; `upkeep.main` runs it. All of it is read from the store: no driver is asked, nor Ray.
"""

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import datetime
from typing import Any

from retort.instances import LIVING, READERS, Instance, Stage, instances
from retort.logs import utc
from retort.report.cost import STAGES, maker, sampling_stats, union_s
from retort.report.formatting import ABSENT, count, duration
from retort.store import Store
from retort.store.artifacts import Artifact, open_artifact
from retort.store.inventory import table
from retort.upkeep import existing

LAST = 10
WORDS = {"checkpoint": "training", "corpus": "selection", "verdicts": "verification"}
"""Stages as a reader would put them, where the name is that of what they make."""
Costs = dict[str, dict[str, float]]
"""Of an instance: figures by model."""

_ABOUT = """Times are by the clocks of the drivers. A run that was killed has `died` as soon as that can be known: at
once on its own machine, elsewhere two minutes after its last sign of life (it is `silent` until then). Costs are those
of what a run has made and finished, not of what it found; chains that were sampled before a run died are in their pools
alone, and those of a sweep's trials on its report. Engines are up once they have started. Training is in seconds of
workers; of a run that was killed the last
five minutes of machines may be missing."""


def status_commands(parser: argparse.ArgumentParser, arguments: list[str] | None) -> Iterator[str]:
    """`jobs/status.py`."""
    parser.description = f"{parser.description}\n\n{_ABOUT}"
    parser.add_argument("store", metavar="STORE", help="path or s3:// address of the store")
    parser.add_argument("--last", metavar="N", type=int, default=LAST, help=f"runs that are told of (default {LAST})")
    parser.add_argument("--json", action="store_true", help="one JSON object, with more than the tables show")
    given = parser.parse_args(arguments)
    if given.last < 1:
        raise ValueError(f"--last {given.last}: expected at least 1")
    store = existing(given.store)
    found, number = instances(store, given.last)
    costs = costs_of(store, found)
    if given.json:
        told = [{**asdict(each), "cost": costs[each.id]} for each in found]
        yield json.dumps({"store": store.uri, "at": utc(time.time()), "journals": number, "runs": told}, indent=1)
        return
    yield from shown(store, found, number, costs)


def costs_of(store: Store, found: Sequence[Instance]) -> dict[str, Costs]:
    """What each instance spent on the artifacts that it made, by model, from their manifests."""
    made = {each.id: [stage for stage in each.stages if stage.is_kept and stage.is_made] for each in found}
    prefixes = list({stage.artifact for stages in made.values() for stage in stages})
    with ThreadPoolExecutor(READERS, "status") as pool:
        opened = dict(zip(prefixes, pool.map(lambda prefix: open_artifact(store, prefix), prefixes), strict=True))
    return {name: _costs(stages, opened) for name, stages in made.items()}


def _costs(stages: Sequence[Stage], opened: Mapping[str, Artifact | None]) -> Costs:
    groups: dict[tuple[str, str], list[Artifact]] = defaultdict(list)
    for stage in stages:
        if (artifact := opened[stage.artifact]) is not None:
            groups[stage.stage, maker(stage.stage, stage.of)].append(artifact)
    found: Costs = defaultdict(lambda: defaultdict(float))
    for (stage, name), artifacts in groups.items():
        if stage == "sampling":
            stats = sampling_stats(artifacts)
            for figure in ("sampled", "prompt_tokens", "output_tokens", "engine_s"):
                found[name][figure] += stats.get(figure, 0)
        for artifact in artifacts if stage == "checkpoint" else ():
            workers = artifact.stats.get("computed", {}).get("workers", 1)
            found[name]["training_worker_s"] += artifact.stats["train_seconds"] * workers
            found[name]["training_tokens"] += artifact.stats["example_tokens"]
        if stage in STAGES:
            found[name]["seconds"] += union_s(artifacts)
    return {model: dict(figures) for model, figures in found.items()}


def shown(store: Store, found: Sequence[Instance], number: int, costs: Mapping[str, Costs]) -> Iterator[str]:
    """All of it as text."""
    if not found:
        yield f"{store.uri}: nothing has run here, or nothing that kept a journal"
        return
    living = [each for each in found if each.state in LIVING]
    told = f"{len(living)} running" if living else "nothing runs now"
    yield f"{store.uri}: {told}; {len(found)} of {number} runs follow"
    for each in living:
        yield ""
        yield from _under_way(each)
    yield from ["", "what was done: artifacts made (and found)"]
    yield from _indented(_done(found))
    troubled = [each for each in found if each.state in ("failed", "interrupted", "died") or each.warnings]
    if troubled:
        yield from ["", "what went wrong"]
        kept = {stage.artifact for each in found for stage in each.stages if stage.is_kept}
        yield from _indented(line for each in troubled for line in _wrong(each, kept))
    spent = list(_spent(found, costs))
    if spent:
        names = ["run", "began (UTC)", "model", "chains", "prompt tokens", "new tokens", "engines up", "training"]
        yield from ["", "what it cost"]
        yield from _indented(table(names, spent))
    if machines := list(_machines(found)):
        yield from ["", "machines that were there while it ran, used by it or not"]
        yield from _indented(table(["run", "began (UTC)", "machines", "time of all"], machines))


def _under_way(each: Instance) -> Iterator[str]:
    """A run that lives: where, since when, and how far it has come."""
    ray = f", submitted as {each.submission}" if each.submission else ""
    silent = ", silent: it may have died" if each.state == "silent" else ""
    yield f"{each.run} ({each.job}) on {each.hostname}, pid {each.pid}{ray}, since {_minute(each.began)}{silent}"
    yield from _indented(_progress(each))


def _progress(each: Instance) -> Iterator[str]:
    """Stages under way of a run, and what is known of how far they are."""
    rows = [[_word(stage), stage.of, f"since {stage.since[11:19]}", _far(stage)] for stage in _open(each)]
    yield from table(["stage", "of", "", ""], rows) if rows else ()
    if each.sampled.get("sampled"):
        yield f"{_sampled(each)} so far, by signs of life"
    if each.said:
        yield f"said last: {each.said}"


def _done(found: Sequence[Instance]) -> Iterator[str]:
    """A row for each run: its state, and how many artifacts it has of each stage."""
    stages = list(dict.fromkeys(stage.stage for each in found for stage in each.stages if stage.is_kept))
    order = {name: number for number, name in enumerate(_ORDER)}
    stages.sort(key=lambda name: order.get(name, len(order)))
    rows = [
        [
            each.run,
            each.job,
            _minute(each.began),
            duration(_seconds(each)),
            each.state,
            *(_kept(each, name) for name in stages),
        ]
        for each in found
    ]
    names = ["run", "job", "began (UTC)", "took", "state", *(WORDS.get(name, name) for name in stages)]
    yield from table(names, rows)


_ORDER = ("problems", "sampling", "verdicts", "overlap", "corpus", "checkpoint", "evaluation", "comparison", "trial")


def _kept(each: Instance, stage: str) -> str:
    kept = [one for one in each.stages if one.stage == stage and one.is_kept]
    made = sum(one.is_made for one in kept)
    found = f"({len(kept) - made})" if made < len(kept) else ""
    return f"{made or ''} {found}".strip() or ABSENT


def _wrong(each: Instance, kept: Collection[str]) -> Iterator[str]:
    """Why a run has not ended well, and what it warned of; `kept` has what some run has ended."""
    where = f"{_minute(each.began)}  {each.run} ({each.job})"
    if each.state == "failed":
        yield f"{where} failed at {each.last[11:19]}: {each.reason}"
    elif each.state in ("interrupted", "died"):
        when = f"at {each.last[11:19]}" if each.state == "interrupted" else f"after {each.last[11:19]}"
        doing = ", ".join(f"{_word(stage)} {stage.of}".rstrip() + _far(stage, ", ") for stage in _open(each))
        sampled = f"; {_sampled(each)}" if each.sampled.get("sampled") else ""
        told = f"{each.state} {when}{f' in {doing}' if doing else ''}{sampled}"
        since = all(stage.artifact in kept for stage in _open(each)) and bool(_open(each))
        yield f"{where} {told}; {'done since' if since else 'the same command goes on from there'}"
    if len(each.warnings) > 0:
        number = f"{len(each.warnings)} warnings, the last" if len(each.warnings) > 1 else "a warning"
        yield f"{where}: {number}: {each.warnings[-1].get('text', '')}"


def _spent(found: Sequence[Instance], costs: Mapping[str, Costs]) -> Iterator[list[str]]:
    for each in found:
        for model, figures in costs[each.id].items():
            numbers = [figures.get(name, 0) for name in ("sampled", "prompt_tokens", "output_tokens")]
            times = [figures.get(name, 0) for name in ("engine_s", "training_worker_s")]
            if any(numbers) or any(times):
                told = [duration(value) if value else ABSENT for value in times]
                counts = [count(int(value)) if value else ABSENT for value in numbers]
                yield [each.run, _minute(each.began), model, *counts, *told]


def _machines(found: Sequence[Instance]) -> Iterator[list[str]]:
    for each in found:
        for kind, seconds in each.machine_s.items():
            yield [each.run, _minute(each.began), kind, duration(seconds)]


def _open(each: Instance) -> list[Stage]:
    return [stage for stage in each.stages if not stage.is_kept]


def _word(stage: Stage) -> str:
    return WORDS.get(stage.stage, stage.stage)


def _far(stage: Stage, before: str = "") -> str:
    return "" if stage.step is None else f"{before}step {stage.step} saved"


def _sampled(each: Instance) -> str:
    counts = each.sampled
    tokens = counts.get("prompt_tokens", 0) + counts.get("output_tokens", 0)
    return f"{count(counts['sampled'])} chains sampled, {count(tokens)} tokens"


def _seconds(each: Instance) -> float:
    """From the first event to the last, or to now."""
    began, last = (datetime.fromisoformat(text).timestamp() for text in (each.began, each.last))
    return max(0.0, (time.time() if each.state == "running" else last) - began)


def _minute(text: str) -> str:
    return text[:16].replace("T", " ")


def _indented(lines: Any) -> Iterator[str]:
    return (f"  {line}".rstrip() for line in lines)
