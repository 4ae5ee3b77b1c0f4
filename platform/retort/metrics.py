"""What sampling shows of itself: counters and gauges for Prometheus while it runs, one line of figures at its end.

Ray's agent on each node serves the metrics of that node's actors (`MetricsExportPort` of `ray.nodes()`, no token asked)
and puts `ray_` before their names. As Prometheus sees them:

    ray_retort_chains_total            ray_retort_segments_total         ray_retort_open_requests
    ray_retort_accepted_chains_total   ray_retort_segment_bytes_total    ray_retort_busy_share
    ray_retort_prompt_tokens_total     ray_retort_engine_starts_total
    ray_retort_output_tokens_total     ray_retort_stalls_total
                                       ray_retort_retries_total

The driver of a sweep sets `ray_retort_trials` (labels `sweep`, `state`), and of each trial `ray_retort_trial_value`,
`_step` and `_dev_loss` (labels `sweep`, `trial`). The others have the label `model`, and all have Ray's own
(`WorkerId`, `NodeAddress`, `SessionName` and others), so that a board adds up actors: `sum by (model)
(rate(ray_retort_output_tokens_total[1m]))`, `avg by (model) (ray_retort_busy_share)`. A counter is there from its first
event on, and stays when its actor is gone. What an actor counted reaches the agent every 10 s (Ray's
`metrics_report_interval_ms`), and what a killed one counted since is lost here; the pool has it.
"""

from collections.abc import Mapping, Sequence

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
SWEEP_GAUGES = {
    "trials": "Trials of a sweep by state.",
    "trial_value": "Accuracy of a trial that has finished.",
    "trial_step": "Step of the last dev loss of a trial.",
    "trial_dev_loss": "Last dev loss of a trial.",
}
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
