"""Metrics: what a real Prometheus reads of a real Ray in which actors count, and the line at the end of sampling."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from retort.metrics import (
    COUNTERS,
    GAUGES,
    SWEEP_GAUGES,
    TRAINING_COUNTERS,
    TRAINING_GAUGES,
    SamplerMetrics,
    summary_line,
    together,
)

PROMETHEUS = os.environ.get("RETORT_PROMETHEUS", "/usr/bin/prometheus")
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
PATIENCE_S = 60
CONFIG = """\
global: {{scrape_interval: 500ms, scrape_timeout: 400ms}}
scrape_configs:
  - job_name: ray
    static_configs: [{{targets: ["{target}"]}}]
"""
# Two actors sample `tiny` and one `large`; told to go on, it kills the second of `tiny` and samples once more. Another
# is the first worker of a training on a CPU, which has died before and measures no accuracy.
DRIVER = """\
import json, os, signal, sys
import ray
from retort.metrics import SamplerMetrics, SweepMetrics
from retort.records import Chain
from retort.training.config import TrainingConfig
from retort.training.progress import StepMetrics
from retort.training.telling import Teller

@ray.remote(num_cpus=0)
class Worker:
    def train(self, is_first):
        config = TrainingConfig(steps=8, batch_examples=2, learning_rate=0.5)
        self.teller = Teller(config, "cot" if is_first else "other", is_first, tells_tune=False)
        self.teller.went_on()
        for step, dev_loss in ((6, 3.5), (7, None)):
            row = StepMetrics(step, 0.25 * step, dev_loss, None, 0.5, 1.0, 10, 30, 25, 0.125, None, 4096, 0.1)
            self.teller.see(row)
            self.teller.saved()

@ray.remote(num_cpus=0)
class Sampler:
    def __init__(self, model):
        self.metrics = SamplerMetrics(model)

    async def sample(self, chains):
        self.metrics.engine_started()
        for prompt_tokens, tokens, is_accepted in chains:
            chain = Chain("hash", 0, "prompt", "text", "stop", prompt_tokens, tokens, 96, 7, "p", "cot", 0.0)
            self.metrics.finished(chain, is_accepted)
        self.metrics.appended(4096)
        self.metrics.gauge(open_requests=len(chains), busy_share=0.75)
        return os.getpid()

    async def fail(self):
        self.metrics.stalled()
        self.metrics.replaced()
        self.metrics.engine_started()

answers, sys.stdout = sys.stdout, sys.stderr  # Ray has things to say as well
settings = {"metrics_report_interval_ms": 1000}
ray.init("local", _temp_dir=sys.argv[1], _node_ip_address="127.0.0.1", num_cpus=1, include_dashboard=False,
         object_store_memory=100_000_000, log_to_driver=False, _system_config=settings)
tiny, doomed, large = (Sampler.remote(model) for model in ("tiny", "tiny", "large"))
ray.get(tiny.sample.remote([(30, 40, True), (30, 50, False), (0, 0, False)]))
pid = ray.get(doomed.sample.remote([(20, 10, True)]))
ray.get([large.sample.remote([(100, 200, False)]), large.fail.remote()])
workers = [Worker.remote(), Worker.remote()]
ray.get([worker.train.remote(number == 0) for number, worker in enumerate(workers)])
sweep = SweepMetrics("small")
sweep.measured("3fa94c", 4, 0.5)
sweep.ended("a001b2", 0.25)
sweep.states({"running": 1, "finished": 2})
node = ray.nodes()[0]
print(json.dumps([node["NodeManagerAddress"], node["MetricsExportPort"]]), file=answers, flush=True)
sys.stdin.readline()
os.kill(pid, signal.SIGKILL)
try:
    ray.get(doomed.__ray_ready__.remote())
except ray.exceptions.ActorDiedError:
    ray.get(tiny.sample.remote([(30, 5, True)]))
    print("dead", file=answers, flush=True)
