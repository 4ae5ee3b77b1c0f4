"""The sweep's part of the report: what it claims of trials, and the section itself in a real browser."""

import itertools
import json
import math
import random
import re
import shlex
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from retort.config import Recipe
from retort.evaluation import Score
from retort.intervals import wilson
from retort.loading import load
from retort.report.blocks import Figure, Figures, Listing, Remark, Section, Table
from retort.report.contents import Contents, open_run
from retort.report.effects import Pairs, estimate, having, judged, pairs, told
from retort.report.importance import Importance, importance
from retort.report.page import compose, render
from retort.report.recipes import recipe_text
from retort.report.sweeps import sweeps
from retort.report.trials import Sweep, Trial, open_sweep
from retort.run import Run
from retort.run import index as index_of
from retort.store.artifacts import Address, Writer
from retort.store.hashing import digest
from retort.store.local import LocalStore
from test_report import check_plots, chromium, distilled, watched

DEMO = Path(__file__).parent.parent / "jobs/recipes/demo-sweep.toml"
PROBLEMS = 200
RECIPE: dict[str, Any] = {
    "name": "swept",
    "task": [{"id": "arithmetic", "train": 30, "dev": 6, "test": PROBLEMS}],
    "teacher": [
        {
            "id": "tiny",
            "engine": "vllm",
            "model": "shipped:teacher",
            "temperature": 1.0,
            "max_new_tokens": 96,
            "num_chains": 30,
        }
    ],
    "corpus": [{"id": "chains", "tasks": ["arithmetic"], "teachers": ["tiny"], "thoughts": ["cot"]}],
    "student": [
        {
            "id": "cot",
            "base": "shipped:student",
            "corpus": "chains",
            "training": {"steps": 600, "batch_examples": 16, "learning_rate": 1e-3},
        }
    ],
    "evaluation": {"tasks": ["arithmetic"], "decodes": ["greedy", "maj@8"]},
}
GRID = [
    {
        "selection.num_chains": [1, 4, 16, 30],
        "selection.rule": ["correct", "all"],
        "training.seed": [0, 1, 2],
    },
    {
        "selection.pick": ["first", "random", "diverse", "likely", "open_ended", "shortest"],
        "selection.chains_per_problem": [4],
    },
]
DRAWN = [
    {
        "selection.num_chains": {"low": 1, "high": 30, "log": True, "step": None},
        "training.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True, "step": None},
        "training.steps": {"low": 200, "high": 1200, "log": False, "step": 200},
        "selection.rule": ["correct", "all", "majority"],
        "student.init": ["pretrained", "random"],
    }
]


def score(decode: str, correct: int) -> dict[str, Any]:
    low, high = wilson(correct, PROBLEMS)
    share = correct / PROBLEMS
    made = Score("arithmetic", "cot", decode, PROBLEMS, correct, share, low, high, share, 0.02, 0.01, 40.0, 8, 0, 0)
    return asdict(made)


def trial(params: dict[str, Any], greedy: int, maj: int, **other: Any) -> dict[str, Any]:
    """A row of the ledger, as a sweep writes it."""
    name = digest(params)[:12]
    steps = params.get("training.steps", 600)
    fall = random.Random(name).uniform(0.2, 0.4)
    row = {
        "id": name,
        "params": params,
        "state": "finished",
        "run": f"artifacts/run/{name}/",
        "value": maj / PROBLEMS,
        "scores": [score("greedy", greedy), score("maj@8", maj)],
        "step": steps,
        "dev_loss": 3 * steps**-fall,
        "curve": [[step, 3 * step**-fall] for step in range(20, steps + 1, 20)],
        "seconds": 81.25,
        "created_at_s": 1.7e9,
    }
    return row | other


def stopped(params: dict[str, Any], step: int) -> dict[str, Any]:
    curve = [[at, 4 * at**-0.1] for at in range(20, step + 1, 20)]
    ended = {"state": "stopped", "run": None, "value": None, "scores": [], "step": step, "dev_loss": curve[-1][1]}
    return trial(params, 0, 0) | ended | {"curve": curve}


