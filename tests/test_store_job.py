"""`jobs/store.py`: what no kept run needs goes, in an order that no crash spoils; pools lose only what nobody reads."""

import argparse
import itertools
import json
import os
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recordings import recipe, write_recording
from retort.loading import load
from retort.pipeline import distill
from retort.records import Chain, FinishReason
from retort.report import report
from retort.store import Store, gc, open_store
from retort.store.artifacts import Address, Artifact, Writer, find, open_artifact
from retort.store.claims import Session, present
from retort.store.local import LocalStore
from retort.store.pool import Pool, pools
from retort.store.replaced import never_read, repeated
from retort.upkeep import store_commands
from test_pool_job import append, chain_of, job, rows, told

DAY_S = 86_400


@dataclass(frozen=True)
class Runs:
    """A store with two runs of one recipe, and the report of each."""

    folder: Path
    small: str
    large: str

    @property
    def path(self) -> Path:
        return self.folder / "store"

    @property
    def store(self) -> Store:
        return open_store(str(self.path))

    def objects(self) -> set[str]:
        """Keys of everything, but for signs of life."""
        return {each.key for each in self.store.objects("") if not each.key.startswith("sessions/")}


def curate(folder: Path, num_chains: int) -> Artifact:
    wanted = load(folder / "recipe.toml", [f"store={folder / 'store'}", f"teacher.rec.num_chains={num_chains}"])
    return distill(wanted, open_store(wanted.store), until="curate")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> Runs:
    folder = tmp_path_factory.mktemp("runs")
    (folder / "recipe.toml").write_text(recipe(write_recording(folder / "rec.jsonl", 4), "/unused", 4))
    small, large = (curate(folder, count) for count in (2, 4))
    report(small.store, small)
    report(large.store, large)
    return Runs(folder, small.id, large.id)


@pytest.fixture
def runs(made: Runs, tmp_path: Path) -> Runs:
    """A copy of them, all of it a week old."""
    shutil.copytree(made.folder, tmp_path / "runs")
    copy = Runs(tmp_path / "runs", made.small, made.large)
    age(copy, *copy.objects(), days=7)
    return copy


def age(runs: Runs, *keys: str, days: float) -> None:
    then = time.time() - days * DAY_S
    for key in keys:
        os.utime(runs.path / key, (then, then))


def now(runs: Runs) -> None:
    """Something of this moment, by which the store's clock goes on."""
    runs.store.put("artifacts/verdicts/0/attempt/part", b"rows of an attempt under way")


def lines_of(*arguments: str | Path) -> list[str]:
    return list(store_commands(argparse.ArgumentParser(), list(map(str, arguments))))


# runs


def test_runs_are_listed_with_what_it_takes_to_keep_one(runs: Runs) -> None:
    header, *lines = told("store", "runs", runs.path)
    assert header.split()[:2] == ["run", "recipe"]
    assert [line.split()[:2] for line in lines] == [[runs.small, "test"], [runs.large, "test"]], "oldest first"
    index = open_artifact(runs.store, f"artifacts/run/{runs.large}/")
    assert index is not None
    named = {prefix for stage in index.manifest["inputs"].values() for prefix in stage.values()} | {index.prefix}
    size = sum(found.size for prefix in named for found in runs.store.objects(prefix))
    told_of = lines[1].split()
    assert (told_of[4], told_of[5], told_of[6]) == (str(len(named)), "0", f"{size / 1e6:.1f}")
    runs.store.delete(f"{index.manifest['inputs']['corpus']['chains']}manifest.json")
    shutil.rmtree(runs.path / index.manifest["inputs"]["corpus"]["chains"])
    assert [line.split()[5] for line in lines_of("runs", runs.path)[1:]] == ["0", "1"]


# gc of artifacts