sys.stdin.readline()
ray.shutdown()
"""


@dataclass
class Scraped:
    """A Prometheus that scrapes a Ray, and the driver of that Ray."""

    url: str
    driver: subprocess.Popen[str]

    def go_on(self) -> str:
        """Tell the driver to go on; what it says then."""
        assert self.driver.stdin is not None
        assert self.driver.stdout is not None
        self.driver.stdin.write("\n")
        self.driver.stdin.flush()
        return self.driver.stdout.readline().strip()

    def series(self, query: str) -> list[tuple[dict[str, str], float]]:
        """Labels and value of each series that a query finds now."""
        with OPENER.open(f"{self.url}/api/v1/query?{urllib.parse.urlencode({'query': query})}", timeout=10) as answer:
            found = json.load(answer)["data"]["result"]
        return [(one["metric"], float(one["value"][1])) for one in found]

    def by_model(self, query: str) -> dict[str, float]:
        return {labels["model"]: value for labels, value in self.series(query)}


@contextmanager
def ended(process: subprocess.Popen[str]) -> Generator[subprocess.Popen[str]]:
    """A process that is gone afterwards, and all that it started."""
    try:
        yield process
    finally:
        family = [*psutil.Process(process.pid).children(recursive=True)] if process.poll() is None else []
        process.kill()
        for child in family:
            if child.is_running():
                child.kill()
        process.communicate()


def until(read: Callable[[], Any], wanted: Any) -> None:
    """Wait until what is read is what is wanted."""
    limit, got = time.monotonic() + PATIENCE_S, None
    while time.monotonic() < limit:
        try:
            if (got := read()) == wanted:
                return
        except urllib.error.URLError as error:
            got = error
        time.sleep(0.2)
    pytest.fail(f"after {PATIENCE_S} s: got {got}, expected {wanted}")


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    assert Path(PROMETHEUS).exists(), f"{PROMETHEUS} is missing: apt-get install prometheus, or set RETORT_PROMETHEUS"
    folder = tmp_path_factory.mktemp("prometheus")
    with ExitStack() as stack:
        # Not below pytest's folder: the names of Ray's sockets would be too long.
        ray_folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="retort-ray-", ignore_cleanup_errors=True))
        # Ray asks for a token everywhere but at the port of the metrics.
        environment = {**os.environ, "RAY_AUTH_MODE": "token"}
        command = [sys.executable, "-c", DRIVER, ray_folder]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with (folder / "driver.log").open("w") as log:
            driver = stack.enter_context(ended(subprocess.Popen(command, env=environment, stderr=log, **pipes)))
        assert driver.stdout is not None
        address = driver.stdout.readline()
        assert address, (folder / "driver.log").read_text()
        (folder / "prometheus.yml").write_text(CONFIG.format(target="{}:{}".format(*json.loads(address))))
        with socket.create_server(("127.0.0.1", 0)) as taken:
            listen = f"127.0.0.1:{taken.getsockname()[1]}"
        options = ["--config.file=prometheus.yml", "--storage.tsdb.path=data", f"--web.listen-address={listen}"]
        with (folder / "prometheus.log").open("w") as log:
            stack.enter_context(
                ended(subprocess.Popen([PROMETHEUS, *options], cwd=folder, stdout=log, stderr=log, text=True))
            )
        yield Scraped(f"http://{listen}", driver)
        driver.communicate(timeout=PATIENCE_S)
        assert driver.returncode == 0, (folder / "driver.log").read_text()


def test_prometheus_reads_what_the_actors_of_each_model_counted(scraped: Scraped) -> None:
    counted = {
        "chains": {"tiny": 4, "large": 1},
        "accepted_chains": {"tiny": 2},
        "prompt_tokens": {"tiny": 80, "large": 100},
        "output_tokens": {"tiny": 100, "large": 200},
        "segments": {"tiny": 2, "large": 1},
        "segment_bytes": {"tiny": 8192, "large": 4096},
        "engine_starts": {"tiny": 2, "large": 2},
        "stalls": {"large": 1},
        "retries": {"large": 1},
    }
    assert set(counted) == set(COUNTERS)
    for name, expected in counted.items():
        until(lambda name=name: scraped.by_model(f"sum by (model) (ray_retort_{name}_total)"), expected)
    assert set(GAUGES) == {"open_requests", "busy_share"}
    until(lambda: scraped.by_model("sum by (model) (ray_retort_open_requests)"), {"tiny": 4, "large": 1})
    until(lambda: scraped.by_model("avg by (model) (ray_retort_busy_share)"), {"tiny": 0.75, "large": 0.75})


def test_prometheus_reads_how_far_a_training_is_from_its_first_worker(scraped: Scraped) -> None:
    gauges = {"loss": 1.75, "dev_loss": 3.5, "step": 7, "steps": 8, "learning_rate": 0.5, "padding_share": 0.125}
    shown = {**gauges, "memory_bytes": 4096, "example_tokens_total": 60, "states_total": 2, "restarts_total": 1}
    for name, value in shown.items():
        query = f"max by (student) (ray_retort_training_{name})"
        until(lambda query=query: scraped.series(query), [({"student": "cot"}, value)])


def test_prometheus_reads_how_the_trials_of_a_sweep_stand(scraped: Scraped) -> None:
    states = {"running": 1.0, "finished": 2.0, "stopped": 0.0, "failed": 0.0}
    until(lambda: {one["state"]: value for one, value in scraped.series('ray_retort_trials{sweep="small"}')}, states)
    for name, expected in (("step", {"3fa94c": 4.0}), ("dev_loss", {"3fa94c": 0.5}), ("value", {"a001b2": 0.25})):
        query = f"ray_retort_trial_{name}"
        assert {one["trial"]: value for one, value in scraped.series(query)} == expected


def test_no_series_is_there_for_anything_but_models_and_processes(scraped: Scraped) -> None:
    until(lambda: len(scraped.series("ray_retort_chains_total")), 3)
    found = scraped.series('{__name__=~"ray_retort_.*"}')
    assert {labels["__name__"].removeprefix("ray_retort_").removesuffix("_total") for labels, _ in found} == {
        *COUNTERS,
        *GAUGES,
        *SWEEP_GAUGES,
        *TRAINING_COUNTERS,
        *TRAINING_GAUGES,
    } - {"training_mfu", "training_dev_accuracy"}, "a CPU has no MFU, and dev problems were not asked"
    rays_own = {"__name__", "instance", "job", "Component", "NodeAddress", "SessionName", "Version", "WorkerId"}
    others = {label for labels, _ in found for label in labels if not label.startswith("otel_scope_")} - rays_own
    assert others == {"model", "student", "sweep", "state", "trial"}


def test_what_a_killed_actor_counted_stays(scraped: Scraped) -> None:
    until(lambda: scraped.by_model("sum by (model) (ray_retort_output_tokens_total)"), {"tiny": 100, "large": 200})
    assert scraped.go_on() == "dead"
    until(lambda: scraped.by_model("sum by (model) (ray_retort_output_tokens_total)"), {"tiny": 105, "large": 200})
    assert len(scraped.series("ray_retort_output_tokens_total")) == 3


def test_without_ray_nothing_is_started_and_nobody_warns() -> None:
    program = (
        "from retort.metrics import SamplerMetrics\n"
        "metrics = SamplerMetrics('tiny')\n"
        "metrics.appended(1); metrics.engine_started(); metrics.stalled(); metrics.replaced(); metrics.gauge(0, 0.0)\n"
        "import ray; print(ray.is_initialized())"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_several_metrics_of_one_model_live_in_one_process() -> None:
    first, second = SamplerMetrics("tiny"), SamplerMetrics("tiny")
    first.appended(10)
    second.appended(10)


STATS = {
    "wanted": 2000,
    "reused": 800,
    "sampled": 1200,
    "output_tokens": 60_000,
    "accepted": 900,
    "accepted_tokens": 42_000,
    "seconds": 50.0,
    "sampling_s": 24.0,
    "engine_s": 60.0,
    "busy_s": 45.0,
    "engine_starts": 2,
}


def test_one_line_says_how_sampling_went() -> None:
    assert summary_line([STATS]) == (
        "1,200 chains in 24.0 s: 50.0 chains/s, 2,500 tokens/s, accepted 75.0%, goodput 1,750 accepted tokens/s, "
        "engines busy 75.0%"
    )
    nothing = {**dict.fromkeys(STATS, 0), "reused": 2000}
    assert summary_line([nothing]) == "0 chains sampled, 2,000 reused"


def test_plans_of_one_session_add_up_their_chains_and_share_its_time() -> None:
    small = {**STATS, "reused": 0, "sampled": 300, "output_tokens": 15_000, "accepted": 300, "accepted_tokens": 6_000}
    both = together([STATS, small])
    assert {key for key in STATS if both[key] == STATS[key] + small[key]} == {
        "wanted",
        "reused",
        "sampled",
        "output_tokens",
        "accepted",
        "accepted_tokens",
    }
    assert {key for key in STATS if both[key] == STATS[key] == small[key]} == {
        "seconds",
        "sampling_s",
        "engine_s",
        "busy_s",
        "engine_starts",
    }
    assert summary_line([STATS, small]) == (
        "1,500 chains in 24.0 s: 62.5 chains/s, 3,125 tokens/s, accepted 80.0%, goodput 2,000 accepted tokens/s, "
        "engines busy 75.0%"
    )
