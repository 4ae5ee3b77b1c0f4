"""The jobs as users start them: on this machine, and submitted to a head node that has no `retort` installed."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from recordings import recipe, write_recording

ROOT = Path(__file__).parent.parent
SITE_PACKAGES = next(path for path in sys.path if path.endswith("site-packages"))


def job(name: str, *arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, f"jobs/{name}.py", *arguments],
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(recipe(write_recording(tmp_path / "rec.jsonl", 4), str(tmp_path / "store"), 4))
    return path


def test_a_dry_run_prints_the_plan_and_starts_nothing(recipe_file: Path) -> None:
    done = job("distill", str(recipe_file), "teacher.rec.num_chains=3", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "48 problems, 144 chains wanted, 0 present, 144 missing" in done.stdout
    assert "tokens" in done.stdout
    assert "Ray" not in done.stdout + done.stderr
    assert not list(recipe_file.parent.glob("store/pools/*/segments"))


@pytest.mark.slow
def test_a_recording_of_one_problem_in_many_is_selected_from(recipe_file: Path) -> None:
    recording = recipe_file.parent / "rec.jsonl"
    recording.write_text(recording.read_text().splitlines()[0])
    done = job("curate", str(recipe_file))
    assert done.returncode == 0, done.stderr[-2000:]
    assert "1 problems taught" in done.stderr


@pytest.mark.slow
def test_a_recording_of_nothing_ends_in_one_line(recipe_file: Path) -> None:
    recording = recipe_file.parent / "rec.jsonl"
    recording.write_text('{"question": "Another?", "thought": "cot", "completions": ["1"]}')
    done = job("curate", str(recipe_file))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("sampling rec, cot: the recording holds none of the 192")
    status = job("status", str(recipe_file.parent / "store")).stdout
    assert re.search(r"test \(curate\) failed at .*: sampling rec, cot: the recording holds none of the 192", status)


def test_single_stages_end_with_their_artifact_and_are_found_the_second_time(recipe_file: Path) -> None:
    first = job("curate", str(recipe_file))
    assert first.returncode == 0, first.stderr[-2000:]
    last = first.stdout.strip().splitlines()[-1]
    assert re.fullmatch(r"artifact: file:///.*/artifacts/run/[0-9a-f]{24}", last)
    assert Path(last.removeprefix("artifact: file://"), "manifest.json").is_file()
    assert "192 chains wanted, 0 reused, 192 to sample" in first.stderr
    second = job("curate", str(recipe_file))
    assert second.stdout.strip().splitlines()[-1] == last
    assert "to sample" not in second.stderr
    assert "selection:" not in second.stderr
    told = json.loads(job("status", str(recipe_file.parent / "store"), "--json").stdout)
    made = {(run["state"], stage["stage"], stage["is_made"]) for run in told["runs"] for stage in run["stages"]}
    stages = ("problems", "sampling", "verdicts", "corpus")
    assert made == {("ended", stage, is_made) for stage in stages for is_made in (True, False)}
    assert [run["cost"].get("rec", {}).get("sampled") for run in told["runs"]] == [None, 192]
    assert all(re.fullmatch("[0-9a-f]{8}", run["ray_job"]) for run in told["runs"])


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture
def bare_node(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A head node with token authentication whose Python has every dependency but not `retort`; its environment."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "node")], check=True)
    (site,) = (tmp_path / "node/lib").glob("python*/site-packages")
    # A .pth names the packages' folder; .pth files inside that folder, such as retort's own, are then not read.
    (site / "dependencies.pth").write_text(SITE_PACKAGES)
    dashboard = free_port()
    environment = {
        **{name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "RAY_ADDRESS")},
        "PATH": f"{tmp_path}/node/bin:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "RAY_AUTH_MODE": "token",
        "RAY_ADDRESS": f"http://127.0.0.1:{dashboard}",
    }
    python = str(tmp_path / "node/bin/python")
    assert subprocess.run([python, "-c", "import retort"], env=environment, capture_output=True, check=False).returncode
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/auth_token").write_text("0123456789abcdef" * 4)
    arguments = [
        *("start", "--head", "--block", "--num-cpus=2", "--disable-usage-stats", "--node-ip-address=127.0.0.1"),
        *(f"--port={free_port()}", f"--ray-client-server-port={free_port()}", f"--temp-dir=/tmp/ray-{os.getpid()}"),
        *("--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"),
        f"--dashboard-agent-listen-port={free_port()}",
    ]
    head = subprocess.Popen(
        [python, "-m", "ray.scripts.scripts", *arguments],
        env={name: value for name, value in environment.items() if name != "RAY_ADDRESS"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 90
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", dashboard)) == 0:
                break
        assert head.poll() is None, "the head node ended"
        assert time.monotonic() < deadline, "the head node did not come up"
        time.sleep(0.2)
    yield environment
    # Killed, not asked to end, which takes it half a minute.
    family = [psutil.Process(head.pid), *psutil.Process(head.pid).children(recursive=True)]
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    head.wait()
    psutil.wait_procs(family, timeout=10)


def submit_when_up(environment: dict[str, str], recipe_file: Path) -> subprocess.CompletedProcess[str]:
    """A head node listens before its job agent is there."""
    deadline = time.monotonic() + 90
    while True:
        done = submit(environment, recipe_file)
        if "No available agent" not in done.stderr or time.monotonic() > deadline:
            return done
        time.sleep(1)


def submit(environment: dict[str, str], recipe_file: Path) -> subprocess.CompletedProcess[str]:
    command = [f"{environment['HOME']}/node/bin/python", "-m", "ray.scripts.scripts", "job", "submit"]
    options = ["--working-dir", ".", "--runtime-env", "cluster/runtime-env.yaml"]
    entrypoint = ["--", "python", "jobs/curate.py", str(recipe_file)]
    return subprocess.run(
        [*command, *options, *entrypoint],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_a_submitted_job_runs_where_retort_is_not_installed(bare_node: dict[str, str], recipe_file: Path) -> None:
    done = submit_when_up(bare_node, recipe_file)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert re.search(r"artifact: file:///.*/artifacts/run/[0-9a-f]{24}", done.stdout)
    refused = submit({**bare_node, "RAY_AUTH_MODE": "disabled"}, recipe_file)
    assert refused.returncode != 0, "a submission without the token was accepted"