def test_a_dry_run_says_what_would_go_and_deletes_nothing(runs: Runs) -> None:
    now(runs)
    before = runs.objects()
    *lines, last = told("store", "gc", runs.path, "--keep", runs.large, "--dry-run")
    assert any(line.startswith(f"artifacts/run/{runs.small}/") for line in lines)
    assert last.startswith("would go")
    assert runs.objects() == before
    told("store", "gc", runs.path, "--keep", runs.large)
    gone = before - runs.objects()
    going = [line.split()[0] for line in lines]
    assert {key for key in before if any(key.startswith(prefix) for prefix in going)} == gone != set()


@pytest.mark.parametrize(
    "name", ["{id}", "artifacts/run/{id}", "artifacts/run/{id}/", "file://{path}/artifacts/run/{id}"]
)
def test_a_kept_run_stays_whole_and_the_other_goes(runs: Runs, name: str) -> None:
    kept = open_artifact(runs.store, f"artifacts/run/{runs.large}/")
    other = open_artifact(runs.store, f"artifacts/run/{runs.small}/")
    assert kept is not None
    assert other is not None
    ours, theirs = (
        {prefix for stage in index.manifest["inputs"].values() for prefix in stage.values()} for index in (kept, other)
    )
    assert ours & theirs, "nothing is shared"
    assert theirs - ours, "everything is shared"
    reports = [Path(key).parent.name for key in runs.store.keys("artifacts/report/") if key.endswith("manifest.json")]
    assert len(reports) == 2
    pool = runs.store.keys("pools/")
    before = {key: runs.store.get(key) for prefix in (*ours, kept.prefix) for key in runs.store.keys(prefix)}
    now(runs)
    lines_of("gc", runs.path, "--keep", name.format(id=runs.large, path=runs.path))
    assert {key: runs.store.get(key) for key in before} == before
    assert [prefix for prefix in (theirs - ours) | {other.prefix} if runs.store.keys(prefix)] == []
    (left,) = (key for key in runs.store.keys("artifacts/report/") if key.endswith("manifest.json"))
    assert json.loads(runs.store.get(left))["inputs"]["run"] == runs.large
    assert runs.store.keys("pools/") == pool


def test_a_run_is_named_by_its_report_too(runs: Runs) -> None:
    page = next(
        key
        for key in runs.store.keys("artifacts/report/")
        if key.endswith("manifest.json") and json.loads(runs.store.get(key))["inputs"]["run"] == runs.small
    )
    assert gc.find_run(runs.store, f"file://{runs.path}/{Path(page).parent}").id == runs.small


def test_the_kept_run_is_found_afterwards_and_the_other_can_be_made_again(runs: Runs, ray_session: None) -> None:
    now(runs)
    lines_of("gc", runs.path, "--keep", runs.large)
    before = runs.objects()
    assert curate(runs.folder, 4).id == runs.large
    assert runs.objects() == before
    assert curate(runs.folder, 2).id == runs.small
    assert {key for key in runs.objects() - before if key.startswith("pools/") and "/segments/" in key} == set()


def test_what_is_young_stays_by_the_clock_of_the_store(runs: Runs) -> None:
    before = runs.objects()
    assert lines_of("gc", runs.path, "--keep", runs.large)[-1].startswith("gone: 0 "), "the newest object is a week old"
    assert runs.objects() == before
    now(runs)
    (manifest,) = (key for key in before if key == f"artifacts/run/{runs.small}/manifest.json")
    age(runs, manifest, days=0.5)
    lines_of("gc", runs.path, "--keep", runs.large)
    assert manifest in runs.objects()
    assert runs.objects() < before | {"artifacts/verdicts/0/attempt/part"}
    assert "artifacts/verdicts/0/attempt/part" in runs.objects(), "an attempt under way"
    lines_of("gc", runs.path, "--keep", runs.large, "--older-than", "0.2")
    assert manifest not in runs.objects()
    lines_of("gc", runs.path, "--keep", runs.large, "--older-than", "0")
    assert "artifacts/verdicts/0/attempt/part" not in runs.objects()


