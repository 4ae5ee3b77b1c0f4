"""The `[sweep]` table: what is refused, which trials there are, and what makes a trial the same one."""

import re
from pathlib import Path
from typing import Any

import pytest

from retort.config import Recipe
from retort.loading import load
from retort.planning import teacher_plans
from retort.run import prepare
from retort.store import Store, open_store
from retort.sweep import ledger
from retort.sweep.checks import check
from retort.sweep.config import Range, Space
from retort.sweep.driver import Sweep, for_sampling, with_sample_counts
from retort.sweep.ledger import Row
from retort.sweep.space import contains, corpora, drawn, grid, num_points, trial_recipe
from sweeping import write_sweep


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    return write_sweep(tmp_path)


def swept(recipe_file: Path, *overrides: str) -> Recipe:
    recipe = load(recipe_file, overrides)
    check(recipe)
    return recipe


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ('student = "cto", space = { training.seed = [1] }', "sweep.student: no such id 'cto': did you mean 'cot'"),
        ('student = "cot"', "sweep.space: missing"),
        ('student = "cot", space = {}', "sweep.space: a table is empty"),
        ('student = "cot", space = []', "sweep.space = (): expected a list of at least 1"),
        ("space = { selection.rule = [] }", "selection.rule = []; expected a list of choices"),
        ('space = { selection.rule = "all" }', "selection.rule = 'all'; expected a list of choices"),
        ('space = { selection.rule = ["all", "all"] }', "selection.rule = ['all', 'all'] has a choice twice"),
        ('space = { selection.rule = ["best"] }', "selection.rule = 'best': expected one of"),
        ('space = { selection.ruel = ["all"] }', "selection.ruel: unknown key; did you mean 'rule'"),
        ("space = { training.setps = [1] }", "training.setps: unknown key; did you mean 'steps'"),
        ("space = { training.seeds = [[1]] }", "training.seeds: expected training.seed"),
        ("space = { learning_rate = [1e-3] }", "learning_rate: no field of the swept student"),
        ("space = { teacher.rec.num_chains = [1] }", "teacher.rec.num_chains: no field of the swept"),
        ("space = { selection.rule.deep = [1] }", "selection.rule.deep: rule has no fields"),
        ('space = { student.base = ["/nowhere"] }', "model '/nowhere': expected a directory"),
        ("space = { selection.num_chains = [1, 8] }", "num_chains = 8, teacher rec has num_chains = 4"),
        ("space = { training.seed = { low = 0, high = 3 } }", "searcher 'grid' takes choices only"),
        ("trials = 3, space = { training.seed = [1] }", "trials = 3 with searcher 'grid'"),
        ('searcher = "tpe", space = { training.seed = [1] }', "trials is missing"),
        ('searcher = "random", trials = 3, space = { training.seed = [1] }', "the space has 1 points"),
        ('searcher = "tpe", trials = 3, space = [{ training.seed = [1] }, { tasks = [[]] }]', "takes one table, got 2"),
        ('searcher = "tpe", trials = 3, space = { training.steps = { low = 5, high = 1 } }', "expected low < high"),
        (
            'searcher = "tpe", trials = 3, space = { training.steps = { low = 5 } }',
            "steps.high: Field required",
        ),
        ('searcher = "tpe", trials = 3, space = { training.steps = { low = "1", high = 2 } }', "training.steps.low: "),
        ('searcher = "tpe", trials = 3, space = { training.steps = { low = 0, high = 2, log = true } }', "low > 0"),
        ('searcher = "tpe", trials = 3, space = { training.steps = { low = 1, high = 9, step = 0.5 } }', "step = 0.5"),
        ('searcher = "tpe", trials = 3, space = { training.learning_rate = { low = 0.1, high = 5.0 } }', "rate = 5.0"),
        ('task = "other", space = { training.seed = [1] }', "sweep.task: 'other'"),
        ('decode = "maj@3", space = { training.seed = [1] }', "sweep.decode: 'maj@3'"),
        ('searcher = "hyper", space = { training.seed = [1] }', "sweep.searcher = 'hyper': expected one"),
        ("max_concurrent = 0, space = { training.seed = [1] }", "sweep.max_concurrent = 0"),
        ('space = { selection.num_chains = ["1"] }', "selection.num_chains = '1', which reads as 1; expected that"),
        ("space = { training.seed = [true] }", "training.seed = True, which reads as 1"),
        ("space = { training.seed = [-1] }", "expected each from 0 to 2**32 - 1"),
        ('space = { selection = [{ rule = "all" }] }', "selection: is a table; expected its fields"),
        ("space = { training.num_workers = [1] }", "training.num_workers: makes no difference to a student"),
        (
            "grace_steps = 2, space = { training.seed = [1] }",
            "grace_steps = 2 is of scheduler 'asha'",
        ),
        (
            'scheduler = "asha", grace_steps = 6, space = { training.seed = [1] }',
            "sweep.grace_steps = 6, trials have 6",
        ),
        (
            'scheduler = "asha", space = { training.steps = [1, 2] }',
            "at its last step alone (dev_every = 2, steps = 2)",
        ),
        ('searcher = "tpe", trials = 3, space = { training.seed = [0, 1] }', "the space has 2 points"),
        ("seed = -1, space = { training.seed = [1] }", "sweep.seed = -1"),
        ('study = "postgresql://ann:pw@db/x", space = { training.seed = [1] }', "got an address with a password"),
        (
            'searcher = "random", trials = 30, space = { selection.min_pass_rate = { low = 0.0, high = 0.8 }, '
            "selection.max_pass_rate = { low = 0.2, high = 1.0 } }",
            "min_pass_rate",
        ),
        ("size = 3, space = { training.seed = [1] }", "sweep.size: unknown key"),
    ],
)
def test_a_wrong_table_is_refused_in_one_line(recipe_file: Path, fields: str, told: str) -> None:
    named = fields if fields.startswith("student") else f'student = "cot", {fields}'
    with pytest.raises(ValueError, match=re.escape(told)) as refused:
        swept(recipe_file, f"sweep={{ {named} }}")
    assert "\n" not in str(refused.value)