def skill(params: Mapping[str, Any], draw: random.Random) -> tuple[int, int]:
    """What a student might reach: more chains and right ones help, a rate of 1e-3 is best, the seed is luck."""
    chains = params.get("selection.num_chains", 30)
    odds = 0.15 + 0.07 * math.log2(chains) + 0.03 * (params.get("selection.rule", "correct") == "correct")
    odds -= 0.15 * abs(math.log10(params.get("training.learning_rate", 1e-3)) + 3)
    odds -= 0.1 * (params.get("student.init") == "random") + 0.05 * (params.get("selection.pick") == "shortest")
    odds += draw.gauss(0, 0.015)
    greedy = sum(draw.random() < odds for _ in range(PROBLEMS))
    return greedy, min(PROBLEMS, greedy + draw.randrange(4, 14))


def grid() -> list[dict[str, Any]]:
    """Four numbers of chains, two rules, three seeds; six picks with one seed."""
    draw = random.Random(7)
    first, second = GRID
    points = [
        {"selection.num_chains": chains, "selection.rule": rule, "training.seed": seed}
        for chains in first["selection.num_chains"]
        for rule in first["selection.rule"]
        for seed in first["training.seed"]
    ]
    points += [{"selection.pick": pick, "selection.chains_per_problem": 4} for pick in second["selection.pick"]]
    return [trial(params, *skill(params, draw)) for params in points]


def search(trials: int) -> list[dict[str, Any]]:
    """Trials at random points of ranges, a fifth of them stopped."""
    draw = random.Random(11)
    rows: list[dict[str, Any]] = []
    for number in range(trials):
        params: dict[str, Any] = {
            "selection.num_chains": round(2 ** draw.uniform(0, 4.9)),
            "training.learning_rate": 10 ** draw.uniform(-4, -2),
            "training.steps": draw.randrange(200, 1201, 200),
            "selection.rule": draw.choice(["correct", "all", "majority"]),
            "student.init": draw.choice(["pretrained", "pretrained", "random"]),
        }
        ends = number % 5 == 4
        rows.append(stopped(params, draw.choice([100, 200])) if ends else trial(params, *skill(params, draw)))
    return rows


def contents_of(
    folder: Path,
    rows: Sequence[dict[str, Any]],
    space: Sequence[dict[str, Any]] = GRID,
    tested: Sequence[dict[str, Any]] = (),
    stats: Mapping[str, Any] | None = None,
    **config: Any,
) -> Contents:
    """A run whose index has a sweep of some trials, opened; `tested` are scores of the best."""
    store = LocalStore(str(folder / "store"))
    run = Run(Recipe.model_validate({**RECIPE, "store": store.root}), store)
    metric = {"task": "arithmetic", "thought": "cot", "decode": "maj@8"}
    settings = {"student": "cot", "metric": metric, "space": space, "searcher": "grid", "scheduler": "none"} | config
    writer = Writer(store, Address("sweep", 1, settings, {"trials": [row["id"] for row in rows]}))
    files = [writer.put_lines("trials.jsonl", rows), writer.put_lines("tested.jsonl", tested)]
    run.keep("sweep", "ledger", writer.commit(files, {"trials": len(rows), **(stats or {})}))
    return open_run(store, index_of(run))


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> Contents:
    return contents_of(tmp_path_factory.mktemp("grid"), grid())


@pytest.fixture(scope="module")
def swept(contents: Contents) -> Sweep:
    return opened_sweep(contents)


@pytest.fixture(scope="module")
def section(contents: Contents) -> Section:
    (made,) = sweeps(contents)
    return made


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Contents:
    """200 trials of a search, of which a fifth were stopped."""
    folder = tmp_path_factory.mktemp("search")
    return contents_of(folder, search(200), DRAWN, searcher="tpe", scheduler="asha")


@pytest.fixture(scope="module")
def of_search(searched: Contents) -> Section:
    (made,) = sweeps(searched)
    return made


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


def opened_sweep(contents: Contents) -> Sweep:
    found = open_sweep(contents)
    assert found is not None
    return found


def figures_of(section: Section) -> dict[str, Figure]:
    return {figure.name: figure for block in section.blocks if isinstance(block, Figures) for figure in block.figures}


def texts_of(figure: Figure) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", figure.svg)


def table_of(section: Section) -> list[dict[str, str]]:
    (table,) = [block for block in section.blocks if isinstance(block, Table)]
    return [dict(zip((column.name for column in table.columns), row, strict=True)) for row in table.rows]


def told_by(section: Section) -> str:
    return " ".join(block.text for block in section.blocks if isinstance(block, Remark))