def test_attempts_that_lost_or_never_ended_go(runs: Runs) -> None:
    index = open_artifact(runs.store, f"artifacts/run/{runs.large}/")
    assert index is not None
    corpus = index.manifest["inputs"]["corpus"]["chains"]
    lost = [f"{corpus}000000000000/part-00.parquet", "artifacts/verdicts/f00/000000000000/part-00.parquet"]
    young = f"{corpus}111111111111/part-00.parquet"
    for key in (*lost, young):
        runs.store.put(key, b"rows")
    age(runs, *lost, days=3)
    before = runs.objects()
    lines = lines_of("gc", runs.path, "--keep", runs.large, runs.small)
    assert before - runs.objects() == set(lost)
    assert [line.partition("MB  ")[2] for line in lines[:-1]] == [
        "an attempt that was not the first to end",
        "never finished",
    ]


def clean(store: Store, keep: str) -> None:
    for each in gc.garbage(store, [keep], 1):
        gc.remove(store, each)


class DyingStore(LocalStore):
    """A store whose user is killed at some deletion."""

    def __init__(self, root: str, deletions: int) -> None:
        super().__init__(root)
        object.__setattr__(self, "left", deletions)

    def delete(self, key: str) -> None:
        left: int = self.__dict__["left"]
        if not left:
            raise InterruptedError("killed")
        object.__setattr__(self, "left", left - 1)
        super().delete(key)


def test_a_crash_leaves_no_artifact_and_no_run_that_looks_whole_and_is_not(runs: Runs, tmp_path: Path) -> None:
    now(runs)
    total = sum(len(each.objects) for each in gc.garbage(runs.store, [runs.large], 1))
    assert total > 6
    ends: set[tuple[str, ...]] = set()
    for deletions in range(total):
        shutil.rmtree(tmp_path / "crashed", ignore_errors=True)
        shutil.copytree(runs.path, tmp_path / "crashed")
        dying = DyingStore(str(tmp_path / "crashed"), deletions)
        with pytest.raises(InterruptedError):
            clean(dying, runs.large)
        left = open_store(str(tmp_path / "crashed"))
        whole = [key for key in left.keys("artifacts/") if key.endswith("/manifest.json")]
        assert len(left.keys("artifacts/")) == len(runs.store.keys("artifacts/")) - deletions
        for key in whole:
            for file in json.loads(left.get(key))["files"]:
                assert left.exists(file["key"]), key
        assert [entry.lost for entry in gc.runs(left)] == [0] * len(gc.runs(left))
        clean(left, runs.large)
        ends.add(tuple(left.keys("artifacts/")))
    clean(runs.store, runs.large)
    assert ends == {tuple(runs.store.keys("artifacts/"))}, "a second run finishes it"


def test_a_manifest_of_a_format_to_come_is_refused(store: Store) -> None:
    where = Address("run", 1, {"name": "n"}, {})
    made = Writer(store, where).commit([], {})
    assert made.manifest["format"] == 1
    store.replace(f"{made.prefix}manifest.json", json.dumps({**made.manifest, "format": 2}).encode())
    with pytest.raises(ValueError, match=r"\A[^\n]*manifest\.json: format 2; expected 1[^\n]*\Z"):
        find(store, where)
    old = {key: value for key, value in made.manifest.items() if key != "format"}
    store.replace(f"{made.prefix}manifest.json", json.dumps(old).encode())
    assert find(store, where) is not None, "manifests from before there was a format are of the first"


# gc and those who use the store


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_nothing_goes_while_a_session_is_alive(runs: Runs, dry: list[str]) -> None:
    now(runs)
    before = runs.objects()
    member = Session(runs.store).join(None)
    with pytest.raises(ValueError, match=rf"\A[^\n]*in use by pid {os.getpid()} on [^\n]*\Z"):
        lines_of("gc", runs.path, "--keep", runs.large, *dry)
    assert runs.objects() == before
    member.close()
    assert len(lines_of("gc", runs.path, "--keep", runs.large, *dry)) > 1
    assert runs.store.keys("sessions/") == [], "it leaves nothing itself"


