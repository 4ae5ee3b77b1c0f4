"""The Optuna study: drawn from the ledger, and what it has Ray Tune try."""

from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import optuna
import pytest

from retort.store import Store
from retort.store.hashing import digest
from retort.sweep import ledger
from retort.sweep.config import SweepConfig
from retort.sweep.ledger import Row
from retort.sweep.study import belonging, rebuild
from retort.sweep.tuning import Proposals

STATES = optuna.trial.TrialState
TPE: dict[str, Any] = {
    "student": "cot",
    "searcher": "tpe",
    "trials": 6,
    "space": {
        "training.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
        "thoughts": [["cot"], ["pot", "cot"]],
    },
}


def identify(params: dict[str, Any]) -> str:
    return digest(params)[:12]


def row(params: dict[str, Any], value: float | None) -> Row:
    state = "stopped" if value is None else "finished"
    return Row(identify(params), params, state, None, value, [], 6, 0.5, [(2, 0.9), (4, 0.5)], 1.0, 2.0)


def rate(value: float, thoughts: list[str] | None = None) -> dict[str, Any]:
    return {"training.learning_rate": value, "thoughts": thoughts or ["cot"]}


own: dict[str, Any] = {"training.seed": 0, "thoughts": ["cot"], "training.learning_rate": 1e-3}
"""What the recipe has."""
ROWS = [row(rate(1e-3), 0.4), row(rate(2e-3, ["pot", "cot"]), 0.6), row(rate(3e-4), None)]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'study.db'}"


def config(**changes: Any) -> SweepConfig:
    return SweepConfig.model_validate(TPE | changes)


def test_a_study_is_what_the_ledger_has(url: str) -> None:
    rebuild(url, "one", config(), ROWS)
    study = optuna.load_study(study_name="one", storage=url)
    assert [trial.state for trial in study.trials] == [STATES.COMPLETE, STATES.COMPLETE, STATES.PRUNED]
    assert [trial.value for trial in study.trials] == [0.4, 0.6, None]
    assert study.best_params == {"training.learning_rate": 2e-3, "thoughts": '["pot", "cot"]'}
    assert study.trials[0].intermediate_values == {2: -0.9, 4: -0.5}
    assert study.trials[0].duration == timedelta(seconds=1)
    assert [trial.user_attrs["trial"] for trial in study.trials] == [each.id for each in ROWS]


def test_trials_that_a_killed_driver_left_running_have_failed(url: str) -> None:
    study = rebuild(url, "one", config(), ROWS[:1])
    proposals = Proposals(study, config().space, None, identify, {})
    asked = proposals.suggest("a")
    assert isinstance(asked, dict)
    again = rebuild(url, "one", config(), ROWS[:2])
    assert Counter(trial.state for trial in again.trials) == {STATES.COMPLETE: 2, STATES.FAIL: 1}
    (failed,) = (trial for trial in again.trials if trial.state == STATES.FAIL)
    assert failed.params["training.learning_rate"] == asked["params"]["training.learning_rate"]
    assert Counter(trial.state for trial in rebuild(url, "one", config(), ROWS[:2]).trials)[STATES.FAIL] == 1
    assert optuna.get_all_study_names(url) == ["one"]


def test_a_wider_space_is_a_study_with_the_old_trials_in_it(url: str) -> None:
    rebuild(url, "one", config(), ROWS)
    wide = config(space=TPE["space"] | {"thoughts": [["cot"], ["pot", "cot"], ["eot"]]})
    study = rebuild(url, "one", wide, ROWS)
    proposals = Proposals(study, wide.space, None, identify, {})
    proposed = [proposals.suggest(str(number)) for number in range(20)]
    assert ["eot"] in [each["params"]["thoughts"] for each in proposed if isinstance(each, dict)]


def test_tpe_learns_from_trials_of_earlier_runs(url: str) -> None:
    space = {"training.learning_rate": {"low": 0.0, "high": 1.0}}
    rows = [row({"training.learning_rate": n / 20}, 1 - abs(n / 20 - 0.8)) for n in range(20)]

    def mean_distance(known: list[Row]) -> float:
        study = rebuild(url, "one", config(space=space), known)
        proposals = Proposals(study, config(space=space).space, None, identify, {})
        proposed = [proposals.suggest(str(number)) for number in range(12)]
        return sum(abs(p["params"]["training.learning_rate"] - 0.8) for p in proposed if isinstance(p, dict)) / 12

    assert mean_distance(rows) < 0.15 < mean_distance([])


