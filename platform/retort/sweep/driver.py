"""The sweep: chains for all trials at once, the trials that have not ended, then the recipe's own run and its page.

Killed at any moment and started again, it goes on: chains are in the pool, stages in the store, trials in the ledger.
"""

import contextlib
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Generator, Mapping
from dataclasses import asdict, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import platformdirs

from retort import logs, pipeline
from retort.cluster import live
from retort.cluster.demands import check_fits
from retort.config import Recipe, Teacher
from retort.report import report
from retort.run import Run, index, prepare
from retort.store import Store, address
from retort.store.artifacts import Address, Artifact, Writer, find, open_artifact
from retort.store.claims import Session
from retort.store.hashing import digest
from retort.sweep import ledger
from retort.sweep.checks import check
from retort.sweep.config import Range, Space, SweepConfig
from retort.sweep.ledger import Row
from retort.sweep.space import Params, corpora, drawn, ends, grid, own, student_of, swept, trial_recipe
from retort.sweep.study import belonging, rebuild, storage_url, study_name
from retort.sweep.trial import Trials, decode_of, task_of, voice_of

logger = logging.getLogger(__name__)
VERSION = 2
TRIALS = ("trials",)
"""What a driver claims of a sweep."""
POLL_S = 2.0
MOST_TRIALS = 16
"""Trials at a time where a recipe does not say: each has half a GB of the driver's machine for its own process."""


class Sweep:
    """A sweep under way: its recipe, and which of its trials have ended."""

    def __init__(self, recipe: Recipe, store: Store) -> None:
        check(recipe)
        self.recipe = with_sample_counts(recipe)
        self.config: SweepConfig = swept(recipe)
        self.store = store

    @cached_property
    def points(self) -> list[Params] | None:
        """All points of a grid or of a random search, in order; None where TPE proposes them."""
        match self.config.searcher:
            case "grid":
                return grid(self.config.space)
            case "random":
                return drawn(self.config.space[0], self.config.trials or 0, self.config.seed)
            case "tpe":
                return None

    def identify(self, params: Params) -> str:
        """The id of a trial."""
        return ledger.identity(trial_recipe(self.recipe, params))

    @cached_property
    def named(self) -> dict[str, Params]:
        """The first point of each trial by its id, in order, where the points are known."""
        found: dict[str, Params] = {}
        for params in self.points or []:
            found.setdefault(self.identify(params), params)
        return found

    @property
    def num_trials(self) -> int:
        """Trials that there are to be in all."""
        return (self.config.trials or 0) if self.points is None else len(self.named)

    def ended(self) -> dict[str, Row]:
        """Trials of this sweep that have ended, by id; each by the fields that this sweep names."""
        rows = ledger.rows(self.store, self.recipe.name)
        if self.points is not None:
            return {name: replace(row, params=self.named[name]) for name, row in rows.items() if name in self.named}
        recipe_has = partial(own, self.recipe, student_of(self.recipe))
        return belonging(rows, self.config.space, self.identify, recipe_has)


def with_sample_counts(recipe: Recipe) -> Recipe:
    """The recipe with its swept corpus looking at as many chains as the largest trial, where it leaves that open.

    Only where all trials say how many they look at: no trial is changed by it.
    """
    counts = [table.get("selection.num_chains") for table in swept(recipe).space]
    name = student_of(recipe).corpus
    corpus = recipe.find_corpus(name)
    if None in counts or corpus.selection.num_chains is not None:
        return recipe
    most = max(value for values in counts if values is not None for value in ends(values))
    selection = corpus.selection.model_copy(update={"num_chains": most})
    filled = corpus.model_copy(update={"selection": selection})
    return recipe.model_copy(update={"corpus": tuple(filled if c.id == name else c for c in recipe.corpus)})


def for_sampling(recipe: Recipe) -> Recipe:
    """The recipe with the trials' corpora beside its own: their chains are drawn, and they are checked."""
    wanted = [each.model_copy(update={"id": f"sweep-{number}"}) for number, each in enumerate(corpora(recipe))]
    return recipe.model_copy(update={"corpus": (*recipe.corpus, *wanted)})


def check_and_prepare(recipe: Recipe, store: Store) -> Run:
    """Find out what is wrong with a sweep before anything starts. Raises ValueError."""
    sweep = Sweep(recipe, store)
    return prepare(for_sampling(sweep.recipe), store)


def dry_run(recipe: Recipe, store: Store) -> list[str]:
    """What a sweep would sample, and how many trials it would run; starts nothing."""
    sweep = Sweep(recipe, store)
    ended = Counter(row.state for row in sweep.ended().values())
    told = ", ".join(f"{number} {state}" for state, number in sorted(ended.items())) or "none ended"
    lines = pipeline.dry_run(for_sampling(sweep.recipe), store)
    left = sweep.num_trials - ended.total()
    if (filled := _filled(recipe, sweep.recipe)) is not None:
        lines.append(filled)
    return [*lines, f"sweep of {sweep.config.student}: {sweep.num_trials} trials, {told}, {max(left, 0)} to run"]