def test_what_a_trial_could_not_be_is_refused(recipe_file: Path) -> None:
    with pytest.raises(ValueError, match="would keep the GPU that its evaluation waits for"):
        swept(recipe_file, "student.cot.training.gpus_per_worker=1")
    with pytest.raises(ValueError, match=r"seeds = \[0, 1\]: a trial has one seed"):
        swept(recipe_file, "student.cot.training.seeds=[0, 1]")
    swept(recipe_file, "student.cot.training.seeds=[0, 1]", "sweep.space.training.seed=[0, 1]")
    with pytest.raises(ValueError, match="at its last step alone"):
        swept(recipe_file, 'sweep.scheduler="asha"', "student.cot.training.dev_every=6")
    with pytest.raises(ValueError, match=r"evaluation.tasks is empty"):
        swept(recipe_file, "evaluation.tasks=[]")


def test_thoughts_are_tried_with_the_combiners_that_they_allow(recipe_file: Path) -> None:
    overrides = ['evaluation.combine=["fallback:pot,cot"]', 'corpus.chains.thoughts=["pot", "cot"]']
    recipe = swept(recipe_file, *overrides, 'sweep.space.thoughts=[["cot"], ["pot", "cot"]]')
    made = [trial_recipe(recipe, {"thoughts": thoughts}) for thoughts in (["cot"], ["pot", "cot"])]
    assert [each.evaluation.combine for each in made] == [(), ("fallback:pot,cot",)]


def test_a_grid_is_every_combination_of_each_table_once() -> None:
    one: Space = {"a": (1, 2), "b": ("x", "y")}
    assert grid([one]) == [{"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": "x"}, {"a": 2, "b": "y"}]
    other: Space = {"a": (2, 3), "b": ("x",)}
    assert len(grid([one, other])) == 5
    assert grid([{"a": ([1], [2])}]) == [{"a": [1]}, {"a": [2]}]


def test_a_random_search_goes_on_where_a_shorter_one_ended() -> None:
    table = {"rate": Range(low=1e-4, high=1e-2, log=True), "n": Range(low=1, high=30), "rule": ("correct", "all")}
    few, many = drawn(table, 5, seed=3), drawn(table, 12, seed=3)
    assert many[:5] == few
    assert len({str(params) for params in many}) == 12
    assert all(contains(table, params) for params in many)
    assert drawn(table, 5, seed=4) != few
    assert len(drawn({"n": (1, 2, 3)}, 3, seed=0)) == 3


@pytest.mark.parametrize(
    ("params", "is_inside"),
    [
        ({"rate": 0.5, "n": 3}, True),
        ({"rate": 0.5, "n": 4}, False),
        ({"rate": 0.5, "n": 11}, False),
        ({"rate": 2, "n": 3}, False),
        ({"rate": "0.5", "n": 3}, False),
        ({"n": 3}, False),
        ({"rate": 0.5, "n": 3, "m": 1}, False),
    ],
)
def test_points_lie_in_a_table_or_outside(params: dict[str, Any], is_inside: bool) -> None:
    assert contains({"rate": Range(low=0.1, high=1.0), "n": Range(low=1, high=9, step=2)}, params) is is_inside


@pytest.mark.parametrize(
    ("low", "high", "step"), [(0.5, 0.9, 0.1), (0.1, 0.5, 0.05), (0.0, 0.3, 0.1), (1e-4, 1e-3, 1e-4)]
)
def test_numbers_a_step_apart_lie_in_their_range(low: float, high: float, step: float) -> None:
    table: Space = {"x": Range(low=low, high=high, step=step)}
    size = num_points(table)
    assert size == round((high - low) / step) + 1
    points = drawn(table, int(size), seed=0)
    assert len(points) == size
    assert all(contains(table, params) for params in points)
    assert not contains(table, {"x": low + step / 2})


def identify(recipe: Recipe, **params: Any) -> str:
    dotted = {name.replace("__", "."): value for name, value in params.items()}
    return ledger.identity(trial_recipe(recipe, dotted))


