"""One trial: select → train → evaluate through the artifact store, as a function that Ray Tune runs.

It tells Tune of dev losses as they come, enters itself in the ledger, and then tells Tune that it has ended.
"""

import math
import time
from dataclasses import dataclass, replace
from typing import Any

from retort import logs, pipeline
from retort.combining import parse
from retort.config import Recipe
from retort.logs import Log
from retort.run import Run, index
from retort.store import Store
from retort.store.artifacts import Artifact
from retort.store.claims import present
from retort.sweep import ledger
from retort.sweep.ledger import Row
from retort.sweep.space import student_of, trial_recipe


@dataclass(frozen=True)
class Trials:
    """What all trials of a sweep share."""

    recipe: Recipe
    store: Store
    log: Log

    def run(self, config: dict[str, Any]) -> None:
        """Run the trial of `config` (`params`, `id`), unless it has ended before."""
        from ray import tune

        # An actor is used for one trial after the other.
        run = f"{self.recipe.name}-{config['id']}"
        logs.configure(replace(self.log, run=run), f"trial {config['id']}: %(message)s", replaces=True)
        pipeline.quieten_data()
        row = ledger.get(self.store, self.recipe.name, config["id"])
        if row is None:
            try:
                row = self._run(config["id"], config["params"])
            except ValueError as error:
                # Settings that cannot be: to try them again would end the same way. Ray wraps what a task raises.
                cause = getattr(error, "cause", error)
                if type(cause) is not ValueError:
                    raise
                tune.report({"failure": str(cause), "has_ended": True})
                return
        tune.report({"step": row.step, "value": row.value, "has_ended": True})

    def _run(self, trial_id: str, params: dict[str, Any]) -> Row:
        began = time.monotonic()
        recipe = trial_recipe(self.recipe, params)
        recipe = recipe.model_copy(update={"name": f"{self.recipe.name}-{trial_id}"})
        with present(self.store):
            run = pipeline.carry_out(recipe, self.store, "evaluate", tells_tune=True)
            made = index(run)
        scores = read_scores(run, recipe.student[0].id)
        # Of a pair of students the first speaks, as it does to Tune.
        checkpoint = next(iter(run.artifacts["checkpoint"].values()))
        row = Row(
            id=trial_id,
            params=params,
            state="finished",
            run=made.prefix,
            value=value_of(scores, recipe, task_of(self.recipe), decode_of(self.recipe)),
            scores=scores,
            step=checkpoint.stats["steps"],
            dev_loss=checkpoint.stats["best_dev_loss"],
            curve=read_curve(checkpoint),
            seconds=round(time.monotonic() - began, 3),
            created_at_s=time.time(),
            thought=voice_of(recipe),
        )
        ledger.put(self.store, self.recipe.name, row)
        return row


def read_scores(run: Run, name: str) -> list[dict[str, Any]]:
    """What a trial's student scored."""
    return run.artifacts["evaluation"][name].lines("scores.jsonl")


def read_curve(checkpoint: Artifact) -> list[tuple[int, float]]:
    """Steps and finite dev losses of a trial's training."""
    rows = checkpoint.lines("metrics.jsonl")
    found = [(row["step"], row["dev_loss"]) for row in rows if row["dev_loss"] is not None]
    return [(step, loss) for step, loss in found if math.isfinite(loss)]


def task_of(recipe: Recipe) -> str:
    """The task by which trials are compared."""
    assert recipe.sweep is not None
    return recipe.sweep.task or [*student_of(recipe).tasks, *recipe.evaluation.tasks][0]


def decode_of(recipe: Recipe) -> str:
    """The decode by which trials are compared."""
    assert recipe.sweep is not None
    return recipe.sweep.decode or recipe.evaluation.decodes[0]


def voice_of(recipe: Recipe) -> str:
    """What speaks for the swept student: the first combiner of its thoughts, else the first of these."""
    student = student_of(recipe) if recipe.sweep is not None else recipe.student[0]
    taught = recipe.find_corpus(student.corpus).taught
    combiners = [one for one in map(parse, recipe.evaluation.combine) if not one.is_upper_bound]
    return [*(one.text for one in combiners if set(one.thoughts) <= set(taught)), *taught][0]


def value_of(scores: list[dict[str, Any]], recipe: Recipe, task: str, decode: str) -> float:
    """The figure that trials are compared by: accuracy on one task under a decode."""
    wanted = task, voice_of(recipe), decode
    return next(row["accuracy"] for row in scores if (row["task"], row["thought"], row["decode"]) == wanted)