def scores(*correct: int) -> list[Score]:
    return [Score(**score("greedy", each)) for each in correct]


def scored(params: Sequence[dict[str, Any]], correct: Sequence[int]) -> list[tuple[Trial, Score]]:
    """Trials of these parameters with what they scored."""
    made = [Trial(str(n), each, "finished", None, (), 6, None, (), 1.0, "cot") for n, each in enumerate(params)]
    return list(zip(made, scores(*correct), strict=True))


@pytest.mark.parametrize(
    ("correct", "kind", "value", "low", "high"),
    [
        ([80], "wilson", 0.40, *wilson(80, PROBLEMS)),
        ([80, 80, 80], "wilson", 0.40, *wilson(80, PROBLEMS)),  # no spread is not certainty
        ([80, 96], "range", 0.44, 0.40, 0.48),
        ([80, 88, 96], "t", 0.44, 0.44 - 4.3027 * 0.04 / math.sqrt(3), 0.44 + 4.3027 * 0.04 / math.sqrt(3)),
        ([0, 2, 40], "t", 0.07, 0.0, 0.07 + 4.3027 * 0.112694 / math.sqrt(3)),  # no share is below none
    ],
)
def test_an_estimate_says_how_far_it_is_known_and_by_what(
    correct: list[int], kind: str, value: float, low: float, high: float
):
    made = estimate(scored([{"training.seed": seed} for seed in range(len(correct))], correct))
    assert (made.kind, made.trials) == (kind, len(correct))
    assert (made.value, made.low, made.high) == pytest.approx((value, low, high), abs=1e-5)


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ([100, 104, 107], [80, 82, 88], "30 is ahead of 1 by 10.2 points (+8.3 to +12.1, 3 pairs)"),
        ([80, 82, 88], [100, 104, 107], "30 is behind 1 by 10.2 points (−12.1 to −8.3, 3 pairs)"),
        ([100, 80, 90], [80, 98, 88], "30 cannot be told from 1: +0.7 points (−22.9 to +24.3, 3 pairs)"),
        ([100, 80], [60, 40], "30 against 1 cannot be judged: +20.0 points (2 pairs)"),
        ([100, 80, 70], [80, 60, 50], "30 against 1 cannot be judged: +10.0 points (3 pairs)"),
        ([100], [60], "30 is ahead of 1 by 20.0 points (1 pair)"),
        ([100], [90], "30 cannot be told from 1: +5.0 points (1 pair)"),
    ],
)
def test_a_difference_is_claimed_only_where_an_interval_holds_no_zero(first: list[int], second: list[int], words: str):
    met = tuple(zip(scores(*first), scores(*second), strict=True))
    assert told("30", "1", Pairs(met, tuple(map(str, range(len(met)))))) == words


def test_what_was_swept_besides_the_seed_is_no_chance():
    """Four sample counts of three seeds are three draws of a difference, and no twelve."""
    counts, seeds = (1, 4, 16, 30), range(3)
    params = [{"selection.num_chains": chains, "training.seed": seed} for chains in counts for seed in seeds]
    right = [place * 20 + seed for place in range(4) for seed in seeds]
    made = estimate(scored(params, right))
    assert (made.kind, made.low, made.high) == ("range", 0.0, 62 / PROBLEMS)
    other = scores(*(each + 10 + 2 * (number % 3) for number, each in enumerate(right)))
    found = Pairs(tuple(zip(other, scores(*right), strict=True)), tuple(str(number % 3) for number in range(12)))
    assert found.by_seed == pytest.approx([0.05, 0.06, 0.07])
    assert told("all", "correct", found).endswith("(+3.5 to +8.5, 12 pairs of 3 seeds)")
    alone = Pairs(found.scores, ("0",) * 12)
    assert (alone.interval, judged(alone)) == (None, "few")


def test_a_trial_is_shown_by_the_score_that_it_is_ranked_by(tmp_path: Path):
    rows = [trial({"thoughts": thoughts}, 60, 60) for thoughts in (["cot"], ["pot", "cot"])]
    rows[1]["thought"], rows[1]["value"] = "pot", 0.6
    rows[1]["scores"] += [each | {"thought": "pot", "correct": 120, "accuracy": 0.6} for each in rows[1]["scores"]]
    swept = opened_sweep(contents_of(tmp_path, rows, [{"thoughts": [["cot"], ["pot", "cot"]]}]))
    best = swept.score(swept.ranked[0], "maj@8")
    assert best is not None
    assert (best.thought, best.accuracy) == ("pot", swept.ranked[0].value)


