"""Any number of workers, sharded or not, computes the training of one, and goes on with the states of another."""

import json
from pathlib import Path

import pytest
import torch

from faults.training_process import FORKS, Workers, curve, hold_shards, training
from retort.store import open_store


def assert_same_curve(got: Path, expected: Path, tolerance: float) -> None:
    """The same examples at each step, and the same losses, norms and dev losses. Rounding grows with each step."""
    assert len(curve(got)) == len(curve(expected)) > 0
    for one, other in zip(curve(got), curve(expected), strict=True):
        for name in ("step", "target_tokens", "example_tokens", "learning_rate"):
            assert one[name] == other[name]
        for name, times in (("loss", 1), ("dev_loss", 1), ("grad_norm", 10)):
            if other[name] is not None:
                assert one[name] == pytest.approx(other[name], rel=times * tolerance), (name, one["step"])


def test_four_workers_and_shards_compute_the_training_of_one(tmp_path: Path) -> None:
    made = training(open_store(str(tmp_path / "store")), steps=12, dev_every=4, chain_weights="per_problem")
    sharded = training(
        open_store(str(tmp_path / "store")), steps=12, dev_every=4, chain_weights="per_problem", shard=True
    )
    one = Workers(1, made, tmp_path / "one").wait()
    assert_same_curve(Workers(4, made, tmp_path / "four").wait(), one, 1e-5)
    shards = Workers(2, sharded, tmp_path / "sharded").wait()
    assert_same_curve(shards, one, 1e-5)
    losses = [row["loss"] for row in curve(one)]
    assert losses[-1] < 0.8 * losses[0], "nothing was learned: the same curve would be no news"
    of_one, of_shards = (weights(folder) for folder in (one, shards))
    assert of_one.keys() == of_shards.keys()
    for name, tensor in of_one.items():
        torch.testing.assert_close(of_shards[name], tensor, rtol=1e-3, atol=1e-4)


def test_no_worker_holds_all_gradients_of_a_student_that_is_shared_out(tmp_path: Path) -> None:
    workers = [FORKS.Process(target=hold_shards, args=(rank, tmp_path)) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("worlds", [((2, False), (1, False), (2, True)), ((2, True), (4, False), (1, False))])
def test_a_training_goes_on_with_another_number_of_workers(
    worlds: tuple[tuple[int, bool], ...], tmp_path: Path
) -> None:
    """Each number of workers takes some steps and dies; the next takes over its states, sharded or not."""
    store, changed = open_store(str(tmp_path / "store")), {"steps": 30, "dev_every": 10}
    whole = Workers(1, training(store, **changed), tmp_path / "whole").wait()
    *dying, (world, shard) = worlds
    for number, (some, sharded) in enumerate(dying):
        workers = Workers(some, training(store, **changed, shard=sharded), tmp_path / str(number), store)
        workers.wait_for_state(8 * (number + 1))
        workers.kill()
    last = Workers(world, training(store, **changed, shard=shard), tmp_path / "last", store).wait()
    assert_same_curve(last, whole, 1e-4)
    stats = json.loads((last / "stats.json").read_text())
    first, second = stats["went_on_from"]
    assert 8 <= first < second < 30
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(weights(last)[name], tensor, rtol=1e-3, atol=1e-4)
