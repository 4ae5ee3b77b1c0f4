"""What a store holds that no kept run needs: found, shown, and removed.

    artifacts/run/<id>/manifest.json        a kept run: its inputs name every artifact of it
    artifacts/verdicts/<id>/manifest.json   named by no kept run: goes, files and all
    artifacts/verdicts/<id>/<attempt>/…     of a kept artifact, but not what its manifest names: goes
    sessions/<id>/<member>.json             of a process that has died: goes
    .probe-<id>                             of a process that died while it opened the store: goes

Pools are paid for: nothing of one goes unless it is named, and then only rows that no plan reads (`store/replaced.py`)
and segments that were set aside. A run has no index before it ends, so that nothing goes while a session is alive; nor
does an object that is younger than a limit by the clock of the store, for the run that starts a moment later.
"""

import contextlib
import itertools
from collections import defaultdict
from collections.abc import Collection, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa

from retort.store import Object, Store
from retort.store.artifacts import Artifact, open_artifact
from retort.store.claims import LEASE_S, PROBE, QUIET_LEASES, REMOVING, SESSIONS, Session, told
from retort.store.compaction import put_instead, upgraded
from retort.store.imports import alone_in
from retort.store.inventory import partitions
from retort.store.pool import Pool
from retort.store.replaced import never_read, readable, repeated

ROOT = "artifacts/"
DAY_S = 86_400.0


@dataclass(frozen=True)
class RunEntry:
    """A run as its index tells of it. `lost` counts artifacts that the index names and the store no longer has."""

    id: str
    name: str
    created_at_s: float
    artifacts: int
    lost: int
    size: int


@dataclass(frozen=True)
class Garbage:
    """Objects that can go together, and why. The manifest, which makes an artifact whole, is the first of them."""

    prefix: str
    why: str
    objects: tuple[Object, ...]

    @property
    def size(self) -> int:
        return sum(found.size for found in self.objects)


class Dropped(NamedTuple):
    """Rows that went, and the bytes of the segments that had them, before and after."""

    rows: int
    before: int
    after: int


@contextlib.contextmanager
def alone_on(store: Store, lease_s: float = LEASE_S) -> Generator[float]:
    """Make sure that no other session is alive, and be one meanwhile; the time, by the clock of the store.

    Raises:
        ValueError: there is one, or one died elsewhere a moment ago.
    """
    session = Session(store, lease_s)
    member = session.join(lambda: {REMOVING: 1})
    try:
        others, now_s = session.others()
        if others:
            raise ValueError(
                f"{store.uri} is in use by {told(others)}: a run may need what no index names yet; "
                f"expected no sign of life for {QUIET_LEASES * lease_s:.0f} s; run gc when that has ended"
            )
        yield now_s
    finally:
        member.close()


def leftovers(store: Store, before_s: float) -> list[Garbage]:
    """What processes that died have left outside artifacts and pools, last written before a time."""
    found = [(each, "of a session that died") for each in store.objects(SESSIONS)]
    found += [(each, "of a process that died") for each in store.objects(PROBE)]
    return [Garbage(each.key, why, (each,)) for each, why in found if each.modified_at_s < before_s]


def runs(store: Store) -> list[RunEntry]:
    """Every run of a store that reached a stage's end, oldest first."""
    listed = _artifacts(store)
    entries: list[RunEntry] = []
    for prefix in listed:
        run = open_artifact(store, prefix) if prefix.startswith(f"{ROOT}run/") else None
        if run is not None:
            named = _needed(run)
            there = [name for name in named if name in listed]
            size = sum(found.size for name in there for found in listed[name])
            name = str(run.manifest["config"].get("name", ""))
            made = float(run.manifest["created_at_s"])
            entries.append(RunEntry(run.id, name, made, len(named), len(named) - len(there), size))
    return sorted(entries, key=lambda entry: entry.created_at_s)


def garbage(store: Store, keep: Sequence[str], older_than_days: float) -> list[Garbage]:
    """What no run of `keep` needs, in the order in which it is to go: indices of runs before what they name.

    Raises:
        ValueError: no such run.
    """
    kept = [find_run(store, name) for name in keep]
    needed = {prefix for run in kept for prefix in _needed(run)}
    listed = _artifacts(store)
    needed |= _reports(store, listed, {run.id for run in kept})
    newest = max((found.modified_at_s for objects in listed.values() for found in objects), default=0.0)
    limit = newest - older_than_days * DAY_S
    found: list[Garbage] = []
    for prefix in sorted(listed, key=lambda prefix: (not prefix.startswith(f"{ROOT}run/"), prefix)):
        if prefix in needed:
            found += _lost_attempts(store, prefix, listed[prefix], limit)
        elif _is_older(listed[prefix], limit):
            manifest = f"{prefix}manifest.json"
            is_whole = any(each.key == manifest for each in listed[prefix])
            why = "of no kept run" if is_whole else "never finished"
            found.append(
                Garbage(prefix, why, tuple(sorted(listed[prefix], key=lambda each: (each.key != manifest, each.key))))
            )
    return found