def test_a_trial_is_the_same_whatever_does_not_decide_its_result(recipe_file: Path) -> None:
    recipe = load(recipe_file)
    made = identify(recipe, selection__num_chains=2)
    for override in (
        'name="other"',
        "teacher.rec.num_chains=3",
        "student.cot.training.num_workers=1",
        "sampling.flush_s=1",
        'evaluation.references={rec=["arithmetic"]}',
        "sweep.space.training.seed=[0, 1]",
        "student.cot.training.seeds=[0]",
    ):
        assert identify(load(recipe_file, [override]), selection__num_chains=2) == made, override
    assert identify(recipe, selection__num_chains=2, training__seed=0) == made, "the value that the recipe has"


def test_a_trial_is_another_where_anything_that_decides_its_result_is(recipe_file: Path) -> None:
    recipe = load(recipe_file)
    ids = [
        identify(recipe, selection__num_chains=2),
        identify(recipe, selection__num_chains=3),
        identify(recipe, selection__rule="all"),
        identify(recipe, training__seed=1),
        identify(recipe, thoughts=["cot"], selection__target="answer"),
        *(
            identify(load(recipe_file, [override]), selection__num_chains=2)
            for override in (
                "task.arithmetic.train=30",
                "teacher.rec.temperature=0.5",
                "student.cot.training.steps=7",
                "evaluation.max_new_tokens=9",
                'evaluation.decodes=["greedy", "maj@3"]',
                "verification.relative_tolerance=0.5",
                'evaluation.engine.quantization="fp8"',
            )
        ),
    ]
    assert len(set(ids)) == len(ids)
    recording = recipe_file.parent / "rec.jsonl"
    recording.write_text(recording.read_text().replace("The answer", "So the answer"))
    assert identify(load(recipe_file), selection__num_chains=2) not in ids, "another recording"


def test_chains_for_the_largest_trial_are_drawn_and_no_more(recipe_file: Path) -> None:
    recipe = with_sample_counts(swept(recipe_file, "sweep.space.selection.num_chains=[1, 3]"))
    assert recipe.find_corpus("chains").selection.num_chains == 3
    assert {corpus.selection.num_chains for corpus in corpora(recipe)} == {1, 3}
    assert len(corpora(recipe)) == 4
    run = prepare(for_sampling(recipe), open_store(recipe.store))
    assert set(teacher_plans(run, recipe.teacher[0], with_references=True)) == {"cot[:3]", "cot[:1]"}
    kept = with_sample_counts(swept(recipe_file, "corpus.chains.selection.num_chains=4"))
    assert kept.find_corpus("chains").selection.num_chains == 4, "a recipe that says so itself"
    tables = "sweep.space=[{ selection.num_chains = [1, 3] }, { training.seed = [5] }]"
    left = with_sample_counts(swept(recipe_file, tables))
    assert left.find_corpus("chains").selection.num_chains is None, "some trials look at all that there are"


def test_a_space_of_one_more_field_keeps_the_trials_that_had_what_the_recipe_has(recipe_file: Path) -> None:
    narrow = Sweep(load(recipe_file), open_store(load(recipe_file).store))
    for name, params in narrow.named.items():
        ledger.put(narrow.store, "test", Row(name, params, "finished", None, 0.5, [], 6, 0.5, [], 1.0, 2.0))
    wide = Sweep(load(recipe_file, ["sweep.space.training.seed=[0, 1]"]), narrow.store)
    assert (wide.num_trials, set(wide.ended())) == (8, set(narrow.named))
    assert all(row.params["training.seed"] == 0 for row in wide.ended().values())
    proposed = {"sweep.searcher=tpe", "sweep.trials=8", "sweep.space.training.seed=[0, 1]"}
    assert set(Sweep(load(recipe_file, sorted(proposed)), narrow.store).ended()) == set(narrow.named)


def test_entries_of_a_newer_release_are_refused_and_ties_are_broken_by_id(store: Store) -> None:
    rows = {name: Row(name, {}, "finished", None, 0.5, [], 6, 0.5, [], 1.0, at) for name, at in (("b", 1), ("a", 2))}
    best = ledger.best(rows)
    assert best is not None
    assert best.id == "a", "whichever ended first"
    store.put(f"{ledger.folder('test')}c.json", b'{"format": 2}')
    with pytest.raises(ValueError, match=r"c\.json has format 2; expected 1: upgrade retort"):
        ledger.rows(store, "test")


def test_a_wider_space_keeps_the_trials_of_a_narrower_one(recipe_file: Path) -> None:
    recipe = load(recipe_file)
    narrow = Sweep(recipe, open_store(recipe.store))
    wide = Sweep(load(recipe_file, ["sweep.space.selection.num_chains=[1, 2, 4]"]), open_store(recipe.store))
    assert narrow.points is not None
    assert wide.points is not None
    ids = {narrow.identify(params) for params in narrow.points}
    assert ids < {wide.identify(params) for params in wide.points}
    assert (narrow.num_trials, wide.num_trials) == (4, 6)