def carry_out(recipe: Recipe, store: Store) -> Artifact:
    """Run a sweep, and then the recipe itself; the report of both.

    Raises:
        ValueError: trials failed; the others have ended, and the report of them is there.
    """
    sweep = Sweep(recipe, store)
    if (filled := _filled(recipe, sweep.recipe)) is not None:
        logger.info("%s", filled)
    wider = for_sampling(sweep.recipe)
    # Test chains are for the recipe's own thoughts: those that only trials have would be bought for nothing.
    are_alike = all(_thoughts(wider, teacher) == _thoughts(sweep.recipe, teacher) for teacher in recipe.teacher)
    run = prepare(wider, store)
    pipeline.check_room(run, "evaluate")
    pipeline.ask_teachers(run, with_references=are_alike)
    if len(sweep.ended()) < sweep.num_trials:
        check_fits(sweep.recipe, "evaluate", student_of(sweep.recipe))
    with held(sweep):
        failures = run_trials(sweep)
    run = pipeline.carry_out(sweep.recipe, store, "evaluate")
    rows = sweep.ended()
    for row in rows.values():
        made = open_artifact(store, row.run) if row.run else None
        if made is not None:
            run.keep("trial", row.id, made)
    tested = measure_best(sweep, rows)
    if tested is not None:
        run.keep("trial", "tested", tested)
    run.keep("sweep", "ledger", summary(sweep, rows, tested, failures))
    made = report(store, index(run))
    if (best := ledger.best(rows)) is not None:
        told = recipe.name, best.id, 100 * (best.value or 0), address(store, str(best.run))
        logger.info("sweep %s: the best trial is %s, %.1f%%, run %s", *told)
    if failures:
        name, why = next(iter(failures.items()))
        raise ValueError(
            f"sweep {recipe.name}: {len(failures)} of {sweep.num_trials} trials failed, the first ({name}): {why}; the "
            f"others are on {made.directory()}/index.html, and the same command tries these again"
        )
    return made


def _filled(recipe: Recipe, made: Recipe) -> str | None:
    """What is said where `with_sample_counts` filled something in."""
    name = student_of(recipe).corpus
    filled = made.find_corpus(name).selection.num_chains
    if filled == recipe.find_corpus(name).selection.num_chains:
        return None
    return f"sweep {recipe.name}: corpus {name} itself looks at {filled} chains a problem, the most of any trial"


def _thoughts(recipe: Recipe, teacher: Teacher) -> set[str]:
    return {thought for corpus in recipe.corpus if teacher.id in corpus.teachers for thought in corpus.thoughts}


def measure_best(sweep: Sweep, rows: Mapping[str, Row]) -> Artifact | None:
    """Have the trial that is best on the dev problems answer the test problems; None where all trials did."""
    best = ledger.best(rows)
    if sweep.config.split == "test" or best is None:
        return None
    trial = trial_recipe(sweep.recipe, best.params)
    evaluation = trial.evaluation.model_copy(update={"split": "test"})
    named = trial.model_copy(update={"name": f"{sweep.recipe.name}-{best.id}-tested", "evaluation": evaluation})
    return index(pipeline.carry_out(named, sweep.store, "evaluate"))


def summary(sweep: Sweep, rows: Mapping[str, Row], tested: Artifact | None, failures: Mapping[str, str]) -> Artifact:
    """The ledger as it is now, as one artifact; with what the best trial scored on problems that no trial saw."""
    metric = {
        "task": task_of(sweep.recipe),
        "thought": voice_of(sweep.recipe),
        "decode": decode_of(sweep.recipe),
    }
    config = {
        "student": sweep.config.student,
        "metric": metric,
        "space": [_described(table) for table in sweep.config.space],
        "split": sweep.config.split,
        "searcher": sweep.config.searcher,
        "scheduler": sweep.config.scheduler,
    }
    read = {
        "rows": digest([asdict(row) for row in rows.values()]),
        "tested": tested.id if tested else None,
        "wanted": sweep.num_trials,
        "failures": dict(sorted(failures.items())),
    }
    where = Address("sweep", VERSION, config, read)
    found = find(sweep.store, where)
    if found is not None:
        return found
    writer = Writer(sweep.store, where)
    files = [writer.put_lines("trials.jsonl", [asdict(row) for row in rows.values()])]
    if tested is not None:
        evaluated = open_artifact(sweep.store, tested.manifest["inputs"]["evaluation"][sweep.config.student])
        assert evaluated is not None
        files.append(writer.put_lines("tested.jsonl", evaluated.lines("scores.jsonl")))
    ended = Counter(row.state for row in rows.values())
    return writer.commit(files, {**ended, "wanted": sweep.num_trials, "failures": read["failures"]})


