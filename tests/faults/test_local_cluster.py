"""A cluster that scales itself: machines come when there is work for them, go when there is none, the report is in S3,
and no secret is anywhere.
"""

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from local_cluster import LocalCluster
from recordings import recipe, write_recording
from retort.instances import instances
from retort.store import open_store
from s3_servers.processes import ACCESS_KEY, SECRET_KEY

STUDENT = """
[[student]]
id = "student"
base = "shipped:student"
corpus = "chains"
engine = "hf"
training = { steps = 10, batch_examples = 4, learning_rate = 1e-3, cpus_per_worker = 2, num_workers = 1 }
[evaluation]
tasks = ["arithmetic"]
max_new_tokens = 16
"""
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    "AWS_EC2_METADATA_DISABLED": "true",
}


def check_scaling(folder: Path, uri: str, *entrypoint: str) -> None:
    """Submit to a new cluster: from no machine to some of each type and back, with the report in the store."""
    with LocalCluster(folder, CREDENTIALS) as cluster:
        cluster.until({}, timeout_s=120)
        done = cluster.submit(*entrypoint, f"store={uri}")
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
        cluster.until({}, timeout_s=120)
        assert all(cluster.most(kind) >= 1 for kind in ("sampler", "verifier", "trainer")), cluster.told()
        print(cluster.told())
        assert cluster.types_with("_judge") == {"verifier"}, "verification ran on other machines"
        assert re.search(r"sampling \w+: 1 x \(1 CPU\): 0 of 1 have room, waiting for", done.stdout)
        found = re.search(r"^artifact: s3://[^?]*/(artifacts/report/\w+)\?", done.stdout, re.MULTILINE)
        assert found, done.stdout[-2000:]
        written = dict(objects(uri))
        assert any(key.startswith(found[1]) and key.endswith("index.html") for key in written)
        (told, *_), _ = instances(open_store(uri), 1)
        assert (told.state, told.submission.partition("_")[0]) == ("ended", "raysubmit")
        kinds = {"head (nothing)", "sampler (1 CPU)", "verifier (1 CPU, 1 verifier)", "trainer (2 CPU)"}
        assert told.machine_s.keys() == kinds, told
        assert all(seconds > 0 for seconds in told.machine_s.values()), told
        check_no_secrets(cluster, done.stdout + done.stderr, written)


def objects(uri: str) -> Iterator[tuple[str, bytes]]:
    """All that is in a store; of Parquet the rows, which are compressed."""
    store = open_store(uri)
    for each in store.objects(""):
        data = store.get(each.key)
        if each.key.endswith(".parquet"):
            data = json.dumps(pq.read_table(io.BytesIO(data)).to_pylist(), default=str).encode()
        yield each.key, data


def check_no_secrets(cluster: LocalCluster, output: str, written: dict[str, bytes]) -> None:
    """Neither the key of the store nor the cluster's token is in a log, an object, or what Ray tells of jobs."""
    secrets = [SECRET_KEY.encode(), cluster.token.encode()]
    logs = {str(path): path.read_bytes() for path in cluster.logs()}
    told = {"jobs": json.dumps(cluster.ask("/api/jobs/")).encode(), "output": output.encode()}
    assert any(b"artifact: s3://" in log for name, log in logs.items() if "job-driver" in name), "no log was read"
    assert ACCESS_KEY.encode() not in told["jobs"]
    places = {**logs, **told, **written}
    assert [name for name, text in places.items() if any(secret in text for secret in secrets)] == []
    planted = {**places, "planted": b"x" + secrets[0] + b"y"}
    assert [name for name, text in planted.items() if any(secret in text for secret in secrets)] == ["planted"]


def test_machines_come_with_work_and_go_without(tmp_path: Path, swift_uri: str) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(recipe(write_recording(tmp_path / "rec.jsonl", 4), str(tmp_path / "store"), 4, student=STUDENT))
    check_scaling(tmp_path, swift_uri, "jobs/distill.py", str(file))


@pytest.mark.slow
def test_the_demo_runs_on_a_cluster_that_scales_itself(tmp_path: Path, swift_uri: str) -> None:
    check_scaling(tmp_path, swift_uri, "jobs/distill.py", "jobs/recipes/demo.toml")
