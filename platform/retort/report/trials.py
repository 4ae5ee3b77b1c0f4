"""A sweep as the report sees it: its trials, its parameters, and the levels at which trials are compared.

In: the artifact `sweep/ledger` of a run, which has a row for each trial and the sweep's table in its manifest. A
parameter that took few values has a level for each. One that was drawn from a range took as many as there are trials:
its values are cut into levels of about as many trials each.
"""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from retort.evaluation import Score
from retort.report.contents import Contents
from retort.report.recipes import toml
from retort.store.hashing import canonical_json

SEED = "training.seed"
NUM_CHAINS = "selection.num_chains"
MAX_LEVELS = 8
"""Numbers of more values than this are cut into bins; so many points still have room side by side."""
BINS = 5


class Metric(NamedTuple):
    """What trials are ranked by: the accuracy on a task under a thought and a decode."""

    task: str
    thought: str
    decode: str


@dataclass(frozen=True)
class Trial:
    """One trial. A stopped one has no value and no scores; `curve` holds pairs of step and dev loss."""

    id: str
    params: Mapping[str, Any]
    state: str
    value: float | None
    scores: tuple[Score, ...]
    step: int
    dev_loss: float | None
    curve: tuple[tuple[float, float], ...]
    seconds: float
    thought: str | None
    """Whose accuracy its value is."""

    def rest(self, *names: str) -> str:
        """All of its parameters but some: trials of which this is equal are alike in all else."""
        return canonical_json({name: value for name, value in self.params.items() if name not in names})


@dataclass(frozen=True)
class Parameter:
    """A swept field: `levels` in words, where they stand on an axis, and the level of each value by its `key`."""

    name: str
    called: str
    is_number: bool
    is_log: bool
    levels: tuple[str, ...]
    places: tuple[float, ...]
    level_of: Mapping[str, int]

    @property
    def is_binned(self) -> bool:
        """Whether its levels are bins of several values."""
        return len(self.level_of) > len(self.levels)

    def level(self, value: Any) -> int | None:
        """The level of a value; None for a value that no trial had."""
        return self.level_of.get(key(value))

    def place(self, value: Any) -> float | None:
        """Where a value stands on the axis: numbers by their size or its logarithm, others by their level."""
        if not self.is_number:
            level = self.level(value)
            return None if level is None else self.places[level]
        if value is None or (self.is_log and value <= 0):
            return None
        return math.log10(value) if self.is_log else float(value)


@dataclass(frozen=True)
class Sweep:
    """A sweep with its trials in the order in which they ended, and what its student has where a trial says nothing.

    Trials answered the problems of `split`. Where that is `dev`, `tested` is what the best of them scored on the test
    problems.
    """

    student: str
    corpus: str
    metric: Metric
    searcher: str
    scheduler: str
    parameters: tuple[Parameter, ...]
    trials: tuple[Trial, ...]
    base: Mapping[str, Any]
    decodes: tuple[str, ...]
    space: tuple[Mapping[str, Any], ...]
    num_wanted: int
    """Trials that there are to be; those that failed are not among `trials`."""
    failures: Mapping[str, str]
    """Why trials failed, by id."""
    split: str = "test"
    tested: tuple[Score, ...] = ()

    @property
    def ranked(self) -> list[Trial]:
        """The trials that have a value, the highest first."""
        return sorted(
            (trial for trial in self.trials if trial.value is not None), key=lambda trial: -(trial.value or 0)
        )

    @cached_property
    def tables(self) -> list[list[Trial]]:
        """Trials with a score by the first table of the space that has them, the largest first."""
        found: dict[int, list[Trial]] = defaultdict(list)
        for trial in self.ranked:
            found[next((n for n, table in enumerate(self.space) if _is_of(trial, table)), -1)].append(trial)
        return sorted(found.values(), key=len, reverse=True)

    def varying(self, name: str) -> list[Trial]:
        """Trials of the tables in which a parameter takes several values.

        Where a table holds it at one value, its trials are there for something else, and would be mixed with others.
        """
        return [
            trial
            for members in self.tables
            if name in members[0].params and len({key(each.params[name]) for each in members}) > 1
            for trial in members
        ]

    @property
    def where(self) -> str:
        """The task, and its dev problems where trials answered those."""
        return self.metric.task if self.split == "test" else f"the {self.split} problems of {self.metric.task}"

    @property
    def compared(self) -> list[Parameter]:
        """The parameters of more than one level, the seed left out: what a sweep is about."""
        return [each for each in self.parameters if len(each.levels) > 1 and each.name != SEED]

    def score(self, trial: Trial, decode: str) -> Score | None:
        """A trial's score on the metric's task under a decode, of what speaks for it where it has several thoughts."""
        wanted = self.metric.task, trial.thought or self.metric.thought, decode
        return next((each for each in trial.scores if (each.task, each.thought, each.decode) == wanted), None)

    def value_of(self, trial: Trial, name: str) -> Any:
        """A trial's value of a parameter: its own, or what its student has anyway; None where there is neither."""
        return trial.params.get(name, self.base.get(name))

    def override(self, name: str, value: Any) -> str:
        """A parameter as the command line of a run sets it."""
        if name == SEED:
            return f"student.{self.student}.training.seeds={toml([value])}"
        return f"{_place(self.student, self.corpus, name)}={toml(value)}"

    def setting(self, trial: Trial) -> str:
        """A trial's parameters in words."""
        named = {each.name: each.called for each in self.parameters}
        return ", ".join(f"{named[name]} = {worded(value)}" for name, value in trial.params.items())