def _described(table: Space) -> dict[str, Any]:
    return {
        name: values.model_dump(mode="json") if isinstance(values, Range) else list(values)
        for name, values in table.items()
    }


@contextlib.contextmanager
def held(sweep: Sweep) -> Generator[None]:
    """Hold the trials of a sweep; while another driver has them it is waited for, and what it ran is found."""
    place, name = ledger.Place(sweep.recipe.name), sweep.recipe.name
    session = Session(sweep.store)
    member = session.join(None)
    said = False
    try:
        while not session.claim(place, TRIALS):
            if not said:
                said = True
                logger.info("sweep %s: waits for another driver: %s", name, session.holders(place, TRIALS))
            time.sleep(POLL_S)
        yield
    except BaseException:
        # Trials may still be at work: they are theirs until this process is gone.
        member.abandon()
        raise
    session.release(place, TRIALS)
    member.close()


def run_trials(sweep: Sweep) -> dict[str, str]:
    """Run the trials that have not ended; reasons of those that failed, by id."""
    from ray import tune

    from retort.sweep.tuning import Proposals, Watch

    config, name = sweep.config, sweep.recipe.name
    rows = sweep.ended()
    shown = study_name(name, sweep.store.uri)
    url = storage_url(config, shown)
    study = rebuild(url, shown, config, list(rows.values()))
    logger.info("sweep %s: watch it with: %s %s", name, Path(sys.executable).parent / "optuna-dashboard", url)
    points = None if sweep.points is None else [each for key, each in sweep.named.items() if key not in rows]
    left = sweep.num_trials - len(rows)
    states = Counter(row.state for row in rows.values())
    logger.info("sweep %s: %d trials, %d have ended (%s)", name, sweep.num_trials, len(rows), dict(states))
    if left <= 0:
        return {}
    folder = Path(platformdirs.user_data_dir("retort")) / "tune"
    logger.info("sweep %s: dev losses for TensorBoard in %s", name, folder / shown)
    values = {name: row.value for name, row in rows.items()}
    watch = Watch(sweep.store, name, sweep.num_trials, Counter(states), values)
    # Dev losses and values come in reports of their own; what is told of trials is told here.
    os.environ |= {"TUNE_DISABLE_STRICT_METRIC_CHECKING": "1", "RAY_AIR_NEW_OUTPUT": "0"}
    # Tune would take Ctrl-C for the end of all trials, and the sweep for complete.
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    trials = Trials(sweep.recipe, sweep.store, logs.current())
    # A trial takes nothing of Ray's: what it starts does, and could not if trials held it all. Ray wants something.
    tune.Tuner(
        tune.with_resources(trials.run, tune.PlacementGroupFactory([{"memory": 1}])),
        tune_config=tune.TuneConfig(
            search_alg=Proposals(study, config.space, points, sweep.identify, values),
            scheduler=_scheduler(sweep),
            num_samples=left,
            max_concurrent_trials=num_concurrent(sweep.recipe),
            # One whose trial was stopped is still at work until its next dev loss: Tune would fail the trial after it.
            reuse_actors=config.scheduler == "none",
            trial_dirname_creator=_directory,
        ),
        run_config=tune.RunConfig(
            name=shown,
            storage_path=str(folder),
            callbacks=[watch],
            failure_config=tune.FailureConfig(max_failures=config.max_failures),
            verbose=0,
        ),
    ).fit()
    ended = sweep.ended()
    lost = {key: "it did not end; the log says more" for key in sweep.named if key not in ended}
    return lost | watch.failures


def _directory(trial: Any) -> str:
    """The folder of a trial's event files, by its id: a trial that is run again goes on there."""
    return trial.config["id"]


def num_concurrent(recipe: Recipe) -> int:
    """Trials at a time: as many as the recipe says, or as can train on the machines that there are or may be.

    Each has a process beside the driver's, which trains where `num_workers` is 0: that machine bounds them too.
    """
    config, training = swept(recipe), student_of(recipe).training
    if config.max_concurrent:
        return config.max_concurrent
    here = (os.cpu_count() or 1) // training.cpus_per_worker
    able = here if training.num_workers == 0 else live.most(training.worker_bundle) // training.most_workers
    return max(1, min(able, MOST_TRIALS))


def _scheduler(sweep: Sweep) -> Any:
    """ASHA on dev losses, which no trial reports of its last step: what has come so far is evaluated."""
    from ray.tune.schedulers import AsyncHyperBandScheduler

    if sweep.config.scheduler == "none":
        return None
    training = student_of(sweep.recipe).training
    values = [table.get("training.steps") for table in sweep.config.space]
    ends = [values.high if isinstance(values, Range) else max(values) for values in values if values is not None]
    most = int(max([training.steps, *ends]))
    return AsyncHyperBandScheduler(
        time_attr="step",
        metric="dev_loss",
        mode="min",
        max_t=most + 1,
        grace_period=min(sweep.config.grace_steps or training.dev_every, most),
        reduction_factor=sweep.config.reduction_factor,
    )