@pytest.mark.parametrize("searched", [False, True])
def test_the_recipe_of_a_sweep_on_the_page_starts_the_same_one(tmp_path: Path, searched: bool):
    ranges = 'sweep.space={ training.learning_rate = { low = 1e-4, high = 1e-2, log = true }, thoughts = [["cot"]] }'
    overrides = ["sweep.searcher=tpe", "sweep.trials=3", ranges] if searched else []
    recipe = load(DEMO, overrides)
    fields = recipe.model_dump(mode="json", exclude={"store"})
    again = Recipe.model_validate(tomllib.loads(recipe_text(fields)))
    assert again.model_dump(mode="json", exclude={"store"}) == fields


def test_tables_of_the_same_fields_are_kept_apart(tmp_path: Path):
    space = [
        {"selection.num_chains": [1, 30], "selection.pick": ["first"], "training.seed": [0, 1, 2]},
        {"selection.num_chains": [30], "selection.pick": ["random", "likely"], "training.seed": [0, 1, 2]},
    ]
    rows = [
        trial(dict(zip(table, values, strict=True)), 60, 60)
        for table in space
        for values in itertools.product(*table.values())
    ]
    swept = opened_sweep(contents_of(tmp_path, rows, space))
    assert [len(members) for members in swept.tables] == [6, 6]
    (chains,) = [each for each in swept.parameters if each.name == "selection.num_chains"]
    assert [len(having(swept, chains, level, "greedy")) for level in range(2)] == [3, 3]


def test_importance_is_not_read_off_noise(tmp_path: Path):
    drawn = random.Random(5)
    rows = [
        trial({"selection.rule": rule, "selection.pick": pick, "training.seed": seed}, 60, drawn.randrange(60, 140))
        for rule in ("correct", "all")
        for pick in ("first", "random")
        for seed in range(3)
    ]
    space = [{"selection.rule": ["correct", "all"], "selection.pick": ["first", "random"], "training.seed": [0, 1, 2]}]
    assert "no better than their mean" in str(importance(opened_sweep(contents_of(tmp_path, rows, space))))


def test_trials_that_failed_are_told_of(tmp_path: Path):
    (section,) = sweeps(contents_of(tmp_path, grid()[:24], stats={"wanted": 30, "failures": {"a1": "no chains"}}))
    assert "24 of 30 trials (searcher grid)" in told_by(section)
    assert "1 failed, the first for: no chains." in told_by(section)


def test_pairs_are_of_trials_alike_in_all_else(swept: Sweep):
    (chains,) = [each for each in swept.parameters if each.name == "selection.num_chains"]
    first, second = (having(swept, chains, level, "greedy") for level in (3, 0))
    assert len(first) == len(second) == 6  # two rules, three seeds; the picks say nothing of num_chains
    by_params = {json.dumps(row["params"], sort_keys=True): row for row in grid()}
    expected: list[float] = []
    for trial, _ in first:
        twin = by_params[json.dumps({**trial.params, "selection.num_chains": 1}, sort_keys=True)]
        own = by_params[json.dumps({**trial.params}, sort_keys=True)]
        expected.append(own["scores"][0]["accuracy"] - twin["scores"][0]["accuracy"])
    found = pairs(chains, first, second)
    assert found.differences == pytest.approx(expected)
    assert len(set(expected)) > 1


def test_the_best_trial_stands_with_its_interval_and_all_who_lie_within(section: Section, swept: Sweep):
    best = max(grid(), key=lambda row: row["value"])
    low, high = wilson(round(best["value"] * PROBLEMS), PROBLEMS)
    within = sum(low <= row["value"] <= high for row in grid()) - 1
    settings = {name: value for name, value in best["params"].items() if name != "training.seed"}
    alike = [row["value"] for row in grid() if row["params"].items() >= settings.items()]
    told = told_by(section)
    assert within > 0
    assert len(alike) == 3
    assert f"{best['id']} (num_chains = 30, rule = correct, seed = 2) has the highest accuracy" in told
    assert f"{100 * best['value']:.1f}% of 200 problems (95% interval {100 * low:.1f}–{100 * high:.1f}%)" in told
    assert f"{within} of the other 29 lie within that interval" in told
    assert f"Over the 3 seeds of its settings the mean is {100 * sum(alike) / 3:.1f}%" in told
    assert "chosen by the very scores that it is shown with" in told