def test_what_was_tried_is_not_proposed_again(url: str) -> None:
    space = {"thoughts": [["cot"], ["pot"], ["eot"]]}
    known = {each.id: each for each in (row({"thoughts": ["cot"]}, 0.5),)}
    study = rebuild(url, "one", config(space=space), list(known.values()))
    proposals = Proposals(
        study, config(space=space).space, None, identify, {name: each.value for name, each in known.items()}
    )
    proposed = [proposals.suggest(str(number)) for number in range(3)]
    assert sorted(each["params"]["thoughts"] for each in proposed if isinstance(each, dict)) == [["eot"], ["pot"]]
    assert proposed[2] == Proposals.FINISHED, "the space has no more"


def test_points_are_proposed_in_their_order_and_told_of(url: str) -> None:
    space = config(searcher="grid", trials=None, space={"thoughts": [["cot"], ["pot"], ["eot"]]}).space
    study = rebuild(url, "one", config(searcher="grid", trials=None, space={"thoughts": [["cot"]]}), [])
    points = [{"thoughts": ["pot"]}, {"thoughts": ["cot"]}, {"thoughts": ["eot"]}]
    proposals = Proposals(study, space, points, identify, {})
    assert proposals.suggest("a") == {"params": points[0], "id": identify(points[0])}
    assert proposals.suggest("b") == {"params": points[1], "id": identify(points[1])}
    assert proposals.suggest("c") == {"params": points[2], "id": identify(points[2])}
    assert proposals.suggest("d") == Proposals.FINISHED
    proposals.on_trial_result("a", {"step": 2, "dev_loss": 0.7})
    proposals.on_trial_complete("a", {"step": 4, "value": 0.3, "has_ended": True})
    proposals.on_trial_complete("b", {"step": 2, "dev_loss": 0.9})
    proposals.on_trial_complete("c", {"failure": "no chains", "has_ended": True})
    told = optuna.load_study(study_name="one", storage=url).trials
    assert [trial.state for trial in told] == [STATES.COMPLETE, STATES.PRUNED, STATES.FAIL]
    assert told[0].value == 0.3
    assert [trial.intermediate_values for trial in told] == [{2: -0.7}, {2: -0.9}, {}]


def test_a_storage_that_cannot_be_opened_is_said_in_one_line() -> None:
    for wrong in ("sqlite:////nowhere/at/all/study.db", "nonsense://x"):
        with pytest.raises(ValueError, match=r"sweep.study: '.*' cannot be opened .*; expected sqlite:") as refused:
            rebuild(wrong, "one", config(), [])
        assert "\n" not in str(refused.value)


def test_an_entry_stays_as_it_was_first_made(store: Store) -> None:
    first, second = row(rate(1e-3), 0.4), row(rate(1e-3), 0.5)
    assert ledger.put(store, "demo", first)
    assert not ledger.put(store, "demo", second)
    assert ledger.get(store, "demo", first.id) == first
    assert ledger.get(store, "other", first.id) is None
    ledger.put(store, "demo", ROWS[2])
    assert set(ledger.rows(store, "demo")) == {first.id, ROWS[2].id}


def test_entries_of_other_spaces_and_recipes_are_left_aside() -> None:
    rows = {each.id: each for each in (*ROWS, row(rate(0.5), 0.9), row({"training.seed": 1}, 0.1))}
    space = config().space
    assert set(belonging(rows, space, identify, own.get)) == {each.id for each in ROWS}
    assert belonging(rows, space, lambda params: "of another recipe", own.get) == {}


def test_an_entry_of_a_table_that_left_a_field_to_the_recipe_belongs_to_one_that_names_it() -> None:
    """A trial's id is of its whole recipe: it stays the same where the space names what the recipe had anyway."""

    def of_whole(params: dict[str, Any]) -> str:
        return identify(own | params)

    narrow = row({"training.learning_rate": 1e-3}, 0.4)
    rows = {of_whole(narrow.params): narrow}
    found = belonging(rows, config().space, of_whole, own.get)
    assert [each.params for each in found.values()] == [rate(1e-3, ["cot"])]
    assert belonging(rows, config(space={"thoughts": [["pot"]]}).space, of_whole, own.get) == {}
