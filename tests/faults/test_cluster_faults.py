"""What befalls a cluster beside machines that die: the same job twice, a head that ends, machines that differ."""

import json
import random
import re
import time
from collections import Counter
from pathlib import Path

import pytest

from faults import seam
from faults.job import ACTOR, Job, title_of
from faults.killing import wait_for_moment
from faults.ledger import Ledger, plan_of
from faults.test_node_kills import FLUSH_S, NUM_WANTED, job_on, pool_of, result_of
from machines import Machines
from namespaces import Namespace
from recordings import recipe, write_recording


def in_the_log(folder: Path) -> dict[str, str]:
    """Environment of machines whose engines write down what they are asked."""
    return {seam.LOG: str(folder / "seam.jsonl"), seam.NAME: "one"}


def asked(folder: Path) -> Counter[str]:
    return Counter(line.key for line in seam.Log(folder / "seam.jsonl").lines() if line.event == "asked")


@pytest.mark.slow
def test_the_same_job_twice_at_once_makes_one_set_of_artifacts(tmp_path: Path) -> None:
    with Machines(tmp_path / "machines", in_the_log(tmp_path)) as machines:
        one = job_on(machines, tmp_path, "once")
        two = Job(tmp_path / "once", tmp_path / "once/recipe.toml", f"sampling.flush_s={FLUSH_S}", name="two")
        two.environment |= one.environment
        with one, two:
            one.start()
            two.start()
            assert (one.wait(), two.wait()) == (0, 0), one.output[-2000:] + two.output[-2000:]
            assert result_of(tmp_path / "once", one.output) == result_of(tmp_path / "once", two.output)
    assert set(asked(tmp_path).values()) == {1}, "a chain was paid for twice"
    kinds = Counter(path.parent.parent.name for path in (tmp_path / "once/store/artifacts").rglob("manifest.json"))
    assert (kinds["corpus"], kinds["checkpoint"], kinds["run"], kinds["report"]) == (2, 1, 1, 1), kinds


@pytest.mark.slow
def test_a_job_whose_head_ended_goes_on_under_a_new_one(tmp_path: Path) -> None:
    with Machines(tmp_path / "machines", in_the_log(tmp_path)) as machines:
        with job_on(machines, tmp_path, "run") as job:
            job.start()
            job.until(lambda: "training student: step" in job.output, "it trained")
            durable = asked(tmp_path)
            machines.kill_all()
            assert job.wait() != 0, "it ended well without its cluster"
        machines.start()
        again = Job(tmp_path / "run", tmp_path / "run/recipe.toml", name="again")
        again.environment |= job.environment | {"RAY_ADDRESS": machines.address}
        with again:
            again.start()
            assert again.wait() == 0, again.output[-3000:]
            assert "to sample" not in again.output.partition("training student")[0]
            result_of(tmp_path / "run", again.output)
    assert asked(tmp_path) == durable, "chains were paid for again"


@pytest.mark.slow
def test_a_machine_that_is_cut_off_is_given_up_and_the_run_ends_without_it(tmp_path: Path) -> None:
    with Namespace() as far, Machines(tmp_path / "machines", in_the_log(tmp_path), 0, ip=far.ip_of_host) as machines:
        cut_off = machines.add(far)
        machines.until_joined(1)
        with job_on(machines, tmp_path, "run") as job:
            job.log = seam.Log(tmp_path / "seam.jsonl")
            file = tmp_path / "run/recipe.toml"
            with Ledger(job.log, pool_of(plan_of(file), tmp_path / "run/store"), FLUSH_S) as ledger:
                wait_for_moment(job, ledger, random.Random(0), job.start(), NUM_WANTED // 2)
                machines.add()
                machines.until_joined(2)
                far.cut()
                # It lives, reaches the store, and does not know that it has been given up.
                actors = [process.pid for process in cut_off.processes() if ACTOR in title_of(process)]
                ledger.hit("cut", time.monotonic(), actors)
                assert job.wait(600) == 0, job.output[-3000:]
                print(ledger.check(file))
            result_of(tmp_path / "run", job.output)


def run_on_a_machine_with_another_sympy(folder: Path, *overrides: str) -> str:
    """What a job says whose one worker has another version of a library than its driver."""
    site = folder / "site"
    metadata = site / "sympy-0.0.1.dist-info/METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: sympy\nVersion: 0.0.1\n")
    environment = {**in_the_log(folder), "PYTHONPATH": str(site)}
    with (
        Machines(folder / "machines", environment, 1) as machines,
        job_on(machines, folder, "run", *overrides) as job,
    ):
        job.start()
        assert job.wait() == 1, job.output[-3000:]
    assert not asked(folder), "chains were paid for on it"
    return job.output


REFUSAL = r"(?m)^(training student: )?machine \S+ has sympy 0\.0\.1 \(the driver has \d+\.[\d.]+\), driver \S+;"


def test_a_machine_with_other_versions_is_refused_with_both(tmp_path: Path) -> None:
    assert re.search(REFUSAL, run_on_a_machine_with_another_sympy(tmp_path))


@pytest.mark.slow
def test_a_machine_with_other_versions_does_not_train_either(tmp_path: Path) -> None:
    from_labels = ("student.student.corpus=labels", "evaluation.tasks=[]")
    assert re.search(REFUSAL, run_on_a_machine_with_another_sympy(tmp_path, *from_labels, "corpus.chains.teachers=[]"))


def test_a_machine_that_cannot_reach_the_store_ends_the_job_in_one_line(tmp_path: Path, swift_uri: str) -> None:
    without = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    environment = {**in_the_log(tmp_path), **without}
    with Machines(tmp_path / "machines", environment, 1) as machines, job_on(machines, tmp_path, "run") as job:
        file = tmp_path / "run/recipe.toml"
        file.write_text(file.read_text().replace(str(tmp_path / "run/store"), swift_uri))
        job.start()
        assert job.wait() == 1, job.output[-3000:]
    last = job.output.strip().splitlines()[-1]
    assert "redentials" in last, last
    assert not asked(tmp_path), "chains were paid for that nobody could keep"


@pytest.mark.slow
def test_a_run_larger_than_the_object_store_ends_well(tmp_path: Path) -> None:
    """Chains of 2 MB each: the shuffle of selection is several times what the machine's object store holds."""
    recording = write_recording(tmp_path / "rec.jsonl", 4)
    rows = [json.loads(line) for line in recording.read_text().splitlines()]
    for row in rows:
        row["completions"] = [f"{' '.join(['so'] * 700_000)} {text}" for text in row["completions"]]
    recording.write_text("".join(json.dumps(row) + "\n" for row in rows))
    store = tmp_path / "store"
    (tmp_path / "recipe.toml").write_text(recipe(recording, str(store), 4))
    with Machines(tmp_path / "machines", in_the_log(tmp_path), 1, object_store_bytes=80_000_000) as machines:
        environment = {"RAY_ADDRESS": machines.address, "RAY_AUTH_MODE": "disabled", seam.UNTIL: "curate"}
        with Job(tmp_path, tmp_path / "recipe.toml", environment=environment) as job:
            job.start()
            assert job.wait(600) == 0, job.output[-3000:]
        assert any("Spilled" in log for log in machines.logs()), "the object store was never short"
    assert "problems taught" in job.output