def test_accuracy_stands_against_the_number_of_chains_for_each_decode_and_rule(section: Section):
    found = figures_of(section)
    percents: list[set[str]] = []
    for decode in ("greedy", "maj-8"):
        figure = found[f"sweep-selection-num_chains-{decode}"]
        assert [text for text in texts_of(figure) if text.isdigit()] == ["1", "4", "16", "30"]
        assert figure.legend == (("rule = correct", "blue"), ("rule = all", "orange"))
        assert "The trials of a point differ in their seed alone." in figure.caption
        assert "Bars: Student's t over the seeds of a point." in figure.caption
        assert figure.caption.count("num_chains = 30 is ahead of 1 by") == 2
        percents.append({text for text in texts_of(figure) if "%" in text})
    assert percents[0] == percents[1]  # one scale, so that decodes can be compared


def test_words_are_compared_with_the_first_and_not_with_the_best(section: Section):
    caption = figures_of(section)["sweep-selection-pick"].caption
    by_pick = {row["params"].get("selection.pick"): row["value"] for row in grid()}
    assert "Against first, in points of maj@8: " in caption
    for pick in ("random", "diverse", "likely", "open_ended", "shortest"):
        difference = f"{100 * (by_pick[pick] - by_pick['first']):+.1f}".replace("-", "−")
        assert f"{pick} ({difference}; 1 pair)" in caption
    assert "Wilson's" in caption


def test_the_map_holds_means_and_counts_of_trials_that_have_both_parameters(section: Section):
    figure = figures_of(section)["sweep-heat"]
    expected: Counter[str] = Counter()
    for chains in GRID[0]["selection.num_chains"]:
        for rule in GRID[0]["selection.rule"]:
            cell = {"selection.num_chains": chains, "selection.rule": rule}.items()
            values = [row["value"] for row in grid() if row["params"].items() >= cell]
            assert len(values) == 3
            expected[f"{100 * sum(values) / 3:.1f}%"] += 1
    assert Counter(text for text in texts_of(figure) if "%" in text) == expected
    assert texts_of(figure).count("n = 3") == 8


def test_importance_is_the_same_each_time_and_finds_what_the_scores_were_made_of(swept: Sweep, searched: Contents):
    found, drawn = importance(swept), importance(opened_sweep(searched))
    assert isinstance(found, Importance)
    assert isinstance(drawn, Importance)
    assert importance(swept) == found
    for each in (found, drawn):
        assert sum(each.shares.values()) == pytest.approx(1)
        assert next(iter(each.shares)) == "selection.num_chains"
    # The picks are a table of their own, of six trials that differ from the others in more than the pick.
    assert set(found.shares) == {"selection.num_chains", "selection.rule", "training.seed"}
    assert found.trials == 24


def test_trials_of_a_table_that_holds_a_parameter_at_one_value_are_not_mixed_with_others(tmp_path: Path):
    apart = sweeps(contents_of(tmp_path / "apart", grid()))
    rows = grid()
    for row in rows[-6:]:
        row["params"]["selection.num_chains"] = 30
    (section,) = sweeps(contents_of(tmp_path / "held", rows))
    names = "sweep-selection-num_chains-greedy", "sweep-selection-num_chains-maj-8", "sweep-heat", "sweep-importance"
    for name in names:
        assert figures_of(section)[name] == figures_of(apart[0])[name]


def test_means_by_sample_count_stand_in_a_table_with_their_intervals(section: Section):
    (table,) = [
        block for block in section.blocks if isinstance(block, Table) and block.caption.startswith("Mean accuracy")
    ]
    assert [column.name for column in table.columns] == ["rule", "num_chains", "maj@8", "greedy"]
    assert [row[:2] for row in table.rows] == [
        (rule, chains) for rule in ("correct", "all") for chains in ("1", "4", "16", "30")
    ]
    of_first = [row["value"] for row in grid() if row["params"].get("selection.num_chains") == 1][:3]
    assert table.rows[0][2].startswith(f"{100 * sum(of_first) / 3:.1f}% (95% interval ")
    assert table.rows[0][2].endswith(", 3 trials)")