def remove(store: Store, going: Garbage) -> None:
    """Delete objects in their order, so that a crash leaves no artifact that looks whole."""
    for found in going.objects:
        store.delete(found.key)


def set_aside(pool: Pool, older_than_days: float) -> list[Garbage]:
    """The damaged segments that were taken out of a pool."""
    objects = pool.store.objects(f"{pool.prefix}damaged/")
    newest = max((found.modified_at_s for found in objects), default=0.0)
    limit = newest - older_than_days * DAY_S
    return [Garbage(found.key, "set aside", (found,)) for found in objects if found.modified_at_s <= limit]


def drop_never_read(pool: Pool, dry_run: bool) -> Dropped:
    """Write segments anew without the rows that no plan reads, and then delete the old ones.

    Rows of equal content stay, whoever of them is read: two who clean up at once could each keep another one.

    Raises:
        ValueError: a damaged segment; a pool that is being sampled.
        OSError: a segment that does not read back as it was written; the old one stays.
    """
    done = Dropped(0, 0, 0)
    for partition, segments in partitions(pool, "cleaning"):
        going: dict[str, set[int]] = defaultdict(set)
        for candidates in repeated(pool, segments).values():
            hidden = set(never_read(candidates))
            read = {candidate.content for candidate in candidates if candidate not in hidden}
            for candidate in hidden:
                if candidate.content not in read:
                    going[candidate.segment].add(candidate.row)
        with alone_in(pool, [partition]) if going and not dry_run else contextlib.nullcontext():
            for segment in segments:
                if segment.key in going:
                    size = 0 if dry_run else _write_without(pool, partition, segment, going[segment.key])
                    done = Dropped(done.rows + len(going[segment.key]), done.before + segment.size, done.after + size)
    return done


def _write_without(pool: Pool, partition: str, segment: Object, going: Collection[int]) -> int:
    """Put a segment without some rows instead of one; its size."""
    rows = readable(pool, segment)
    left = pa.array([row for row in range(len(rows)) if row not in going], pa.int64())
    return put_instead(pool, partition, {segment: rows}, upgraded(rows).take(left)).size


def find_run(store: Store, name: str) -> Artifact:
    """The index of a run: by its id, its prefix or address, or those of its report.

    Raises:
        ValueError: there is none.
    """
    run_id = name.partition("?")[0].rstrip("/").rsplit("/", 1)[-1]  # an address may say how to reach its store
    report = open_artifact(store, f"{ROOT}report/{run_id}/")
    if report is not None:
        run_id = str(report.manifest["inputs"]["run"])
    run = open_artifact(store, f"{ROOT}run/{run_id}/") if run_id else None
    if run is None:
        raise ValueError(f"no run {name!r} in {store.uri}; expected an id that `jobs/store.py runs` lists")
    return run


def _needed(run: Artifact) -> set[str]:
    """Prefixes of a run's index and of every artifact that it names; of a sweep's, those of its trials' runs too."""
    stages: dict[str, dict[str, str]] = run.manifest["inputs"]
    trials = (open_artifact(run.store, prefix) for prefix in stages.get("trial", {}).values())
    of_trials = (_needed(trial) for trial in trials if trial is not None)
    return {run.prefix, *(prefix for named in stages.values() for prefix in named.values())}.union(*of_trials)


def _reports(store: Store, listed: Collection[str], run_ids: set[str]) -> set[str]:
    """Prefixes of the reports of runs, and of the comparisons of which they are the first."""
    found: set[str] = set()
    for prefix in listed:
        made = open_artifact(store, prefix) if prefix.startswith((f"{ROOT}report/", f"{ROOT}versus/")) else None
        if made is not None:
            inputs = made.manifest["inputs"]
            if (inputs["run"] if "run" in inputs else inputs["runs"][0]) in run_ids:
                found.add(prefix)
    return found


def _artifacts(store: Store) -> dict[str, list[Object]]:
    """Objects by the prefix of their artifact, from one listing."""
    objects = [found for found in store.objects(ROOT) if found.key.count("/") > 2]
    grouped = itertools.groupby(objects, key=lambda found: "/".join(found.key.split("/")[:3]) + "/")
    return {prefix: list(members) for prefix, members in grouped}


def _lost_attempts(store: Store, prefix: str, objects: Sequence[Object], limit: float) -> Iterator[Garbage]:
    """Attempts at a kept artifact that its manifest does not name."""
    kept = open_artifact(store, prefix)
    ours = {_attempt(file["key"]) for file in kept.manifest["files"]} if kept is not None else set[str]()
    others = [found for found in objects if found.key.count("/") > 3]
    for attempt, members in itertools.groupby(others, key=lambda found: _attempt(found.key)):
        going = tuple(members)
        if kept is not None and attempt not in ours and _is_older(going, limit):
            yield Garbage(attempt, "an attempt that was not the first to end", going)


def _attempt(key: str) -> str:
    """The prefix of the attempt that wrote an object."""
    return "/".join(key.split("/")[:4]) + "/"


def _is_older(objects: Collection[Object], limit: float) -> bool:
    return all(found.modified_at_s <= limit for found in objects)