def open_sweep(contents: Contents) -> Sweep | None:
    """The sweep of a run; None for a run without one."""
    ledger = contents.stage("sweep").get("ledger")
    if ledger is None:
        return None
    config = ledger.manifest["config"]
    trials = tuple(_trial(row) for row in ledger.lines("trials.jsonl"))
    student = contents.students[config["student"]]
    metric = Metric(config["metric"]["task"], config["metric"]["thought"], config["metric"]["decode"])
    measured = {score.decode for trial in trials for score in trial.scores if score.task == metric.task}
    decodes = [decode for decode in contents.recipe["evaluation"]["decodes"] if decode in measured]
    parameters = tuple(_parameters(config["space"], trials))
    return Sweep(
        student=student["id"],
        corpus=student["corpus"],
        metric=metric,
        searcher=config["searcher"],
        scheduler=config["scheduler"],
        parameters=parameters,
        trials=trials,
        base={each.name: _base(contents, student, each.name) for each in parameters},
        # The decode that trials are ranked by comes first.
        decodes=tuple(sorted(decodes, key=lambda decode: decode != metric.decode)),
        space=tuple(config["space"]),
        num_wanted=ledger.stats.get("wanted", len(trials)),
        failures=ledger.stats.get("failures", {}),
        split=config.get("split", "test"),
        tested=tuple(Score(**row) for row in ledger.lines("tested.jsonl")) if config.get("split") == "dev" else (),
    )


def _is_of(trial: Trial, table: Mapping[str, Any]) -> bool:
    """Whether a table has a trial: all that it names, at one of its choices or within its range."""
    return trial.params.keys() == table.keys() and all(
        low_high["low"] <= trial.params[name] <= low_high["high"]
        if isinstance(low_high := values, dict)
        else key(trial.params[name]) in map(key, values)
        for name, values in table.items()
    )


def key(value: Any) -> str:
    """By which equal values are found: 1 and 1.0 are one number, lists can be looked up."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return repr(float(value)) if is_number else canonical_json(value)


def worded(value: Any) -> str:
    """A parameter's value in words."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return " + ".join(worded(each) for each in value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _trial(row: Mapping[str, Any]) -> Trial:
    return Trial(
        id=row["id"],
        params=row["params"],
        state=row["state"],
        value=row["value"],
        scores=tuple(Score(**score) for score in row["scores"]),
        step=row["step"],
        dev_loss=row["dev_loss"],
        curve=tuple((step, loss) for step, loss in row["curve"] if loss is not None and math.isfinite(loss)),
        seconds=row["seconds"],
        thought=row.get("thought"),
    )


