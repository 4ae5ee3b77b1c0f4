"""What the journals of a store tell of the runs of jobs: which live, what each has made, and how it ended.

A run of a job is an instance: the same command run again is another one. Whether one without an end lives is told by
its process, where that is on this very machine, and else by its signs of life, whose age goes by the store's clock.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Literal

from retort.journal import FORMAT, ROOT, Event
from retort.store import Object, Store
from retort.store.claims import LEASE_S, QUIET_LEASES, clock_s, has_ended, host, signs_of_life

READERS = 16
"""Objects that are read at a time."""
State = Literal["running", "silent", "died", "failed", "interrupted", "ended"]
ENDS: dict[str, State] = {"ended": "ended", "failed": "failed", "interrupted": "interrupted"}
LIVING = ("running", "silent")
UNCOUNTED = ("run", "report", "sweep")
"""Stages whose artifacts no run keeps: they tell of the others."""
Sign = tuple[Object, dict[str, Any]]


@dataclass(frozen=True)
class Stage:
    """A stage of an instance: one artifact, under way or kept, and whether it was made there or found."""

    stage: str
    of: str
    artifact: str
    since: str
    is_kept: bool
    is_made: bool
    step: int | None = None
    """Of a training under way: that of its last saved state."""


@dataclass(frozen=True)
class Instance:
    """A run of a job. Times are by the clock of its driver; `silent` has given no sign of life for a lease."""

    id: str
    run: str
    job: str
    hostname: str
    pid: int
    submission: str
    ray_job: str
    state: State
    began: str
    last: str
    """The time of the last event."""
    stages: tuple[Stage, ...]
    reason: str
    """Why it failed; empty where it did not."""
    said: str
    """The last line of its log that it wrote down."""
    warnings: tuple[Event, ...]
    machine_s: dict[str, float]
    """Seconds that machines of its cluster were there while it ran, by type and what each offers, used by it or not."""
    sampled: dict[str, int] = field(default_factory=dict[str, int])
    """Counts of its actors that sample now, or were when it died."""


def instances(store: Store, last: int) -> tuple[list[Instance], int]:
    """The `last` instances of a store and older ones that live, newest first; and how many there are."""
    keys: dict[str, list[str]] = {}
    for key in store.keys(ROOT):
        keys.setdefault(key.split("/")[1], []).append(key)
    signs = signs_of_life(store)
    pids = {str(sign["pid"]) for _, sign in signs}
    names = sorted(keys, reverse=True)
    chosen = [name for number, name in enumerate(names) if number < last or name.split("-")[1] in pids]
    found = read(store, [key for name in chosen for key in keys[name]])
    now_s = cache(lambda: clock_s(store))
    made: list[Instance] = []
    for name in chosen:
        parts = [found[key] for key in keys[name] if key in found]
        if parts:
            made.append(_instance(store, name, parts, signs, now_s))
    return [each for each in made if each.state in LIVING or each.id in names[:last]], len(names)


def read(store: Store, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Objects of journals by their keys, in order; what is of another format, or no journal, is passed over."""

    def opened(key: str) -> tuple[str, Any]:
        try:
            return key, json.loads(store.get(key))
        except (FileNotFoundError, ValueError):
            return key, None

    with ThreadPoolExecutor(READERS, "journal") as pool:
        found = dict(pool.map(opened, keys))
    return {key: part for key, part in found.items() if isinstance(part, dict) and part.get("format") == FORMAT}


def _instance(
    store: Store, name: str, parts: Sequence[dict[str, Any]], signs: Sequence[Sign], now_s: Callable[[], float]
) -> Instance:
    """An instance from its objects."""
    head = parts[-1]
    events: list[Event] = [event for part in parts for event in part["events"]]
    ends = [event for event in events if event["event"] in ENDS]
    own = [sign for sign in signs if _process(sign[1]) == _process(head)]
    state = ENDS[ends[-1]["event"]] if ends else _state(head, own, now_s)
    return Instance(
        id=name,
        **{key: head[key] for key in ("run", "job", "hostname", "pid", "submission", "ray_job", "machine_s")},
        state=state,
        began=events[0]["driver_time"],
        last=events[-1]["driver_time"],
        stages=tuple(_with_step(store, stage) for stage in _stages(events)),
        reason=next((event.get("text", "") for event in ends if event["event"] == "failed"), ""),
        said=next((event.get("text", "") for event in reversed(events) if event["event"] == "said"), ""),
        warnings=tuple(event for event in events if event["event"] == "warning"),
        sampled={} if ends else _sampled(own, signs),
    )


def _process(told: dict[str, Any]) -> tuple[Any, ...]:
    return told["host"], told["pid"], told["started"]


def _state(head: dict[str, Any], own: Sequence[Sign], now_s: Callable[[], float]) -> State:
    """Whether a driver lives that has written no end."""
    if head["host"] == host():
        return "died" if has_ended(head) else "running"
    age_s = now_s() - max(each.modified_at_s for each, _ in own) if own else float("inf")
    return "running" if age_s < LEASE_S else "silent" if age_s < QUIET_LEASES * LEASE_S else "died"


def _stages(events: Sequence[Event]) -> Iterator[Stage]:
    """What was kept, in order, and what was begun and not kept."""
    begun = {event["artifact"]: event for event in events if event["event"] == "stage started"}
    attempts = {event["attempt"] for event in events if event["event"] == "stage started"}
    kept = {event["artifact"] for event in events if event["event"] == "kept"}
    for event in events:
        stage, of, artifact = (event.get(key, "") for key in ("stage", "of", "artifact"))
        if event["event"] == "kept":
            since = begun.get(artifact, event)["driver_time"]
            is_made = event.get("attempt", "") in attempts
            yield Stage(stage, of, artifact, since, is_kept=True, is_made=is_made)
        elif event["event"] == "stage started" and artifact not in kept and stage not in UNCOUNTED:
            yield Stage(stage, of, artifact, event["driver_time"], is_kept=False, is_made=True)


def _with_step(store: Store, stage: Stage) -> Stage:
    """A training that was not kept with the step that it has come to: its last state bears it in its name."""
    if stage.is_kept or stage.stage != "checkpoint":
        return stage
    steps = [key.rsplit("/", 1)[1].removesuffix(".pt") for key in store.keys(f"{stage.artifact}state/")]
    return replace(stage, step=max((int(step) for step in steps if step.isdigit()), default=None))


def _sampled(own: Sequence[Sign], signs: Sequence[Sign]) -> dict[str, int]:
    """What the sessions of a driver have sampled so far, by the signs of life of their members."""
    sessions = {each.key.split("/")[1] for each, _ in own}
    counts: Counter[str] = Counter()
    for each, sign in signs:
        if each.key.split("/")[1] in sessions:
            counts.update(sign["progress"])
    return dict(counts)
