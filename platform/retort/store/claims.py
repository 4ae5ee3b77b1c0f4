"""Claims: which sampling session has which partition of a pool, so that no two pay for the same chains.

    sessions/<session>/<member>.json            a process of a session, with a count of its signs of life
    pools/<id>/claims/<partition>/<generation>  who holds a partition: the highest generation does
    sweeps/<name>/claims/trials/<generation>    the same of the trials of a sweep

A session is a driver and its actors; each is a member and gives a sign of life three times a lease. A claim is written
once, so that of two claimers at once one wins. A partition is taken from a session that is dead: every member of it has
ended on this very machine, or has given no sign of life for a lease. No clock is read but the monotonic one of this
process: those of other machines may be wrong, and any may step.

A lease is a promise and not a lock: a process that was stopped for longer, and wakes up, goes on until it asks `holds`.
"""

import contextlib
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import psutil

from retort.store import Object, Store

logger = logging.getLogger(__name__)

FORMAT = 1
LEASE_S = 30.0
BEATS = 3
"""Signs of life in a lease: it takes as many lost ones to be taken for dead."""
QUIET_LEASES = 4
"""Silence, in leases, of a process that is not known to have ended: signs of life are held up for two minutes at most
where the store was away (`connection.PATIENCE_S`)."""
SESSIONS = "sessions/"
PROBE = ".probe-"
"""Begin of the names of objects that try out a store, or ask it what time it is."""
REMOVING = "removing"
"""What gc says of itself in its signs of life."""

Progress = Callable[[], dict[str, int]]


class Claimed(Protocol):
    """What has partitions to claim: a pool, or the trials of a sweep."""

    @property
    def prefix(self) -> str:
        """Below it lie the claims."""
        ...


class Claim(NamedTuple):
    """The highest generation of a partition. `session` is None where it was released, "" while it changes hands."""

    generation: int
    session: str | None


class Sight(NamedTuple):
    """A sign of life when last looked at (`at_s`, monotonic), and for how long it had been the same by then."""

    beat: int
    at_s: float
    silent_s: float