@pytest.mark.parametrize(
    ("chosen", "reason"),
    [
        (slice(0, 11), "11 trials with a score are too few for 3 parameters; it takes 12"),
        (slice(24, 30), "the trials differ in one parameter"),
    ],
)
def test_no_importance_is_made_up(tmp_path: Path, chosen: slice, reason: str):
    contents = contents_of(tmp_path, grid()[chosen])
    assert importance(opened_sweep(contents)) == reason
    (section,) = sweeps(contents)
    assert f"No importance of parameters is given: {reason}." in told_by(section)
    assert "sweep-importance" not in figures_of(section)


def test_equal_scores_have_no_importance(tmp_path: Path):
    rows = [row | {"value": 0.5} for row in grid()]
    assert importance(opened_sweep(contents_of(tmp_path, rows))) == "all trials have the same score"


def test_drawn_numbers_are_cut_into_bins_of_as_many_trials(searched: Contents):
    levels = {each.name: each for each in opened_sweep(searched).parameters}
    rate = levels["training.learning_rate"]
    counts = Counter(rate.level(row["params"][rate.name]) for row in search(200))
    assert counts == dict.fromkeys(range(5), 40)
    assert rate.is_log
    chains = levels["selection.num_chains"]
    bounds = [tuple(map(int, level.split("–"))) for level in chains.levels]
    assert all(high < low for (*_, high), (low, *_) in itertools.pairwise(bounds))  # equal values share a bin
    assert levels["training.steps"].levels == ("200", "400", "600", "800", "1000", "1200")
    assert levels["selection.rule"].levels == ("correct", "all", "majority")


def test_stopped_trials_have_a_curve_and_no_score(of_search: Section):
    rows = table_of(of_search)
    assert [row["state"] for row in rows] == ["finished"] * 160 + ["stopped"] * 40
    values = [float(row["maj@8"].split("%")[0]) for row in rows[:160]]
    assert values == sorted(values, reverse=True)
    assert {row["maj@8"] for row in rows[160:]} == {"–"}
    assert {row["steps done"] for row in rows[160:]} == {"100", "200"}
    assert "200 trials (searcher tpe, scheduler asha), 40 of them stopped early" in told_by(of_search)
    assert "40 were stopped early, after 100 to 200 steps" in figures_of(of_search)["sweep-losses"].caption
    assert "tpe searcher tried more of what looked good" in told_by(of_search)


def test_two_hundred_trials_make_small_pictures_and_equal_bytes(searched: Contents, of_search: Section):
    assert sweeps(searched) == [of_search]
    found = figures_of(of_search)
    assert max(len(figure.svg) for figure in found.values()) < 300_000
    assert found["sweep-trials"].svg.count("<path") > 200


def test_the_command_gives_the_best_trial_s_recipe(tmp_path: Path):
    """The overrides are read as the command line reads them, onto the recipe's own file."""
    params = {
        "selection.rule": "all",
        "selection.chains_per_problem": 3,
        "thoughts": ["cot", "pot"],
        "student.init": "random",
        "training.learning_rate": 0.00123456789,
        "training.seed": 2,
    }
    contents = contents_of(tmp_path, [trial(params, 90, 99)], [{name: [value] for name, value in params.items()}])
    (section,) = sweeps(contents)
    (command,) = [block.text for block in section.blocks if isinstance(block, Listing)]
    program, _, *overrides = shlex.split(command.replace("\\\n", ""))
    (tmp_path / "recipe.toml").write_text(recipe_text(RECIPE))
    recipe = load(tmp_path / "recipe.toml", overrides)
    assert program == "jobs/distill.py"
    assert (recipe.corpus[0].selection.rule, recipe.corpus[0].selection.chains_per_problem) == ("all", 3)
    assert recipe.corpus[0].thoughts == ("cot", "pot")
    student = recipe.student[0]
    assert (student.init, student.training.learning_rate, student.training.seeds) == ("random", 0.00123456789, (2,))


def test_a_run_without_a_sweep_has_no_section_and_one_without_scores_says_so(tmp_path: Path, contents: Contents):
    assert sweeps(Contents(contents.run, {})) == []
    only = contents_of(tmp_path, [stopped({"selection.num_chains": 4}, 100)])
    (section,) = sweeps(only)
    assert "None of 1 trials has a score, so that nothing can be compared." in told_by(section)
    assert table_of(section)[0]["state"] == "stopped"