def test_no_run_begins_while_gc_is_at_work(runs: Runs) -> None:
    with (
        gc.alone_on(runs.store),
        pytest.raises(ValueError, match=rf"is being cleaned by pid {os.getpid()} on [^\n]*\Z"),
        present(runs.store),
    ):
        raise AssertionError
    with present(runs.store), present(runs.store):
        assert len(runs.store.keys("sessions/")) == 2
    assert runs.store.keys("sessions/") == []


def sign(store: Store, **changed: object) -> str:
    """A member's last sign of life, of this process but for what is changed; its key."""
    own = Session(store)
    member = own.join(None)
    (written,) = own.members()
    member.close()
    key = f"sessions/{own.id}/{member.id}.json"
    store.replace(key, json.dumps({**written, **changed}).encode())
    return key


def test_a_process_elsewhere_is_alive_until_it_has_been_silent_and_one_that_ended_here_is_not(runs: Runs) -> None:
    now(runs)
    ended = sign(runs.store, pid=2**22 + 1)
    elsewhere = sign(runs.store, pid=2**22 + 1, host="another machine", hostname="another")
    for seconds, is_alive in ((0, True), (100, True), (140, False)):
        age(runs, elsewhere, days=seconds / DAY_S)
        if is_alive:
            with pytest.raises(ValueError, match="in use by pid 4194305 on another"):
                lines_of("gc", runs.path, "--keep", runs.large, "--dry-run")
        else:
            assert lines_of("gc", runs.path, "--keep", runs.large, "--dry-run")
    assert {ended, elsewhere} <= set(runs.store.keys("sessions/")), "they are young"


def test_what_dead_processes_left_goes_when_it_is_old(runs: Runs) -> None:
    now(runs)
    old, young = ([sign(runs.store, pid=2**22 + 1), f".probe-{name}"] for name in "ab")
    for _, probe in (old, young):
        runs.store.put(probe, b"first")
    age(runs, *old, days=1.5)
    age(runs, *young, days=0.5)
    left = {*old, *young}
    lines_of("gc", runs.path, "--keep", runs.small, runs.large, "--dry-run")
    assert left <= set(runs.store.keys(""))
    lines = lines_of("gc", runs.path, "--keep", runs.small, runs.large)
    assert [line.split()[0] for line in lines[:-1]] == sorted(old, reverse=True)
    assert left & set(runs.store.keys("")) == set(young)


# gc of pools

ROWS = st.tuples(
    st.integers(0, 1),
    st.sampled_from(["stop", "length"]),
    st.sampled_from([4, 8, 16]),
    st.sampled_from(["one", "two", "three", "four"]),
)


