"""What Ray Tune is given: the searcher that proposes trials, and the callback that watches them.

Both live in the driver. The searcher speaks to the Optuna study, the callback to the ledger (trials that were stopped),
to Prometheus, and to the log.
"""

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ray.tune import Callback
from ray.tune.search import Searcher

from retort.metrics import SweepMetrics
from retort.store import Store
from retort.sweep import ledger
from retort.sweep.config import Space
from retort.sweep.ledger import Row
from retort.sweep.space import Params, decoded, encoded
from retort.sweep.study import merged

if TYPE_CHECKING:
    from optuna import Study, Trial

logger = logging.getLogger(__name__)
REPEATS = 100
"""How often in a row TPE may propose what was tried before; then the sweep ends, and says so."""
GAUGES_EVERY_S = 5.0
"""Ray shows a gauge for 20 s after it was set."""


class Proposals(Searcher):
    """Trials for Ray Tune: the points of a list one by one, or what TPE proposes.

    In the study a trial's intermediate values are dev losses with the sign changed, as it maximises.
    """

    def __init__(
        self,
        study: "Study",
        tables: Sequence[Space],
        points: Sequence[Params] | None,
        identify: Callable[[Params], str],
        values: Mapping[str, float | None],
    ) -> None:
        super().__init__(metric="value", mode="max")
        self._study, self._identify = study, identify
        self._values = dict(values)
        """Of trials that have ended, by id; None of one that was stopped, or is running."""
        self._distributions = merged(tables)
        self._points: Iterator[Params] | None = None if points is None else iter(points)
        self._asked: dict[str, Trial] = {}

    def suggest(self, trial_id: str) -> Any:
        """The next trial, as `{"params": …, "id": …}`; `FINISHED` where there is none."""
        for _ in range(REPEATS):
            asked = self._ask()
            if asked is None:
                return Searcher.FINISHED
            params = decoded(asked.params)
            try:
                name = self._identify(params)
            except ValueError as error:
                # Choices that are well each by itself, such as two bounds.
                logger.warning("sweep: left out: %s", error)
                self._tell(asked, None, is_failure=True)
                continue
            if name not in self._values:
                self._values[name] = None
                self._asked[trial_id] = asked
                asked.set_user_attr("trial", name)
                return {"params": params, "id": name}
            # Tried before, or under way: TPE learns of a value once more, and nothing is run.
            self._tell(asked, self._values[name], is_failure=self._values[name] is None)
        logger.warning("sweep: TPE proposes what was tried before; expected a wider sweep.space, or fewer trials")
        return Searcher.FINISHED

    def _ask(self) -> "Trial | None":
        if self._points is None:
            return self._study.ask(self._distributions)
        params = next(self._points, None)
        if params is None:
            return None
        self._study.enqueue_trial({name: encoded(value) for name, value in params.items()})
        return self._study.ask({name: self._distributions[name] for name in params})

    def _tell(self, asked: "Trial", value: float | None, is_failure: bool = False) -> None:
        from optuna.trial import TrialState

        if value is not None and math.isfinite(value):
            self._study.tell(asked, value)
        else:
            self._study.tell(asked, state=TrialState.FAIL if is_failure else TrialState.PRUNED)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """A dev loss."""
        loss = result.get("dev_loss")
        if loss is not None and math.isfinite(loss) and trial_id in self._asked and not result.get("has_ended"):
            self._asked[trial_id].report(-loss, result["step"])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A trial ended: with a value, stopped early, or in vain."""
        asked = self._asked.pop(trial_id, None)
        if asked is not None:
            ended = result or {}
            if not ended.get("has_ended") and math.isfinite(ended.get("dev_loss", math.nan)):  # at which it was stopped
                asked.report(-ended["dev_loss"], ended["step"])
            self._values[asked.user_attrs["trial"]] = ended.get("value")
            self._tell(asked, ended.get("value"), is_failure=error or bool(ended.get("failure")) or not ended)

    def save(self, checkpoint_path: str) -> None:
        """Nothing is kept: the ledger is what there is to know."""

    def restore(self, checkpoint_path: str) -> None:
        """See `save`."""


class Watch(Callback):
    """Tells how trials stand, and enters in the ledger those that the scheduler stops."""

    def __init__(
        self, store: Store, name: str, num_trials: int, ended: Counter[str], values: Mapping[str, float | None]
    ) -> None:
        self.failures: dict[str, str] = {}
        self._store, self._name, self._num_trials, self._ended = store, name, num_trials, ended
        self._metrics = SweepMetrics(name)
        for trial_id, value in values.items():
            if value is not None:
                self._metrics.ended(trial_id, value)
        self._curves: dict[str, list[tuple[int, float]]] = {}
        self._told_at_s = 0.0

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Gauges, now and then."""
        if time.monotonic() - self._told_at_s > GAUGES_EVERY_S:
            self._told_at_s = time.monotonic()
            running = sum(trial.status == "RUNNING" for trial in trials)
            self._metrics.states({**self._ended, "running": running})

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial starts, or starts again."""
        self._curves[trial.config["id"]] = []
        told = ", ".join(f"{name} = {value}" for name, value in trial.config["params"].items())
        logger.info("sweep %s: trial %s starts: %s", self._name, trial.config["id"], told)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A dev loss."""
        if math.isfinite(result.get("dev_loss", math.nan)):
            self._curves[trial.config["id"]].append((result["step"], result["dev_loss"]))
            self._metrics.measured(trial.config["id"], result["step"], result["dev_loss"])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial ended by itself, or was stopped."""
        trial_id, result = trial.config["id"], trial.last_result
        if result.get("failure"):
            self._fail(trial_id, result["failure"])
            return
        if not result.get("has_ended"):
            ledger.put(self._store, self._name, self._stopped(trial, result))
        # One that was told to stop may have entered itself as finished before it heard of it: the ledger has it.
        row = ledger.get(self._store, self._name, trial_id)
        assert row is not None
        self._metrics.ended(trial_id, row.value)
        self._ended[row.state] += 1
        told = f"dev loss {row.dev_loss}" if row.value is None else f"{row.value:.1%}"
        done = self._ended["finished"] + self._ended["stopped"], self._num_trials
        logger.info("sweep %s: trial %s %s, %s; %d of %d trials done", self._name, trial_id, row.state, told, *done)

    def _stopped(self, trial: Any, result: dict[str, Any]) -> Row:
        """The entry of a trial that the scheduler stopped."""
        curve = self._curves[trial.config["id"]]
        return Row(
            id=trial.config["id"],
            params=trial.config["params"],
            state="stopped",
            run=None,
            value=None,
            scores=[],
            step=result["step"],
            dev_loss=min((loss for _, loss in curve), default=None),
            curve=curve,
            seconds=round(result["time_total_s"], 3),
            created_at_s=time.time(),
        )

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial's process or node died once too often, or it has a bug."""
        error = trial.error_file and trial.get_error()
        self._fail(trial.config["id"], " ".join(str(error or "its process died").strip().splitlines()[-1:]))

    def _fail(self, trial_id: str, why: str) -> None:
        self.failures[trial_id] = why
        self._ended["failed"] += 1
        self._metrics.ended(trial_id, None)
        logger.warning("sweep %s: trial %s failed: %s", self._name, trial_id, why)
