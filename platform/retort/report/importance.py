"""How much each swept parameter matters: fANOVA (Hutter, Hoos, Leyton-Brown: ICML 2014), as Optuna computes it.

A random forest learns the metric from the parameters; a parameter's importance is the share of the forest's variance
that it explains alone, of what all explain alone. The forest is seeded: the same trials give the same shares.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from retort.report.effects import width
from retort.report.trials import Parameter, Sweep, Trial, key

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

EVALUATOR = "fANOVA on a random forest of 64 trees, seed 0"
FOREST = 256
"""Trees, so that each trial is left out of many."""
LEAST_TRIALS = 12
TRIALS_A_PARAMETER = 4
"""Fewer trials than these leave the forest to guess; a rule of thumb, and not enough to make its shares exact."""


@dataclass(frozen=True)
class Importance:
    """Shares by name of the parameter, the largest first, over so many trials."""

    shares: Mapping[str, float]
    trials: int


def importance(sweep: Sweep) -> Importance | str:
    """The shares, or the reason why there are none.

    Of several tables the one with the most trials: another one's differ from these in more than what they vary.
    """
    trials = sweep.tables[0] if sweep.tables else []
    used = [each for each in sweep.parameters if _varies(each, trials)]
    needed = max(LEAST_TRIALS, TRIALS_A_PARAMETER * len(used))
    if len(used) < 2:
        return "the trials differ in one parameter" if used else "the trials are alike"
    if len(trials) < needed:
        return f"{len(trials)} trials with a score are too few for {len(used)} parameters; it takes {needed}"
    if len({trial.value for trial in trials}) == 1:
        return "all trials have the same score"
    if _explained(trials, used) <= 0:
        return "a forest that learns the scores of some trials predicts those of others no better than their mean"
    return Importance(_fanova(trials, used), len(trials))


def by_weight(sweep: Sweep, weighed: Importance | str) -> list[Parameter]:
    """What was compared, the most important first; by the distance between levels where importance is not known."""
    shares = {} if isinstance(weighed, str) else weighed.shares
    return sorted(sweep.compared, key=lambda each: (-shares.get(each.name, -1.0), -width(sweep, each)))


def _varies(parameter: Parameter, trials: Sequence[Trial]) -> bool:
    return len({key(trial.params[parameter.name]) for trial in trials if parameter.name in trial.params}) > 1


def _explained(trials: Sequence[Trial], used: Sequence[Parameter]) -> float:
    """The share of the variance of scores (R²) that a forest predicts of trials that it has not seen."""
    from sklearn.ensemble import RandomForestRegressor

    rows = [[cell for each in used for cell in _cells(each, trial.params[each.name])] for trial in trials]
    forest = RandomForestRegressor(n_estimators=FOREST, oob_score=True, random_state=0)
    return float(forest.fit(rows, [trial.value for trial in trials]).oob_score_)


def _cells(parameter: Parameter, value: Any) -> list[float]:
    """A value as numbers: words as one for each of their levels."""
    if parameter.is_number:
        return [float(value)]
    return [float(parameter.level(value) == level) for level in range(len(parameter.levels))]


def _fanova(trials: Sequence[Trial], used: Sequence[Parameter]) -> dict[str, float]:
    import optuna
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    values = {each.name: [_as_drawn(each, trial.params[each.name]) for trial in trials] for each in used}
    distributions = {each.name: _distribution(each, values[each.name]) for each in used}
    study = optuna.create_study(direction="maximize")
    for number, trial in enumerate(trials):
        params = {name: column[number] for name, column in values.items()}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=trial.value))
    found = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    return {name: float(share) for name, share in found.items()}


def _as_drawn(parameter: Parameter, value: Any) -> float | str:
    return float(value) if parameter.is_number else key(value)


def _distribution(parameter: Parameter, values: Sequence[Any]) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if parameter.is_number:
        return FloatDistribution(min(values), max(values), log=parameter.is_log and min(values) > 0)
    return CategoricalDistribution(sorted(set(values)))