def test_a_level_that_only_stopped_trials_have_is_not_drawn(tmp_path: Path):
    base = {"selection.num_chains": 4, "training.seed": 0}
    rows = [trial(base, 90, 99), *(stopped({**base, "selection.pick": pick}, 100) for pick in ("first", "random"))]
    space = [{"selection.num_chains": [4], "selection.pick": ["first", "random"], "training.seed": [0]}]
    (section,) = sweeps(contents_of(tmp_path, rows, space, scheduler="asha"))
    assert set(figures_of(section)) == {"sweep-trials", "sweep-losses"}
    assert [row["pick"] for row in table_of(section)] == ["–", "first", "random"]


def test_words_are_compared_with_the_recipe_s_own_where_it_was_tried(tmp_path: Path):
    rows = [
        trial({"selection.rule": rule, "training.seed": seed}, 0, right + seed * step)
        for rule, right, step in (("all", 60, 5), ("correct", 100, 9))
        for seed in range(3)
    ]
    space = [{"selection.rule": ["all", "correct"], "training.seed": [0, 1, 2]}]
    (section,) = sweeps(contents_of(tmp_path, rows, space))
    caption = figures_of(section)["sweep-selection-rule"].caption
    # Differences of −20, −22 and −24 points: ± 4.3027 × 2 / √3.
    assert "Against correct, in points of maj@8: all (−22.0; −27.0 to −17.0, 3 pairs) behind." in caption


def test_one_trial_is_shown_without_comparisons(tmp_path: Path):
    (section,) = sweeps(contents_of(tmp_path, grid()[:1]))
    assert "The one trial" in told_by(section)
    assert list(figures_of(section)) == ["sweep-losses"]


def test_the_section_fits_a_desk_and_a_phone(browser: Browser, searched: Contents, of_search: Section, tmp_path: Path):
    file = tmp_path / "index.html"
    file.write_bytes(render(searched, [of_search]))
    with watched(browser, file) as window:
        for width in (1280, 390):
            window.set_viewport_size({"width": width, "height": 800})
            assert check_plots(window) == len(figures_of(of_search)) == 12
            assert window.evaluate("document.documentElement.scrollWidth") == width
        box = window.get_by_role("region", name="Trials on arithmetic").bounding_box()
        assert box is not None
        assert box["height"] < 600  # 200 rows scroll in a box of their own


def test_what_a_recipe_says_is_shown_and_not_run(browser: Browser, tmp_path: Path):
    nasty = "</text></svg><script>alert(1)</script><img src=x onerror=alert(2)> $\\alpha$ \u202e"
    rows = [
        trial({"selection.pick": pick, "training.seed": seed}, 90 + seed, 100 + seed)
        for pick in (nasty, "first", "{{ 7 * 7 }}")
        for seed in range(4)
    ]
    contents = contents_of(tmp_path, rows, [{"selection.pick": ["first", nasty], "training.seed": [0, 1, 2, 3]}])
    (tmp_path / "index.html").write_bytes(render(contents, sweeps(contents)))
    with watched(browser, tmp_path / "index.html") as window:
        assert window.locator("img, #sweep script").count() == 0
        cells = window.get_by_role("cell").all_inner_texts()
        assert nasty.replace("\u202e", "⟨U+202E⟩") in cells
        assert "{{ 7 * 7 }}" in cells
        assert window.locator("svg.plot text", has_text="⟨U+202E⟩").count() > 0


def test_the_sweep_stands_below_the_result(contents: Contents, tmp_path: Path):
    run = open_run(*distilled(tmp_path))
    titles = [section.title for section in compose(Contents(run.run, run.artifacts | contents.artifacts))]
    assert titles[:2] == ["Result", "Sweep"]


def test_what_was_chosen_on_dev_problems_is_told_of_on_the_test_problems(tmp_path: Path) -> None:
    (made,) = sweeps(contents_of(tmp_path, grid(), tested=[score("greedy", 60), score("maj@8", 70)], split="dev"))
    (best, *_) = made.blocks
    assert isinstance(best, Remark)
    assert "on the dev problems of arithmetic" in best.text
    assert "On the test problems, which no trial was chosen by, it has 35.0% of 200 (95% interval" in best.text
