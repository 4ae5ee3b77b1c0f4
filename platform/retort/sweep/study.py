"""The Optuna study of a sweep: what dashboards show while it runs, and what TPE learns from.

It is a picture of the ledger, drawn anew when a sweep starts: finished trials as they ended, those that a killed driver
left running as failed.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

from retort.sweep.config import Range, Space, SweepConfig
from retort.sweep.ledger import Row
from retort.sweep.space import Params, contains, distributions, encoded

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution


def study_name(name: str, store_uri: str) -> str:
    """What the study of a recipe's sweep is called: sweeps of one name in other stores have others."""
    return f"{name}-{hashlib.sha256(store_uri.encode()).hexdigest()[:8]}"


def storage_url(config: SweepConfig, study: str) -> str:
    """Where a study lies: as the recipe says, or in a file of this user."""
    if config.study is not None:
        return config.study
    folder = Path(platformdirs.user_data_dir("retort")) / "studies"
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder / f'{study}.db'}"


def rebuild(url: str, name: str, config: SweepConfig, rows: Sequence[Row]) -> "Study":
    """The study of a sweep with its trials so far, in place of what was there.

    Raises:
        ValueError: the storage cannot be opened.
    """
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        storage = optuna.storages.get_storage(url)
        stale = _unfinished(storage, name)
        study = optuna.create_study(
            storage=storage,
            study_name=name,
            direction="maximize",
            sampler=optuna.samplers.TPESampler(seed=config.seed, constant_liar=True),
        )
    except (SQLAlchemyError, ImportError, ValueError) as error:
        cause = " ".join(str(error).split())[:200]
        raise ValueError(
            f"sweep.study: {url!r} cannot be opened ({cause}); expected sqlite:////path/study.db"
        ) from error
    known = merged(config.space)
    for row in rows:
        study.add_trial(_frozen(row, known))
    for params in stale:
        if params.keys() <= known.keys() and all(contained(known[key], value) for key, value in params.items()):
            shown = {key: known[key] for key in params}
            failed = optuna.trial.TrialState.FAIL
            study.add_trial(optuna.trial.create_trial(state=failed, params=params, distributions=shown))
    return study


def _unfinished(storage: Any, name: str) -> list[dict[str, Any]]:
    """Parameters of the trials that an earlier driver left running, or that failed; the study is removed."""
    import optuna

    states = optuna.trial.TrialState
    if name not in optuna.get_all_study_names(storage):
        return []
    trials = optuna.load_study(study_name=name, storage=storage).trials
    optuna.delete_study(study_name=name, storage=storage)
    return [trial.params for trial in trials if trial.state in (states.RUNNING, states.FAIL) and trial.params]


def merged(tables: Sequence[Space]) -> "dict[str, BaseDistribution]":
    """One distribution for each field: in a study a field has the same choices in every trial."""
    together: Space = {}
    for table in tables:
        for name, values in table.items():
            before = together.get(name, ())
            if isinstance(values, Range) or isinstance(before, Range):
                together[name] = values
            else:
                together[name] = (*before, *(choice for choice in values if choice not in before))
    return distributions(together)


def contained(distribution: "BaseDistribution", value: Any) -> bool:
    """Whether a distribution has a value."""
    try:
        return distribution._contains(distribution.to_internal_repr(value))  # pyright: ignore[reportPrivateUsage]
    except ValueError:
        return False


def _frozen(row: Row, known: "Mapping[str, BaseDistribution]") -> Any:
    """A trial of the ledger as Optuna keeps it."""
    from optuna.trial import TrialState, create_trial

    made = create_trial(
        state=TrialState.COMPLETE if row.state == "finished" else TrialState.PRUNED,
        value=row.value,
        params={name: encoded(value) for name, value in row.params.items()},
        distributions={name: known[name] for name in row.params},
        intermediate_values={step: -loss for step, loss in row.curve},
        user_attrs={"trial": row.id},
    )
    made.datetime_complete = datetime.fromtimestamp(row.created_at_s)
    made.datetime_start = made.datetime_complete - timedelta(seconds=row.seconds)
    return made


def belonging(
    rows: Mapping[str, Row],
    tables: Sequence[Space],
    identify: Callable[[Params], str],
    recipe_has: Callable[[str], Any],
) -> dict[str, Row]:
    """Entries that are trials of these tables, and of a recipe whose trials `identify` names.

    A field that an entry does not name, as its table had it not, is what `recipe_has` there.
    """
    found: dict[str, Row] = {}
    for name, row in rows.items():
        for table in tables:
            params = {field: row.params[field] if field in row.params else recipe_has(field) for field in table}
            if contains(table, params) and identify(params) == name:
                found.setdefault(name, replace(row, params=params))
    return found
