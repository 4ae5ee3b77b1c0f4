"""What sampling, training and sweeps show of themselves: counters and gauges for Prometheus while they run.

Ray's agent on each node serves the metrics of that node's actors (`MetricsExportPort` of `ray.nodes()`, no token asked)
and puts `ray_` before their names. As Prometheus sees them:

    ray_retort_chains_total            ray_retort_segments_total         ray_retort_open_requests
    ray_retort_accepted_chains_total   ray_retort_segment_bytes_total    ray_retort_busy_share
    ray_retort_prompt_tokens_total     ray_retort_engine_starts_total
    ray_retort_output_tokens_total     ray_retort_stalls_total
                                       ray_retort_retries_total

    ray_retort_training_loss          ray_retort_training_step             ray_retort_training_memory_bytes
    ray_retort_training_dev_loss      ray_retort_training_steps            ray_retort_training_mfu (on GPUs)
    ray_retort_training_dev_accuracy  ray_retort_training_learning_rate    ray_retort_training_example_tokens_total
    ray_retort_training_restarts_total  ray_retort_training_padding_share  ray_retort_training_states_total

The first worker of a training sets these, with the label `student`, the name of its checkpoint; trainings of a sweep's
trials bear one student's name. The driver of a sweep sets `ray_retort_trials` (labels `sweep`, `state`), and of each
trial `ray_retort_trial_value`, `_step` and `_dev_loss` (labels `sweep`, `trial`). What sampling counts has the label
`model`, and all have Ray's own (`WorkerId`, `NodeAddress`, `SessionName` and others), so that a board adds up actors:
`sum by (model) (rate(ray_retort_output_tokens_total[1m]))`, `avg by (model) (ray_retort_busy_share)`, and takes of a
student the largest: `max by (student) (ray_retort_training_step)`. A counter is there from its first
event on, and stays when its actor is gone. What an actor counted reaches the agent every 10 s (Ray's
`metrics_report_interval_ms`), and what a killed one counted since is lost here; the pool has it.
"""

import sys
import threading
from collections import Counter as Counts
from collections.abc import Mapping, Sequence
from typing import Any

from retort.records import Chain

COUNTERS = {
    "chains": "Chains that finished.",
    "accepted_chains": "Chains accepted while sampling: right, or with an answer where no gold one is known.",
    "prompt_tokens": "Prompt tokens of finished chains, each chain's in full though siblings share their prefill.",
    "output_tokens": "Tokens that finished chains are made of.",
    "segments": "Segments written to pools.",
    "segment_bytes": "Bytes of the segments written to pools.",
    "engine_starts": "Engines started.",
    "stalls": "Engines that fell silent with requests open.",
    "retries": "Engines replaced, dead or silent, whose open requests were sampled again.",
}
GAUGES = {
    "open_requests": "Requests that an engine has been handed and has not answered.",
    "busy_share": "Share of the time an engine has been up in which it had a request open, from 0 to 1.",
}
TRAINING_COUNTERS = {
    "training_example_tokens": "Tokens of the examples learned from, each with its prompt, however it was computed.",
    "training_states": "States saved, from which a training goes on if it dies.",
    "training_restarts": "Trainings that went on from a saved state, each time after they had died.",
}
TRAINING_GAUGES = {
    "training_loss": "Loss of the last step, in nats per target token.",
    "training_dev_loss": "Last loss on dev examples.",
    "training_dev_accuracy": "Last share of dev problems answered right, from 0 to 1.",
    "training_step": "Steps taken.",
    "training_steps": "Steps that there are to be, unless it ends early.",
    "training_learning_rate": "Learning rate of the last step.",
    "training_padding_share": "Share of the positions of the last step that were padding, from 0 to 1.",
    "training_memory_bytes": "The most memory that the first worker has used so far.",
    "training_mfu": "Share of the GPUs' peak that the last step's products come to, from 0 to 1.",
}
SWEEP_GAUGES = {
    "trials": "Trials of a sweep by state.",
    "trial_value": "Accuracy of a trial that has finished.",
    "trial_step": "Step of the last dev loss of a trial.",
    "trial_dev_loss": "Last dev loss of a trial.",
}
GAUGES_EVERY_S = 5.0
"""Between two settings of the gauges of a training: Ray shows one for 20 s after it was set."""
OF_SESSION = ("seconds", "sampling_s", "engine_s", "busy_s", "engine_starts", "stalls", "replacements")
"""Figures of the session in which several plans of one model were sampled: each plan's stats have them in full."""


class SamplerMetrics:
    """The metrics of one actor that samples one model; `model` is a short name, such as the teacher's id.

    Where no Ray runs, it counts and nobody looks.
    """

    def __init__(self, model: str) -> None:
        from ray.util.metrics import Counter, Gauge

        keys, tags = ("model",), {"model": model}
        self._counters = {
            name: Counter(f"retort_{name}_total", text, keys).set_default_tags(tags) for name, text in COUNTERS.items()
        }
        self._gauges = {
            name: Gauge(f"retort_{name}", text, keys).set_default_tags(tags) for name, text in GAUGES.items()
        }

    def finished(self, chain: Chain, is_accepted: bool) -> None:
        """A chain ended."""
        self._add("chains")
        self._add("prompt_tokens", chain.num_prompt_tokens)
        self._add("output_tokens", chain.num_tokens)
        self._add("accepted_chains", int(is_accepted))

    def appended(self, num_bytes: int) -> None:
        """A segment became durable."""
        self._add("segments")
        self._add("segment_bytes", num_bytes)

    def engine_started(self) -> None:
        """An engine came up, the first or one in another's place."""
        self._add("engine_starts")

    def stalled(self) -> None:
        """An engine fell silent."""
        self._add("stalls")

    def replaced(self) -> None:
        """An engine was given up; its open requests are sampled again."""
        self._add("retries")

    def gauge(self, open_requests: int, busy_share: float) -> None:
        """How things stand now, to be said at least every 10 s: Ray shows a gauge for 20 s after it was set."""
        self._gauges["open_requests"].set(open_requests)
        self._gauges["busy_share"].set(busy_share)

    def _add(self, name: str, number: int = 1) -> None:
        if number:  # Ray refuses to add nothing
            self._counters[name].inc(number)


