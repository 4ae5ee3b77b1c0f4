"""Claims: one session at a time has a partition, whoever dies, stops, or comes late."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from retort.store import Store, open_store
from retort.store.claims import Session, has_ended
from retort.store.local import LocalStore
from retort.store.pool import PARTITIONS, Pool

ALL = set(PARTITIONS)
Make = Callable[..., Session]
LONG_S = 600.0
"""A lease that no test lives to see the end of."""

DRIVER = """
import sys, time
from pathlib import Path
from retort.store import open_store
from retort.store.claims import Session
from retort.store.pool import PARTITIONS, Pool

root, lease_s, session_id = sys.argv[1:]
store = open_store(root)
session = Session(store, float(lease_s), session_id)
for line in sys.stdin:
    command, *arguments = line.split()
    if command == "join":
        member = session.join(None)
        print(member.id, flush=True)
    elif command == "leave":
        member.close()
        print(flush=True)
    elif command == "race":
        go, number = Path(arguments[0]), arguments[1]
        while not go.exists():
            time.sleep(0.0005)
        print(*session.claim(Pool(store, {"race": number}), PARTITIONS), flush=True)
    else:
        print(*getattr(session, command)(Pool(store, {}), arguments or PARTITIONS), flush=True)
"""


class Driver:
    """A process of a session that does as it is told."""

    def __init__(self, store: Store, session_id: str, lease_s: float = LONG_S) -> None:
        self.id = session_id
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, store.uri, str(lease_s), session_id],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, *words: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(words) + "\n")
        self.process.stdin.flush()

    def hear(self) -> set[str]:
        assert self.process.stdout is not None
        return set(self.process.stdout.readline().split())

    def do(self, *words: str) -> set[str]:
        self.tell(*words)
        return self.hear()

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@contextmanager
def drivers(store: Store, *ids: str, lease_s: float = LONG_S) -> Generator[list[Driver]]:
    """Processes that have joined, each the session of its name."""
    started = [Driver(store, name, lease_s) for name in ids]
    try:
        for driver in started:
            assert driver.do("join")
        yield started
    finally:
        for driver in started:
            driver.close()


@pytest.fixture
def pool(store: Store) -> Pool:
    return Pool(store, {})


@pytest.fixture
def any_pool(store_uri: str) -> Pool:
    """A pool in a store of each kind."""
    return Pool(open_store(store_uri), {})


@pytest.fixture
def joined() -> Iterator[Make]:
    """Makes sessions that this process is a member of."""
    with ExitStack() as members:

        def make(store: Store, lease_s: float = LONG_S) -> Session:
            session = Session(store, lease_s)
            members.callback(session.join(None).close)
            return session

        yield make


@dataclass(frozen=True)
class EventfulStore(LocalStore):
    """A store whose listings may be old and whose writes may fail."""

    on_list: Callable[[list[str]], list[str]] = lambda keys: keys
    on_replace: Callable[[], None] = lambda: None
    on_get: Callable[[str], None] = lambda _: None

    def get(self, key: str) -> bytes:
        self.on_get(key)
        return super().get(key)

    def keys(self, prefix: str) -> list[str]:
        return self.on_list(super().keys(prefix))

    def replace(self, key: str, data: bytes) -> None:
        self.on_replace()
        super().replace(key, data)


def sign_of(session: Session) -> dict[str, Any]:
    """The sign of life of the one member of a session."""
    (sign,) = session.members()
    return sign


def write_sign(store: Store, session: str, **changed: object) -> dict[str, Any]:
    """A member of a session, as this process would be one, but for what is changed."""
    own = Session(store, LONG_S)
    member = own.join(None)
    sign = {**sign_of(own), **changed}
    member.close()
    store.replace(f"sessions/{session}/0123.json", json.dumps(sign).encode())
    return sign


def claim_until(session: Session, pool: Pool, deadline_s: float = 60.0) -> float:
    """Ask for every partition until all are ours; seconds."""
    began = time.monotonic()
    while session.claim(pool, PARTITIONS) != ALL:
        assert time.monotonic() - began < deadline_s, f"held by {session.holders(pool, PARTITIONS)}"
        time.sleep(session.lease_s / 60)
    return time.monotonic() - began


# Claims


def test_a_free_partition_is_claimed_and_a_held_one_is_not(any_pool: Pool, joined: Make):
    one, two = joined(any_pool.store), joined(any_pool.store)
    assert one.claim(any_pool, "abc") == {"a", "b", "c"}
    assert one.claim(any_pool, "bcd") == {"b", "c", "d"}, "what is ours stays ours"
    assert two.claim(any_pool, "cde") == {"e"}
    assert two.claim(any_pool, []) == set()
    assert [name for name in "abcdef" if two.holds(any_pool, name)] == ["e"]
    assert [name for name in "abcdef" if one.holds(any_pool, name)] == list("abcd")
    assert two.claim(Pool(any_pool.store, {"another": 1}), "abc") == {"a", "b", "c"}


def test_whether_a_partition_is_held_is_asked_with_one_listing(tmp_path: Path, joined: Make):
    asked: list[str] = []

    def note_list(keys: list[str]) -> list[str]:
        asked.append("list")
        return keys

    def note_get(key: str) -> None:
        asked.append(key)

    store = EventfulStore(str(tmp_path), on_list=note_list, on_get=note_get)
    pool = Pool(LocalStore(str(tmp_path)), {})
    driver = joined(store)
    assert driver.claim(pool, "ab") == {"a", "b"}
    actor = Session(store, driver.lease_s, driver.id)  # as it is unpickled
    assert actor.holds(pool, "a")
    asked.clear()
    assert [actor.holds(pool, "a") for _ in range(3)] == [True] * 3
    assert asked == ["list"] * 3
    driver.release(pool, "a")
    assert joined(pool.store).claim(pool, "a") == {"a"}
    assert [actor.holds(pool, name) for name in "ab"] == [False, True]


def test_what_is_released_can_be_claimed_at_once(any_pool: Pool, joined: Make):
    one, two = joined(any_pool.store), joined(any_pool.store)
    one.claim(any_pool, "ab")
    two.release(any_pool, "ab")
    assert two.claim(any_pool, "ab") == set(), "nobody releases what another holds"
    one.release(any_pool, "a")
    one.release(any_pool, [])
    assert not one.holds(any_pool, "a")
    assert two.claim(any_pool, "ab") == {"a"}
    assert one.claim(any_pool, "ab") == {"b"}
    for _ in range(5):
        two.release(any_pool, "a")
        assert two.claim(any_pool, "a") == {"a"}
    assert len(any_pool.store.keys(f"{any_pool.prefix}claims/a/")) == 1, "old generations are cleared away"


def test_who_holds_is_said_in_words(pool: Pool):
    one, two = Session(pool.store), Session(pool.store)
    member = one.join(None)
    one.claim(pool, "ab")
    assert two.holders(pool, "abc") == f"pid {os.getpid()} on {sign_of(one)['hostname']}"
    assert one.holders(pool, "abc") == two.holders(pool, "c") == "nobody"
    member.close()
    assert two.holders(pool, "a") == f"session {one.id}"


def test_of_drivers_that_race_each_partition_has_one(any_pool: Pool, tmp_path: Path):
    store, names = any_pool.store, ("one", "two", "three")
    winners: set[str] = set()
    is_contested = False
    with drivers(store, *names) as racers:
        for number in range(100):  # a quick driver may win a whole race: race until some race was shared
            go = tmp_path / f"go{number}"
            for racer in racers:
                racer.tell("race", str(go), str(number))
            go.touch()
            held = {racer.id: racer.hear() for racer in racers}
            assert sorted(name for names in held.values() for name in names) == sorted(ALL)
            winners |= {name for name in names if held[name]}
            is_contested |= sum(bool(names) for names in held.values()) > 1
            if number >= 3 and is_contested and len(winners) > 1:
                break
    assert len(winners) > 1, "one driver won every race: nothing was tested"
    assert is_contested, "in no race did two drivers claim at once"


# Death


@pytest.mark.parametrize("is_waited_for", [True, False], ids=["waited for", "a zombie"])
def test_a_killed_holder_of_this_machine_is_seen_at_once(is_waited_for: bool, pool: Pool, joined: Make):
    session = joined(pool.store)
    with drivers(pool.store, "victim") as (victim,):
        assert victim.do("claim") == ALL
        assert session.claim(pool, PARTITIONS) == set()
        victim.process.kill()
        if is_waited_for:
            victim.process.wait()
        else:
            os.waitid(os.P_PID, victim.process.pid, os.WEXITED | os.WNOWAIT)
        assert session.claim(pool, PARTITIONS) == ALL
        assert pool.store.keys("sessions/victim/") == [], "whoever takes over clears away"


def test_an_actor_that_outlives_its_driver_keeps_the_claim(pool: Pool, joined: Make):
    session = joined(pool.store)
    with drivers(pool.store, "family", "family") as (driver, actor):
        assert driver.do("claim") == ALL
        driver.process.kill()
        driver.process.wait()
        assert session.claim(pool, PARTITIONS) == set(), "it still spends"
        assert f"pid {actor.process.pid} " in session.holders(pool, PARTITIONS)
        actor.process.kill()
        actor.process.wait()
        assert session.claim(pool, PARTITIONS) == ALL


def test_a_stopped_holder_loses_its_lease_and_notices(pool: Pool, joined: Make):
    lease_s = 3.0
    session = joined(pool.store, lease_s)
    with drivers(pool.store, "stopped", lease_s=lease_s) as (stopped,):
        assert stopped.do("claim") == ALL
        until = time.monotonic() + 1.5 * lease_s
        while time.monotonic() < until:
            assert session.claim(pool, PARTITIONS) == set(), "it is alive"
            time.sleep(0.1)
        stopped.process.send_signal(signal.SIGSTOP)
        assert claim_until(session, pool) > 0.6 * lease_s
        stopped.process.send_signal(signal.SIGCONT)
        assert stopped.do("claim") == set(), "it does not get back what another holds"
        assert session.holds(pool, "a")
        session.release(pool, PARTITIONS)
        assert stopped.do("claim") == ALL, "it is alive again"


def test_a_holder_elsewhere_is_dead_when_its_signs_of_life_stop(pool: Pool, joined: Make):
    gone = Session(pool.store, 0.4, "gone")
    assert gone.claim(pool, PARTITIONS) == ALL
    sign = write_sign(pool.store, "gone", host="another machine", pid=2**22 + 1)
    assert not has_ended(sign)
    session = joined(pool.store, 0.4)
    beat, alive_until = sign["beat"], time.monotonic() + 1.0
    while time.monotonic() < alive_until:
        beat += 1
        write_sign(pool.store, "gone", host="another machine", beat=beat)
        assert session.claim(pool, PARTITIONS) == set()
    assert claim_until(session, pool) >= 0.4
    assert not gone.holds(pool, "a")
    assert pool.store.keys("sessions/gone/") == []


def test_a_pause_in_looking_is_no_silence(pool: Pool):
    Session(pool.store, 0.3, "elsewhere").claim(pool, PARTITIONS)
    write_sign(pool.store, "elsewhere", host="another machine")
    session = Session(pool.store, 0.3)
    for _ in range(2):
        # The store may have been away for so long, and nobody could write.
        assert session.claim(pool, PARTITIONS) == set()
        time.sleep(0.4)
    assert claim_until(session, pool) < 30


def test_a_session_without_members_is_dead_after_a_lease(pool: Pool):
    Session(pool.store, 0.3).claim(pool, PARTITIONS)
    session = Session(pool.store, 0.3)
    assert session.claim(pool, PARTITIONS) == set()
    assert claim_until(session, pool) >= 0.2


def test_a_dead_session_is_waited_for_once(pool: Pool):
    other = Pool(pool.store, {"another": 1})
    gone = Session(pool.store, 0.3, "gone")
    assert gone.claim(pool, PARTITIONS) == gone.claim(other, PARTITIONS) == ALL
    write_sign(pool.store, "gone", host="another machine")
    session = Session(pool.store, 0.3)
    claim_until(session, pool)
    assert session.claim(other, PARTITIONS) == ALL


@pytest.mark.parametrize(
    ("changed", "ended"),
    [
        ({}, False),
        ({"started": 1}, True),  # the pid was given to another process
        ({"pid": 2**22 + 1}, True),  # above the largest that Linux gives
        ({"pid": 2**22 + 1, "host": "another machine"}, False),
        ({"pid": 1}, True),  # an older process than the one that gave the sign
    ],
)
def test_a_process_is_known_by_machine_pid_and_start(changed: dict[str, Any], ended: bool, store: Store):
    assert has_ended(write_sign(store, "s", **changed)) is ended


# Trouble


def test_a_claimer_that_saw_an_old_listing_loses(tmp_path: Path, joined: Make):
    plain = Pool(LocalStore(str(tmp_path)), {})
    one, two, three = (joined(plain.store) for _ in range(3))
    prefix = f"{plain.prefix}claims/"
    assert one.claim(plain, "a") == {"a"}
    one.release(plain, "a")
    old = plain.store.keys(prefix)
    contents = plain.store.get(old[0])
    two.claim(plain, "a")
    two.release(plain, "a")
    three.claim(plain, "a")
    listings = iter([old])
    store = EventfulStore(str(tmp_path), on_list=lambda keys: next(listings, keys))
    store.put(old[0], contents)  # as if it had been read before it was cleared away
    late = Session(store, LONG_S)
    assert late.claim(Pool(store, {}), "a") == set()
    assert next(listings, None) is None, "it saw no old listing"
    assert plain.store.exists(f"{prefix}a/00000003"), "it wrote a generation that was over"
    assert three.holds(plain, "a")
    three.release(plain, "a")
    assert late.claim(Pool(store, {}), "a") == {"a"}
    assert len(plain.store.keys(prefix)) == 1


def test_a_sign_of_life_that_does_not_get_through_is_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    writes: list[bool] = []

    def fail_twice() -> None:
        writes.append(len(writes) in (1, 2))
        if writes[-1]:
            raise ConnectionResetError("the store is away")

    session = Session(EventfulStore(str(tmp_path), on_replace=fail_twice), 0.15)
    member = session.join(None)
    until = time.monotonic() + 30
    while len(writes) < 5:
        assert time.monotonic() < until
        time.sleep(0.01)
    assert sign_of(session)["beat"] > 2
    member.close()
    assert [record.getMessage().count("the store is away") for record in caplog.records] == [1, 1]
    assert session.members() == []


def test_members_tell_of_their_progress(store: Store):
    counts = {"sampled": 0}
    session = Session(store, 0.15)
    member = session.join(lambda: counts)
    again: Session = pickle.loads(pickle.dumps(session))  # noqa: S301
    other = again.join(None)
    counts["sampled"] = 7
    until = time.monotonic() + 30
    while sorted(len(sign["progress"]) and sign["progress"]["sampled"] for sign in session.members()) != [0, 7]:
        assert time.monotonic() < until
        time.sleep(0.01)
    assert len({member.id, other.id}) == 2
    for each in (member, other):
        each.close()
    assert again.members() == []
