"""Trainings under Ray that lose a worker, their driver or a machine, or are told that they will."""

import contextlib
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import psutil
import pytest
from ray.train import TrainingFailedError

from faults.training_process import Workers, newest_state, training
from retort.store import Store, open_store
from retort.store.artifacts import Artifact
from retort.store.local import LocalStore
from retort.training.trainer import Training, train

DRIVER = Path(__file__).parent / "train_driver.py"
ENVIRONMENT = os.environ | {
    "RAY_AUTH_MODE": "disabled",
    "PYTHONPATH": os.pathsep.join([str(DRIVER.parents[1]), os.environ.get("PYTHONPATH", "")]),
}
TIMES = ("seconds", "mfu", "memory_bytes")


def figures(artifact: Artifact) -> list[dict[str, Any]]:
    """The curve, without how long it took."""
    return [{k: v for k, v in row.items() if k not in TIMES} for row in artifact.lines("metrics.jsonl")]


def workers_of(pid: int) -> list[psutil.Process]:
    """The training workers among the descendants of a process."""
    found: list[psutil.Process] = []
    for child in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "RayTrainWorker" in " ".join(child.cmdline()):
                found.append(child)
    return found


def wait_for_state(store: Store, made: Training, step: int, timeout_s: float = 120) -> int:
    deadline = time.monotonic() + timeout_s
    while (newest := newest_state(store, made)) < step:
        assert time.monotonic() < deadline, f"no state of step {step}, the newest is of {newest}"
        time.sleep(0.01)
    return newest


@contextlib.contextmanager
def meanwhile(act: Callable[[], None]) -> Generator[None]:
    """Do something beside; what it raises is raised here."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except BaseException as error:  # noqa: BLE001 - raised below, in the thread of the test
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield
    thread.join()
    if failed:
        raise failed[0]


def test_a_killed_worker_is_replaced_and_the_curve_goes_on(store: Store, ray_session: None, tmp_path: Path) -> None:
    made = training(store, num_workers=1)

    def kill() -> None:
        wait_for_state(store, made, 5)
        (worker,) = workers_of(os.getpid())
        worker.kill()

    with meanwhile(kill):
        artifact = train(store, made)
    (step,) = artifact.stats["went_on_from"]
    assert 5 <= step < 40
    whole = Workers(1, training(store), tmp_path / "whole", open_store(str(tmp_path / "elsewhere"))).wait()
    undisturbed = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert figures(artifact) == [{k: v for k, v in row.items() if k not in TIMES} for row in undisturbed]
    assert artifact.read("model.safetensors") == (whole / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_what_always_kills_a_worker_ends_the_training(store: Store, ray_session: None) -> None:
    """Not a fourth time: a worker that has too little memory would die for ever."""
    made = training(store, num_workers=1, steps=2000)
    deaths: list[int] = []

    def kill() -> None:
        for _ in range(4):
            deaths.append(wait_for_state(store, made, (deaths or [0])[-1] + 3))
            (worker,) = workers_of(os.getpid())
            worker.kill()

    with meanwhile(kill), pytest.raises(TrainingFailedError):
        train(store, made)
    assert len(deaths) == 4


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_killed_driver_goes_on_by_the_same_command(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    store = open_store(str(tmp_path / "store"))
    changed: dict[str, Any] = {"num_workers": 1 + seed % 2, "steps": 120, "save_every_s": 0.1}
    made = training(store, **changed)
    command = [sys.executable, str(DRIVER), str(tmp_path / "store"), json.dumps(changed)]
    with (tmp_path / "log").open("w") as log:
        for _ in range(2):
            driver = subprocess.Popen(command, env=ENVIRONMENT, stdout=log, stderr=log)
            try:
                wait_for_state(store, made, newest_state(store, made) + rng.randint(1, 20))
                descendants = psutil.Process(driver.pid).children(recursive=True)
            finally:
                driver.kill()
                driver.wait()
            psutil.wait_procs(descendants, timeout=30)
        subprocess.run(command, env=ENVIRONMENT, stdout=log, stderr=log, check=True)
    found = train(store, made)
    assert len(found.stats["went_on_from"]) == 2
    alone = training(store, **(changed | {"num_workers": 0}))
    whole = Workers(1, alone, tmp_path / "whole", open_store(str(tmp_path / "elsewhere"))).wait()
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    got = figures(found)
    if changed["num_workers"] == 1:
        assert got == [{k: v for k, v in row.items() if k not in TIMES} for row in rows]
    # Of two workers sums have another order, and a training doubles what rounding began.
    assert [row["loss"] for row in got[:25]] == pytest.approx([row["loss"] for row in rows[:25]], rel=1e-3)


@contextlib.contextmanager
def two_machines(store: LocalStore, changed: dict[str, Any], log: Path) -> Generator[subprocess.Popen[str]]:
    """A driver with a cluster of its own, of which one machine can be taken away."""
    command = [sys.executable, str(DRIVER), store.root, json.dumps(changed), "machines"]
    with log.open("w") as out:
        driver = subprocess.Popen(command, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=out, stderr=out, text=True)
        try:
            yield driver
        finally:
            assert driver.stdin is not None
            driver.stdin.close()
            descendants = psutil.Process(driver.pid).children(recursive=True) if driver.poll() is None else []
            driver.kill()
            driver.wait()
            for process in descendants:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()


def tell(driver: subprocess.Popen[str], word: str) -> None:
    assert driver.stdin is not None
    driver.stdin.write(f"{word}\n")
    driver.stdin.flush()


@pytest.mark.slow
def test_a_training_shrinks_and_grows_with_its_cluster_and_sees_the_same_samples(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path / "store"))
    # Ray looks for new machines once a minute.
    changed: dict[str, Any] = {"num_workers": (1, 2), "steps": 4000, "save_every_s": 0.2}
    made = training(store, **changed)
    with two_machines(store, changed, tmp_path / "log") as driver:
        reached = wait_for_state(store, made, 20)
        tell(driver, "remove")
        wait_for_state(store, made, reached + 100)
        tell(driver, "add")
        assert driver.wait(540) == 0, (tmp_path / "log").read_text()[-3000:]
    found = train(store, made)
    assert len(found.stats["went_on_from"]) == 2, "once with fewer, once with more"
    whole = Workers(1, training(store, steps=4000), tmp_path / "whole").wait(300)
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    got = figures(found)
    for name in ("step", "target_tokens", "example_tokens", "learning_rate"):
        assert [row[name] for row in got] == [row[name] for row in rows]
    assert [row["loss"] for row in got[:25]] == pytest.approx([row["loss"] for row in rows[:25]], rel=1e-3)


@pytest.mark.slow
def test_a_machine_that_is_about_to_go_leaves_a_state_behind(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path / "store"))
    changed: dict[str, Any] = {"num_workers": (1, 2), "steps": 1500, "save_every_s": 3600}
    made = training(store, **changed)
    with two_machines(store, changed, tmp_path / "log") as driver:
        while "step 7/" not in (tmp_path / "log").read_text():
            assert driver.poll() is None
            time.sleep(0.2)
        assert newest_state(store, made) == 0, "by the clock none is due for an hour"
        tell(driver, "drain")
        wait_for_state(store, made, 1, timeout_s=20)
        time.sleep(5)
        tell(driver, "remove")
        assert driver.wait(300) == 0, (tmp_path / "log").read_text()[-3000:]
    found = train(store, made)
    assert found.stats["went_on_from"]
    assert found.stats["went_on_from"][0] > 1
    assert [row["step"] for row in figures(found)] == list(range(1, 1501))