class TrainingMetrics:
    """The metrics of one training, which its first worker sets; `student` is the name of its checkpoint.

    A thread sets them every few seconds: a step may take 5 ms, or minutes after which Ray would have forgotten a gauge.
    """

    def __init__(self, student: str, steps: int) -> None:
        from ray.util.metrics import Counter, Gauge

        keys, tags = ("student",), {"student": student}
        self._counters = {
            name: Counter(f"retort_{name}_total", text, keys).set_default_tags(tags)
            for name, text in TRAINING_COUNTERS.items()
        }
        self._gauges = {
            name: Gauge(f"retort_{name}", text, keys).set_default_tags(tags) for name, text in TRAINING_GAUGES.items()
        }
        self._values: dict[str, float] = {"training_steps": steps}
        self._counts: Counts[str] = Counts()
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="training-metrics", daemon=True)
        self._thread.start()

    def saw(self, values: Mapping[str, float | None], example_tokens: int) -> None:
        """A step was taken; what is None stays as it was last known."""
        with self._lock:
            self._values |= {f"training_{name}": value for name, value in values.items() if value is not None}
            self._counts["training_example_tokens"] += example_tokens

    def saved(self) -> None:
        """A state was saved."""
        with self._lock:
            self._counts["training_states"] += 1

    def went_on(self) -> None:
        """The training goes on from a state."""
        with self._lock:
            self._counts["training_restarts"] += 1

    def close(self) -> None:
        """Tell the last of it."""
        self._is_over.set()
        self._thread.join()
        self._tell()

    def _run(self) -> None:
        while not self._is_over.wait(GAUGES_EVERY_S):
            self._tell()

    def _tell(self) -> None:
        with self._lock:
            values, counts, self._counts = dict(self._values), self._counts, Counts()
        for name, value in values.items():
            self._gauges[name].set(value)
        for name, number in counts.items():
            self._counters[name].inc(number)


def runs_ray() -> bool:
    """Whether this process is one of Ray's, or its driver; Ray is not imported for that."""
    ray: Any = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()


class SweepMetrics:
    """The gauges of one sweep, which its driver sets; `sweep` is the name of its recipe."""

    def __init__(self, sweep: str) -> None:
        from ray.util.metrics import Gauge

        self._sweep = sweep
        self._gauges = {
            name: Gauge(f"retort_{name}", text, ("sweep", "state" if name == "trials" else "trial"))
            for name, text in SWEEP_GAUGES.items()
        }
        self._values: dict[str, float] = {}
        self._running: dict[str, tuple[int, float]] = {}
        """Of trials under way: the last step and dev loss."""

    def states(self, numbers: Mapping[str, int]) -> None:
        """How many trials are in each state, and what is known of each: to be said at least every 10 s."""
        for state in ("running", "finished", "stopped", "failed"):
            self._gauges["trials"].set(numbers.get(state, 0), {"sweep": self._sweep, "state": state})
        for trial, value in self._values.items():
            self._set("trial_value", trial, value)
        for trial, (step, dev_loss) in self._running.items():
            self._set("trial_step", trial, step)
            self._set("trial_dev_loss", trial, dev_loss)

    def measured(self, trial: str, step: int, dev_loss: float) -> None:
        """A dev loss."""
        self._running[trial] = step, dev_loss

    def ended(self, trial: str, value: float | None) -> None:
        """A trial finished, or was stopped or failed, which leaves no value."""
        self._running.pop(trial, None)
        if value is not None:
            self._values[trial] = value

    def _set(self, name: str, trial: str, value: float) -> None:
        self._gauges[name].set(value, {"sweep": self._sweep, "trial": trial})


def together(plans: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The stats of plans that were sampled in one session as one: sums, but for what is the session's own."""
    return {
        key: (max if key in OF_SESSION else sum)(stats.get(key, 0) for stats in plans)
        for key in dict.fromkeys(key for stats in plans for key in stats)
    }


def summary_line(plans: Sequence[Mapping[str, float]]) -> str:
    """Chains, rates, acceptance and use of the engines in one line, from the stats of a session's plans.

    Rates run from the first request to the last durable chain; goodput is tokens of accepted chains per second.
    """
    stats = together(plans)
    chains, seconds, up_s = stats["sampled"], stats["sampling_s"], stats["engine_s"]
    if not chains or seconds <= 0:
        return f"0 chains sampled, {stats['reused']:,} reused"
    busy = f", engines busy {stats['busy_s'] / up_s:.1%}" if up_s > 0 else ""
    return (
        f"{chains:,} chains in {seconds:,.1f} s: {chains / seconds:,.1f} chains/s, "
        f"{stats['output_tokens'] / seconds:,.0f} tokens/s, accepted {stats['accepted'] / chains:.1%}, "
        f"goodput {stats['accepted_tokens'] / seconds:,.0f} accepted tokens/s{busy}"
    )
