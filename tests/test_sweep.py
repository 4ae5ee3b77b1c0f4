"""A sweep from end to end: what is sampled and run, and what is found when it is run again."""

from pathlib import Path

import pytest

from recordings import COUNTS
from retort.loading import load
from retort.store import open_store
from retort.store.artifacts import Artifact, open_artifact
from retort.store.gc import garbage, runs
from retort.sweep import driver, ledger
from retort.sweep.study import study_name
from sweeping import NUM_CHAINS, NUM_PROBLEMS, write_sweep

NO_PROBLEM = "{ selection.num_chains = [1], selection.min_pass_rate = [0.9], selection.max_pass_rate = [0.95] }"
BOTH = '{ selection.num_chains = [1], selection.rule = ["correct", "all"] }'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> Path:
    """A sweep of three trials that has ended, one of them in vain: it has nothing to learn from."""
    path = tmp_path_factory.mktemp("sweep")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_DATA_HOME", str(path / "home"))
        with pytest.raises(ValueError, match=r"sweep test: 1 of 3 trials failed, the first \(\w+\): corpus is empty"):
            sweep(write_sweep(path), f"sweep.space=[{BOTH}, {NO_PROBLEM}]", "sweep.split=dev")
    return path


def sweep(recipe_file: Path, *overrides: str) -> Artifact:
    recipe = load(recipe_file, overrides)
    return driver.carry_out(recipe, open_store(recipe.store))


def entries(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "store/sweeps/test/trials").iterdir()}


def test_a_trial_is_entered_with_what_it_scored(folder: Path) -> None:
    store = open_store(str(folder / "store"))
    rows = ledger.rows(store, "test")
    assert {row.params["selection.rule"] for row in rows.values()} == {"correct", "all"}
    for row in rows.values():
        assert (row.state, row.step, row.params["selection.num_chains"]) == ("finished", 6, 1)
        assert [step for step, _ in row.curve] == [2, 4, 6]
        assert row.dev_loss == min(loss for _, loss in row.curve)
        (score,) = row.scores
        assert (score["thought"], score["decode"], score["accuracy"]) == ("cot", "greedy", row.value)
        made = open_artifact(store, str(row.run))
        assert made is not None
        assert made.manifest["config"]["name"] == f"test-{row.id}"
        (events,) = (folder / "home/retort/tune" / study_name("test", store.uri) / row.id).glob("events.out.tfevents.*")
        assert b"dev_loss" in events.read_bytes(), "what TensorBoard reads"


@pytest.mark.slow
def test_a_wider_space_runs_what_is_new_and_samples_what_is_missing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(folder / "home"))
    before = entries(folder)
    caplog.set_level("INFO")
    made = sweep(folder / "sweep.toml", "sweep.split=dev")
    after = entries(folder)
    assert {name: after[name] for name in before} == before, "finished trials were run again"
    assert len(after) == 4
    drawn = f"{NUM_PROBLEMS * NUM_CHAINS} chains wanted, {NUM_PROBLEMS} reused, {NUM_PROBLEMS * 3} to sample"
    assert any(drawn in message for message in caplog.messages), caplog.messages
    run = open_artifact(made.store, f"artifacts/run/{made.manifest['inputs']['run']}/")
    assert run is not None
    assert set(run.manifest["inputs"]["trial"]) == {"tested", *(name.removesuffix(".json") for name in after)}
    made_again = sweep(folder / "sweep.toml", "sweep.split=dev")
    assert made_again.id == made.id
    assert entries(folder) == after


@pytest.mark.slow
def test_trials_that_train_with_workers_of_ray_train_find_room(
    tmp_path: Path, ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    path = write_sweep(tmp_path)
    sweep(path, "student.cot.training.num_workers=1", "sweep.scheduler=asha", "sweep.reduction_factor=2")
    rows = ledger.rows(open_store(str(tmp_path / "store")), "test").values()
    assert len(rows) == 4, "two trials at a time, each with a worker that wants one of two CPUs"
    assert all(row.curve for row in rows), "dev losses come through Ray Train"


def test_trials_that_can_never_train_are_refused_when_their_chains_are_there(folder: Path) -> None:
    swept = (f"sweep.space=[{BOTH}, {NO_PROBLEM}]", "sweep.split=dev")
    wide = (*swept, "student.cot.training.num_workers=64", "student.cot.training.learning_rate=3e-3")
    with pytest.raises(ValueError, match=r"training cot: 64 x \(1 CPU\): there is room for \d"):
        sweep(folder / "sweep.toml", *wide)


def test_what_its_trials_need_is_kept_with_a_sweep(folder: Path) -> None:
    store = open_store(str(folder / "store"))
    trials = {row.id: str(row.run) for row in ledger.rows(store, "test").values()}
    sweeps = [run for run in runs(store) if run.name == "test"]
    kept = {each.prefix for each in garbage(store, [sweeps[-1].id], older_than_days=0)}
    assert not kept & set(trials.values())
    (one, *_) = trials.values()
    others = {each.prefix for each in garbage(store, [one.rstrip("/").rsplit("/", 1)[1]], older_than_days=0)}
    assert set(trials.values()) - {one} <= others, "without the sweep they go"


def test_the_best_of_trials_on_dev_problems_alone_sees_the_test_problems(folder: Path) -> None:
    store = open_store(str(folder / "store"))
    rows = ledger.rows(store, "test")
    assert {row.scores[0]["problems"] for row in rows.values()} == {COUNTS["dev"]}
    tested = [run for run in runs(store) if run.name.endswith("-tested")]
    best = ledger.best(rows)
    assert best is not None
    assert f"test-{best.id}-tested" in {run.name for run in tested}
    for run in tested:
        made = open_artifact(store, f"artifacts/run/{run.id}/")
        assert made is not None
        evaluated = open_artifact(store, made.manifest["inputs"]["evaluation"]["cot"])
        assert evaluated is not None
        assert evaluated.lines("scores.jsonl")[0]["problems"] == COUNTS["test"]