class Member:
    """A process of a session: alive to others until it is closed or ends."""

    def __init__(self, store: Store, session_id: str, progress: Progress | None, beat_s: float) -> None:
        self.id = uuid.uuid4().hex
        self._store, self._progress, self._beat_s = store, progress, beat_s
        self._key = f"{SESSIONS}{session_id}/{self.id}.json"
        self._sign: dict[str, Any] = {
            "format": FORMAT,
            **this_process(),
            "beat": 0,
        }
        self._is_over = threading.Event()
        self._beat()
        self._thread = threading.Thread(target=self._run, name="signs-of-life", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Leave the session."""
        self._is_over.set()
        self._thread.join()
        self._store.delete(self._key)

    def abandon(self) -> None:
        """Give no more signs of life and leave the last: claims pass on once the other members are gone as well."""
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._is_over.wait(self._beat_s):
            try:
                self._beat()
            except OSError as error:
                logger.warning("a sign of life did not reach the store; the next may: %s", error)

    def _beat(self) -> None:
        self._sign["beat"] += 1
        progress = {} if self._progress is None else self._progress()
        self._store.replace(self._key, json.dumps({**self._sign, "progress": progress}).encode())


class Session:
    """Those who sample together. Picklable: an actor joins the session that its driver made.

    All sessions on a pool must have the same lease: it says how often to give signs of life, and how long to wait.
    """

    def __init__(self, store: Store, lease_s: float = LEASE_S, session_id: str | None = None) -> None:
        self.store, self.lease_s, self.id = store, lease_s, session_id or uuid.uuid4().hex
        self._sights: dict[tuple[str, str], Sight] = {}
        self._claims: dict[str, str | None] = {}
        """What highest generations say, by key: read once, since each is written once."""

    def __reduce__(self) -> tuple[type["Session"], tuple[Store, float, str]]:
        # Without what was seen: it is told in this process's time.
        return Session, (self.store, self.lease_s, self.id)

    def join(self, progress: Progress | None) -> Member:
        """Make this process a member; `progress` is asked at each sign of life, for `members` to show."""
        return Member(self.store, self.id, progress, self.lease_s / BEATS)

    def members(self) -> list[dict[str, Any]]:
        """The last sign of life of each member: `host`, `hostname`, `pid`, `started`, `beat`, `progress`."""
        return list(self._members(self.id).values())

    def others(self) -> tuple[list[dict[str, Any]], float]:
        """Signs of life of the processes of other sessions that may be alive; the time, by the clock of the store.

        For a member: who of two that look has joined first is seen by the other.
        """
        own, found = f"{SESSIONS}{self.id}/", self.store.objects(SESSIONS)
        # Both times are of the store, ours of a moment ago: the clock of this machine may be wrong.
        now_s = max((each.modified_at_s for each in found if each.key.startswith(own)), default=0.0)
        signs: list[dict[str, Any]] = []
        for each in found:
            if not each.key.startswith(own) and each.modified_at_s > now_s - QUIET_LEASES * self.lease_s:
                with contextlib.suppress(FileNotFoundError):  # it has left since
                    signs.append(json.loads(self.store.get(each.key)))
        return [sign for sign in signs if not has_ended(sign)], now_s

    def claim(self, pool: Claimed, partitions: Iterable[str]) -> set[str]:
        """Those of some partitions that are this session's now. Waits for nobody: ask again for the others.

        Whoever asks again once a lease or more often learns of a death elsewhere within two leases.
        """
        wanted = set(partitions)
        standing = self._standing(pool, wanted)
        holders = {claim.session for claim in standing.values() if claim.session} - {self.id}
        dead = {session for session in holders if self._is_dead(session)}
        ours = {name: claim.generation for name, claim in standing.items() if claim.session == self.id}
        for name, claim in standing.items():
            is_free = claim.session is None or claim.session in dead
            if is_free and self._write(pool, name, claim.generation + 1, self.id):
                ours[name] = claim.generation + 1
        # Whoever read an old listing may have written a generation that is not the highest: a new listing decides.
        generations = self._generations(pool, wanted)
        held = {name for name, generation in ours.items() if generations[name][-1] == generation}
        for name in held:
            for generation in generations[name][1:-1]:
                self.store.delete(_key(pool, name, generation))
        for session in dead & {standing[name].session for name in held}:
            self._bury(session)
        return held

    def release(self, pool: Claimed, partitions: Iterable[str]) -> None:
        """Give up those of some partitions that are this session's."""
        for partition, claim in self._standing(pool, set(partitions)).items():
            if claim.session == self.id and self._write(pool, partition, claim.generation + 1, None):
                self.store.delete(_key(pool, partition, claim.generation))

    def holds(self, pool: Claimed, partition: str) -> bool:
        """Whether a partition is this session's; after a long stop it may be another's. A listing, once it is known."""
        return self._standing(pool, {partition})[partition].session == self.id

    def holders(self, pool: Claimed, partitions: Iterable[str]) -> str:
        """Who else holds some partitions, in words."""
        sessions = {claim.session for claim in self._standing(pool, set(partitions)).values() if claim.session}
        words: list[str] = []
        for session in sorted(sessions - {self.id}):
            found = [f"pid {member['pid']} on {member['hostname']}" for member in self._members(session).values()]
            words += sorted(found) or [f"session {session}"]
        return ", ".join(words) or "nobody"

    def _standing(self, pool: Claimed, partitions: set[str]) -> dict[str, Claim]:
        """The claim of each partition; of generation 0 where there never was one."""
        standing: dict[str, Claim] = {}
        for name, generations in self._generations(pool, partitions).items():
            session = None
            if generations[-1]:
                key = _key(pool, name, generations[-1])
                try:
                    if key not in self._claims:
                        self._claims[key] = json.loads(self.store.get(key))["session"]
                    session = self._claims[key]
                except FileNotFoundError:  # a higher one has come since
                    session = ""
            standing[name] = Claim(generations[-1], session)
        return standing

    def _generations(self, pool: Claimed, partitions: set[str]) -> dict[str, list[int]]:
        """The generations of each partition, ascending, after a generation 0 that stands for none; one listing."""
        found = {name: [0] for name in sorted(partitions)}
        below = f"{min(partitions)}/" if len(partitions) == 1 else ""
        for key in self.store.keys(f"{pool.prefix}claims/{below}") if partitions else []:
            name, generation = key.split("/")[-2:]
            if name in found:
                found[name].append(int(generation))
        return found

    def _write(self, pool: Claimed, partition: str, generation: int, session: str | None) -> bool:
        """Write a generation; False where another is there."""
        claim = {"format": FORMAT, "session": session}
        return self.store.put(_key(pool, partition, generation), json.dumps(claim).encode())

    def _members(self, session: str) -> dict[str, dict[str, Any]]:
        """The last sign of life of each member of a session, by key."""
        found: dict[str, dict[str, Any]] = {}
        for key in self.store.keys(f"{SESSIONS}{session}/"):
            with contextlib.suppress(FileNotFoundError):  # it has left since
                found[key] = json.loads(self.store.get(key))
        return found

    def _is_dead(self, session: str) -> bool:
        members = self._members(session)
        if not members:
            # Its driver joins before it claims, and leaves after it releases: someone took it for dead before us.
            return self._is_silent((session, ""), 0)
        # All are looked at before they are counted: the silence of one goes on while another is alive.
        gone = [has_ended(sign) or self._is_silent((session, key), sign["beat"]) for key, sign in members.items()]
        return all(gone)

    def _is_silent(self, who: tuple[str, str], beat: int) -> bool:
        """Look at a sign of life; whether it has been the same for a lease, as far as this process has looked.

        Between two looks the store may have been away from all of us, or we stopped: no pause counts for more than one
        sign of life.
        """
        now, last = time.monotonic(), self._sights.get(who)
        if last is None or last.beat != beat:
            self._sights[who] = Sight(beat, now, 0.0)
            return False
        silent_s = last.silent_s + min(now - last.at_s, self.lease_s / BEATS)
        self._sights[who] = Sight(beat, now, silent_s)
        return silent_s >= self.lease_s

    def _bury(self, session: str) -> None:
        """Clear away the members of a dead session, and know it for dead where it holds more."""
        for key in self._members(session):
            self.store.delete(key)
        self._sights[session, ""] = Sight(0, time.monotonic(), self.lease_s)


def _key(pool: Claimed, partition: str, generation: int) -> str:
    return f"{pool.prefix}claims/{partition}/{generation:08d}"


def host() -> str:
    """What processes that can see each other have in common: the machine since its start, and the pid namespace."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{socket.gethostname()} {boot} {Path('/proc/self/ns/pid').readlink()}"


def this_process() -> dict[str, Any]:
    """What tells this process from all others, and whether it has ended: the fixed part of its signs of life."""
    pid = os.getpid()
    return {"host": host(), "hostname": socket.gethostname(), "pid": pid, "started": _started(pid)}


@contextlib.contextmanager
def present(store: Store) -> Generator[None]:
    """Give signs of life while a run lasts: its index comes last, and gc waits for the living.

    Raises:
        ValueError: gc is at work, and may be removing what this run would find.
    """
    session = Session(store)
    member = session.join(None)
    try:
        removing = [sign for sign in session.others()[0] if REMOVING in sign["progress"]]
        if removing:
            raise ValueError(f"{store.uri} is being cleaned by {told(removing)}; run again when that has ended")
        yield
    finally:
        member.close()


def signs_of_life(store: Store) -> list[tuple[Object, dict[str, Any]]]:
    """The last sign of life of each process that has not left, its session being the second part of the key."""
    found: list[tuple[Object, dict[str, Any]]] = []
    for each in store.objects(SESSIONS):
        with contextlib.suppress(FileNotFoundError):  # it has left since
            found.append((each, json.loads(store.get(each.key))))
    return found


def clock_s(store: Store) -> float:
    """The time by the clock of the store, which has to write an object to tell it."""
    key = f"{PROBE}{uuid.uuid4().hex}"
    store.put(key, b"")
    try:
        return store.objects(key)[0].modified_at_s
    finally:
        store.delete(key)


def told(signs: Iterable[dict[str, Any]]) -> str:
    """Processes by their signs of life, in words."""
    return ", ".join(sorted(f"pid {sign['pid']} on {sign['hostname']}" for sign in signs))


def has_ended(sign: dict[str, Any]) -> bool:
    """Whether the process that gave a sign of life is known to have ended; one elsewhere never is."""
    return sign["host"] == host() and _started(sign["pid"]) not in (sign["started"], _HIDDEN)


_HIDDEN = -1


def _started(pid: int) -> int | None:
    """When a process started, in ticks since the machine did; None where there is none that runs.

    Not `psutil.create_time`, which counts from the wall clock. A killed process whose parent has not waited for it is a
    zombie: it spends nothing any more.
    """
    if not psutil.pid_exists(pid):
        return None
    try:
        # After the name, which may hold blanks and brackets: state, 18 more, and the start (proc(5)).
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:  # a process of another user may be hidden
        return _HIDDEN
    return None if fields[0] in (b"Z", b"X") else int(fields[19])