@settings(max_examples=40, deadline=None)
@given(segments=st.lists(st.lists(ROWS, min_size=1, max_size=5), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_no_plan_reads_differently_without_the_rows_that_none_reads(
    segments: list[list[tuple[int, FinishReason, int, str]]], seed: int
) -> None:
    base = chain_of("Q")
    partition = base.prompt_hash[0]
    keys = {(base.prompt_hash, index) for index in range(2)}
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        pool = Pool(open_store(folder), {})
        for number, written in enumerate(segments):
            chains = [
                replace(base, index=i, finish_reason=finish, max_new_tokens=most, text=text, finished_at_s=rng.random())
                for i, finish, most, text in written
            ]
            pool.append(f"b{number}", chains)

        def read() -> list[list[Chain]]:
            return [pool.chains(partition, keys, budget) for budget in (1, 4, 5, 8, 9, 16, 17, 99)]

        before, held = read(), rows(pool)
        hidden = [place for places in repeated(pool, pool.segments(partition)).values() for place in never_read(places)]
        seen = {chain for chains in before for chain in chains}
        assert len(held) - len(hidden) == len(seen), "a row is read by some plan, or by none"
        done = gc.drop_never_read(pool, dry_run=False)
        assert read() == before
        assert set(rows(pool)) >= seen
        assert len(rows(pool)) == len(held) - done.rows
        contents = {(chain.index, chain.finish_reason, chain.max_new_tokens, chain.text) for chain in seen}
        left = {(chain.index, chain.finish_reason, chain.max_new_tokens, chain.text) for chain in rows(pool)}
        assert left == contents, "what is left and not read has the content of a row that is"


def test_a_named_pool_loses_replaced_rows_and_segments_set_aside_and_others_nothing(runs: Runs) -> None:
    (pool,) = pools(runs.store)
    other = Pool(runs.store, {"model": "another"})
    other.describe()
    read = rows(pool)
    cut = [
        replace(chain, finish_reason="length", max_new_tokens=8, text=f"Cut {number}")
        for chain, number in itertools.product(read[:5], range(3))
    ]
    append(pool, cut)
    append(other, [chain_of("Q"), *(replace(chain_of("Q"), text=f"{n}", finish_reason="length") for n in range(9))])
    damaged = f"{pool.prefix}damaged/a/x-0123456789abcdef.parquet"
    runs.store.put(damaged, b"no Parquet")
    before, others = rows(pool), rows(other)
    plans = [sorted(read_at(pool, before, budget), key=repr) for budget in (4, 8, 9, 96)]
    dry = lines_of("gc", runs.path, "--pool", pool.id, "--older-than", "0", "--dry-run")
    assert rows(pool) == before
    assert runs.store.exists(damaged)
    lines = told("store", "gc", runs.path, "--pool", pool.id, "--older-than", "0")
    gone = len(before) - len(rows(pool))
    assert 0 < gone < len(cut) + 1
    assert f"gone: {gone} rows of pool {pool.id}" in lines[-1]
    assert f"would go: {gone} rows of pool {pool.id}" in dry[-1]
    assert not runs.store.exists(damaged)
    assert set(read) <= set(rows(pool)), "a chain that ended by itself went"
    assert [sorted(read_at(pool, before, budget), key=repr) for budget in (4, 8, 9, 96)] == plans
    assert rows(other) == others
    assert f"{len(before) - gone} rows, 0 problems" in told("pool", "verify", runs.path, pool.id)[-1]


def read_at(pool: Pool, chains: list[Chain], budget: int) -> Iterator[Chain]:
    keys = {(chain.prompt_hash, chain.index) for chain in chains}
    for partition in {chain.prompt_hash[0] for chain in chains}:
        yield from pool.chains(partition, {key for key in keys if key[0][0] == partition}, budget)


# wrong input


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["gc", "{store}", "--keep", "0" * 24], "no run"),
        (["gc", "{store}", "--keep", "{small}", "nope"], "no run 'nope'"),
        (["gc", "{store}", "--keep", ""], "no run ''"),
        (["gc", "{store}"], "expected --keep RUN"),
        (["gc", "{store}", "--keep", "{small}", "--older-than", "-1"], "--older-than -1; expected days"),
        (["gc", "{store}", "--pool", "nope"], "has no pool 'nope'"),
        (["gc", "{store}", "--keep", "{small}", "--pool", "nope"], "has no pool 'nope'"),
        (["gc", "relative", "--keep", "{small}"], "no such folder"),
        (["runs", "{store}/none"], "no such folder"),
        (["runs", "ftp://x"], "unknown scheme"),
    ],
)
def test_wrong_input_is_refused_in_one_line_and_nothing_goes(runs: Runs, arguments: list[str], said: str) -> None:
    now(runs)
    before = runs.objects()
    with pytest.raises(ValueError, match=r"\A[^\n]*\Z") as refused:
        lines_of(*(argument.format(store=runs.path, small=runs.small) for argument in arguments))
    assert said in str(refused.value)
    assert runs.objects() == before


def test_a_run_that_is_not_there_ends_with_status_2_and_one_line(runs: Runs) -> None:
    done = job("store", "gc", runs.path, "--keep", "nope")
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1


def test_an_empty_store_has_no_runs(tmp_path: Path) -> None:
    assert len(lines_of("runs", tmp_path)) == 1