def _place(student: str, corpus: str, name: str) -> str:
    """Where a recipe holds a swept field: `training.steps` at `student.cot.training.steps`."""
    if name.startswith("student."):
        return f"student.{student}.{name.removeprefix('student.')}"
    return f"student.{student}.{name}" if name.startswith("training.") else f"corpus.{corpus}.{name}"


def _base(contents: Contents, student: Mapping[str, Any], name: str) -> Any:
    """What the recipe itself has at a swept field. Without a `num_chains` of its own a corpus looks at all chains."""
    corpus = contents.corpora[student["corpus"]]
    if name == SEED:
        return student["training"]["seeds"][0]
    owner: Any = student if name.startswith(("student.", "training.")) else corpus
    for part in name.removeprefix("student.").split("."):
        owner = owner.get(part) if isinstance(owner, dict) else None
    if name == NUM_CHAINS and owner is None:
        drawn = {contents.teachers[teacher]["num_chains"] for teacher in corpus["teachers"]}
        return drawn.pop() if len(drawn) == 1 else None
    return owner


def _parameters(space: Sequence[Mapping[str, Any]], trials: Sequence[Trial]) -> Iterable[Parameter]:
    """The fields of all tables of the space, in the recipe's order, and those of trials of an earlier, wider space."""
    tables: dict[str, list[Any]] = {}
    for table in space:
        for name, choices in table.items():
            tables.setdefault(name, []).append(choices)
    names = list(dict.fromkeys([*tables, *(name for trial in trials for name in trial.params)]))
    lasts = [name.rpartition(".")[2] for name in names]
    for name in names:
        last = name.rpartition(".")[2]
        choices = tables.get(name, [])
        had = {key(value): value for value in (trial.params[name] for trial in trials if name in trial.params)}
        listed = [value for each in choices if isinstance(each, list) for value in each]
        order = list(dict.fromkeys(key(value) for value in [*listed, *had.values()]))
        values = [had[each] for each in order if each in had]
        is_declared_log = any(isinstance(each, dict) and each.get("log") for each in choices)
        yield _parameter(name, last if lasts.count(last) == 1 else name, values, is_declared_log, trials)


def _parameter(
    name: str, called: str, values: Sequence[Any], is_declared_log: bool, trials: Sequence[Trial]
) -> Parameter:
    """The levels of one parameter, from the values that trials had, each once."""
    is_number = bool(values) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if not is_number:
        levels = tuple(worded(value) for value in values)
        places = tuple(map(float, range(len(values))))
        return Parameter(name, called, False, False, levels, places, {key(v): i for i, v in enumerate(values)})
    least, most = min(values), max(values)
    # Numbers that grow by factors stand evenly on a logarithmic axis: 1, 4, 16, 30.
    is_log = least > 0 and (is_declared_log or most / least >= 3)
    groups = [[value] for value in sorted(values)]
    if len(values) > MAX_LEVELS:
        groups = _binned(sorted(trial.params[name] for trial in trials if name in trial.params))
    levels = tuple(worded(g[0]) if g[0] == g[-1] else f"{_rough(g[0])}–{_rough(g[-1])}" for g in groups)
    places = tuple(sum(math.log10(v) if is_log else v for v in group) / len(group) for group in groups)
    level_of = {key(value): number for number, group in enumerate(groups) for value in group}
    return Parameter(name, called, True, is_log, levels, places, level_of)


def _rough(bound: float) -> str:
    """The bound of a bin, short enough to stand at a plot."""
    return f"{bound:.2g}" if isinstance(bound, float) else str(bound)


def _binned(values: Sequence[float]) -> list[list[float]]:
    """Sorted values in at most `BINS` groups of about as many; equal ones stay together."""
    bins: list[list[float]] = []
    for place, value in enumerate(values):
        if not bins or (place * BINS // len(values) >= len(bins) and value != bins[-1][-1]):
            bins.append([])
        bins[-1].append(value)
    return bins
