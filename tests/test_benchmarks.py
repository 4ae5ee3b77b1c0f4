"""The sampling benchmarks run, count what they say they count, and do not believe a side that did not do the work."""

import importlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from retort.records import Chain
from retort.store import open_store
from retort.store.pool import Pool

TESTS = Path(__file__).parent
BENCHMARKS = TESTS / "benchmarks"


@pytest.fixture
def workload(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("workload")


@pytest.fixture
def sides(workload: ModuleType) -> ModuleType:
    return importlib.import_module("sides")


@pytest.fixture
def table(workload: ModuleType) -> ModuleType:
    return importlib.import_module("table")


def run(name: str, out: Path, *arguments: str) -> list[dict[str, Any]]:
    """The figures of a benchmark at a small size."""
    command = [sys.executable, str(BENCHMARKS / f"bench_{name}.py"), *arguments, "--out", str(out)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(TESTS)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads((out / f"{name}.json").read_text())
    for row in found:
        assert row.keys() == {"name", "ratio", "bar", "median_s", "spread", "runs"}
        assert row["name"] in done.stdout
        assert row["spread"][0] <= row["ratio"] <= row["spread"][1]
    return found


@pytest.mark.slow
def test_growth_buys_exactly_what_is_needed(tmp_path: Path) -> None:
    rows = run("growth", tmp_path, "--problems", "6")
    assert [row["ratio"] for row in rows] == [1.0] * 4
    first, more, larger, again = (row["runs"][0] for row in rows)
    assert (first["chains"], more["chains"], again["chains"]) == (24, 24, 0)
    assert 0 < larger["chains"] < 48
    assert larger["bought_tokens"] < larger["tokens_from_nothing"]


@pytest.mark.slow
def test_requests_to_s3_are_counted_by_phase(tmp_path: Path) -> None:
    rows = run("s3", tmp_path, "--chains", "32", "--chains-per-s", "200")
    whole = {row["name"].split(", ", 1)[1]: row["runs"][0]["whole"] for row in rows}
    assert whole["sampling"]["PUT segments"] > 0
    assert whole["sampling"]["B sent"] > 1000
    assert "PUT segments" not in whole["again, all found"]
    assert whole["verification"]["PUT artifacts"] > 0
    assert whole["compaction"]["LIST segments"] == 16


@pytest.mark.slow
def test_a_small_cluster_is_simulated_and_all_its_chains_are_there(tmp_path: Path) -> None:
    rows = run("scale", tmp_path, "--chains", "64", "--actors", "1", "--chains-per-s", "2000")
    found = {row["name"].removeprefix("scale: "): row["ratio"] for row in rows}
    segments = [
        round(found[name] * 64e-6) for name in ("segments per million chains", "PUT segments per million chains")
    ]
    assert segments[0] == segments[1]
    assert 1 <= segments[0] <= 16
    assert 0 < found["seconds of the longest chain"] < found["seconds"]
    assert found["seconds"] > found["seconds of the tail, the last 1 % of the chains"] >= 0
    assert 0 < found["driver's CPU s"] < found["seconds"] * 2
    assert rows[0]["runs"][0]["roles"]["actors"]["processes"] == 1


def test_idle_engines_are_told_from_busy_ones(workload: ModuleType) -> None:
    bench = importlib.import_module("bench_scale")
    engines = [[(0.0, 10.0)], [(0.0, 4.0), (2.0, 5.0)], [(8.0, 9.0)]]
    assert bench.idle_share(engines, 0.0, 10.0) == pytest.approx((0 + 5 + 9) / 30)
    assert bench.idle_share(engines, 5.0, 10.0) == pytest.approx((0 + 5 + 4) / 15)


def test_requests_are_counted_as_s3_would(workload: ModuleType, tmp_path: Path) -> None:
    counting = importlib.import_module("counting")
    store = counting.CountingStore(open_store(str(tmp_path / "store")), str(tmp_path / "counters"))
    store.put("pools/p/segments/a/0000", b"xyz")
    for number in range(1, 1001):
        (tmp_path / "store" / f"pools/p/segments/a/{number:04d}").write_bytes(b"xy")
    assert len(store.keys("pools/p/segments/a/")) == 1001
    assert store.get("pools/p/segments/a/0007") == b"xy"
    (counts,) = store.counts().values()
    assert {name: count for name, count in counts.items() if count} == {
        "PUT segments": 1,
        "LIST segments": 2,
        "GET segments": 1,
        "B sent": 3,
        "B received": 2,
    }


@pytest.mark.slow
def test_shared_prefills_compute_fewer_tokens(tmp_path: Path) -> None:
    rows = run("prefill", tmp_path, "--rounds", "1", "--problems", "1", "--hidden-size", "64")
    computed = {row["runs"][0]["ratio"]: row["ratio"] for row in rows if "tokens" in row["name"]}
    # Of 136, 544 and 2176 tokens of a prompt 128, 512 and 2048 are in whole blocks before its last one: 16 of 17 each.
    assert computed == {ratio: pytest.approx(8 * 17 / (8 * 17 - 7 * 16)) for ratio in (0.5, 2.0, 8.0)}


@pytest.mark.slow
def test_every_side_of_the_sampling_benchmark_does_the_work(tmp_path: Path) -> None:
    rows = run("sampling", tmp_path, "--rounds", "1", "--chains", "32", "--hidden-size", "64")
    assert [row["bar"] for row in rows if row["bar"]] == [0.97, 0.97, 1.15, 1.3]
    assert all(row["ratio"] > 0 for row in rows)


def test_heavy_lengths_are_the_same_on_every_side_and_some_are_cut_off(workload: ModuleType, tmp_path: Path) -> None:
    work = workload.Workload("heavy", 4096, 0)
    requests = work.requests(Pool(open_store(str(tmp_path)), {}))
    lengths = [workload.ending(request, "heavy") for request in requests]
    assert lengths == [workload.ending(request, "heavy") for request in requests]
    assert 24 < sum(tokens for tokens, _ in lengths) / len(lengths) < 29
    reasons = {reason for _, reason in lengths}
    assert reasons == {"stop", "length"}
    assert {tokens for tokens, reason in lengths if reason == "length"} == {workload.MAX_NEW_TOKENS["heavy"]}


@pytest.mark.parametrize("fault", [None, "missing", "twice", "short"])
def test_a_side_that_did_not_do_all_the_work_is_refused(
    fault: str | None, workload: ModuleType, sides: ModuleType, tmp_path: Path
) -> None:
    work = workload.Workload("heavy", 16, 0)
    requests = sides.requests_of(work, tmp_path)
    chains: list[Chain] = [
        workload.chain_of(request, "x", 3, workload.ending(request, "heavy")[0], 0.0) for request in requests
    ]
    workload.mark(workload.mark_of(tmp_path))
    if fault == "short":
        chains[5] = replace(chains[5], num_tokens=chains[5].num_tokens + 1)
    sides.write(sides.store_of(tmp_path), 0, chains[: -1 if fault == "missing" else None])
    if fault == "twice":
        sides.write(sides.store_of(tmp_path), 1, chains[:1])
    if fault:
        with pytest.raises(ValueError, match="expected"):
            workload.durable_s(tmp_path, work, requests)
    else:
        seconds = workload.durable_s(tmp_path, work, requests)
        assert len(seconds) == 16
        assert 0 <= seconds[0] <= seconds[-1] < 60


def test_results_come_back_as_they_were_written(table: ModuleType, tmp_path: Path) -> None:
    fast = table.of_pairs("against nobody", 0.97, [2.0, 3.0, 4.0], [2.0, 2.0, 2.0], chains=1)
    slow = table.of_pairs("against everybody", 0.97, [1.0], [2.0])
    assert (fast.ratio, fast.median_s, fast.spread, len(fast.runs)) == (1.5, 2.0, (1.0, 2.0), 3)
    path = table.write("made-up", [fast, slow], tmp_path)
    assert table.read(path) == [fast, slow]
    assert "reached" in fast.row()
    assert "MISSED" in slow.row()


@pytest.mark.parametrize(
    ("num_chains", "prompt_tokens", "spared"), [(1, 64, 0), (8, 64, 7 * 64), (30, 16, 29 * 16), (4, 256, 3 * 256)]
)
def test_the_bound_of_sharing_is_that_of_the_formula(
    num_chains: int, prompt_tokens: int, spared: int, workload: ModuleType
) -> None:
    bench = importlib.import_module("bench_training")
    chains = [
        bench.TokenizedExample("p", "cot", tuple(range(prompt_tokens)), (number,) * 64) for number in range(num_chains)
    ]
    share = spared / (num_chains * (prompt_tokens + 64))
    assert bench.bound([chains]) == pytest.approx(1 / (1 - share))


def test_every_step_of_a_training_has_examples_of_its_own(workload: ModuleType) -> None:
    sides = importlib.import_module("training_sides")
    job = sides.Job(num_chains=3, prompt_tokens=8, chain_tokens=8, num_groups=2, steps=4)
    steps = job.drawn()
    assert [len(step) for step in steps] == [6] * 4
    assert len({example.target_ids for step in steps for example in step}) == 24
    assert all(len({example.prompt_ids for example in step}) == 2 for step in steps)


def test_rows_are_cut_between_examples_until_every_step_has_as_many(workload: ModuleType) -> None:
    sides = importlib.import_module("training_sides")
    rows = [
        {"input_ids": [1, 2, 2, 3, 3, 3], "labels": [-100, 2, 2, 3, 3, 3], "seq_lengths": [1, 2, 3]},
        {"input_ids": [4], "labels": [4], "seq_lengths": [1]},
    ]
    made = sides.evened(rows, 4)
    assert sorted(row["input_ids"] for row in made) == [[1], [2, 2], [3, 3, 3], [4]]
    assert all(sum(row["seq_lengths"]) == len(row["input_ids"]) == len(row["labels"]) for row in made)
    assert len(rows) == 2


@pytest.mark.parametrize("loss", [2.01, float("nan")])
def test_sides_that_train_on_something_else_are_refused(loss: float, workload: ModuleType) -> None:
    bench = importlib.import_module("bench_training")
    step = bench.Step(1.0, 1.0, 2.0, None, 1)
    alike = {"ours": [step, step], "trl": [step, step]}
    assert bench.agreeing(alike, 1e-3) == {"ours": [step], "trl": [step]}
    with pytest.raises(ValueError, match="step 2"):
        bench.agreeing(alike | {"trl": [step, step._replace(loss=loss)]}, 1e-3)


@pytest.mark.slow  # 17 s on two idle cores, for the imports of TRL: that both sides train on the same is worth that
def test_every_side_of_the_training_benchmark_trains_on_the_same(tmp_path: Path) -> None:
    small = ("--student", "tiny", "--tokens", "512", "--rounds", "1", "--learning-steps", "0")
    rows = run("training", tmp_path, "--quick", *small)
    assert [row["bar"] for row in rows if "memory" not in row["name"]] == [1.0, 1.5, 1.0]
    assert all(row["ratio"] > 0 for row in rows)
