"""The report of a run with several students: seeds, combiners, a Socratic pair, programs, pairs, assumed fields."""

import random
import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from retort.comparison import compare
from retort.config import Recipe
from retort.pipeline import measure, measured
from retort.planning import student_parts
from retort.records import Problem, Split, Verdict
from retort.report import report
from retort.report.acceptance import acceptance, run_palette
from retort.report.blocks import Figures, Remark, Table
from retort.report.contents import Contents, open_run
from retort.report.cost import stage_seconds
from retort.report.curves import training
from retort.report.lineage import lineage
from retort.report.plots import COLOURS
from retort.report.reasons import COLOURS as REASON_COLOURS
from retort.report.reasons import OTHER, SPARE, palette
from retort.report.recipes import recipe_text, value
from retort.report.scores import spoken
from retort.rollouts import Rollout
from retort.run import Run, index
from retort.store.artifacts import Address, Artifact, Writer
from retort.store.local import LocalStore
from retort.training.config import TrainingConfig
from retort.verification import VerificationConfig
from test_report import check_plots, checkpoint, chromium, corpus, found, sampled, watched

TRAINING = {"steps": 300, "batch_examples": 16, "learning_rate": 1e-3, "max_example_tokens": 256}
SEEDED = {**TRAINING, "seeds": [0, 1, 2]}
COMBINE = ["fallback:pot,eot,cot", "majority:cot,pot,eot", "weighted:pot,eot,cot", "oracle:pot,eot,cot"]
RECIPE: dict[str, Any] = {
    "name": "ensemble",
    "assumed": [
        "teacher.tiny.temperature",
        "teacher.tiny.exemplars",
        "teacher.tiny.stop",
        "student.etd.training.steps",
    ],
    "task": [{"id": "arithmetic", "train": 40, "dev": 20, "test": 80}],
    "teacher": [
        {
            "id": "tiny",
            "engine": "vllm",
            "model": "shipped:teacher",
            "temperature": 1.0,
            "max_new_tokens": 96,
            "num_chains": 2,
            "exemplars": 4,
            "stop": ["</td><b class=injected>"],
        }
    ],
    "corpus": [
        {"id": "etd", "tasks": ["arithmetic"], "teachers": ["tiny"], "thoughts": ["pot", "eot", "cot"]},
        {"id": "cot", "tasks": ["arithmetic"], "teachers": ["tiny"], "thoughts": ["cot"]},
        {"id": "socratic", "tasks": ["arithmetic"], "thoughts": ["socratic"]},
        {"id": "labels", "tasks": ["arithmetic"], "thoughts": ["answer"]},
    ],
    "student": [
        {"id": "etd", "base": "shipped:student", "corpus": "etd", "training": SEEDED},
        {"id": "cot", "base": "shipped:student", "corpus": "cot", "training": SEEDED},
        {
            "id": "pair",
            "base": "shipped:student",
            "corpus": "socratic",
            "training": TRAINING,
            "rollout": {"calculator": True, "iterative": {"questions": "interleaved"}},
        },
        {"id": "label-only", "base": "shipped:student", "corpus": "labels", "training": TRAINING},
    ],
    "evaluation": {
        "tasks": ["arithmetic"],
        "references": {"tiny": ["arithmetic"], "base": ["arithmetic"]},
        "decodes": ["greedy"],
        "combine": COMBINE,
    },
}
TRAINED: dict[str, dict[str, Any]] = {
    "etd@1": {"went_on_from": [40, 260, 260]},
    "cot@0": {"planned": 800, "accuracy_at": 200, "truncated": 2, "truncated_tokens": 31},
    "cot@1": {"accuracy_at": 400},
    "cot@2": {"accuracy_at": 100, "went_on_from": [7]},
}
SKILL = {"tiny": 0.9, "etd": 0.7, "cot": 0.55, "pair": 0.5, "label-only": 0.1, "base": 0.02}
FAILURES = {
    "pot": ["raised NameError", "raised ZeroDivisionError", "raised TypeError", "syntax", "time", "not_a_number"],
    "eot": ["no_solution", "parse", "no_solution", "several_solutions", "symbolic"],
    "cot": ["no_answer", "truncated"],
    "socratic": ["no_answer", "truncated"],
    "answer": ["no_answer"],
}
PROGRAM = "eggs = {n}\nfor bought in ({n},):\n    if bought > 0:\n        eggs += bought  # <b>\nans = eggs{end}"
TEXTS = {
    "pot": PROGRAM,
    "eot": "% Nora has {n} eggs\na = {n}\n% She buys as many\nb = a * 2\nans = b{end}",
    "cot": "{n} + {n} = <<{n}+{n}={said}>>{said}. The answer is {said}.{end}",
    "socratic": "How many does she have first? ** She has <<{n}+0={n}>>{n}.\n"
    "How many does she have in the end? ** {n} + {n} = <<{n}+{n}={said}>>{said}\n#### {said}{end}",
    "answer": "{said}{end}",
}


def problems() -> list[Problem]:
    made: list[Problem] = []
    splits: list[tuple[Split, int]] = [("train", 40), ("dev", 20), ("test", 80)]
    for split, number in splits:
        for row in range(number):
            made.append(
                Problem(
                    f"arithmetic/{split}/{row:05}",
                    "arithmetic",
                    split,
                    f"Nora has {row} eggs and buys as many. How many has she?",
                    "number",
                    str(2 * row),
                    sub_questions=("How many eggs does Nora have at first?", "How many does she have in the end?"),
                )
            )
    return made


def verdicts(model: str, thoughts: Sequence[str], rows: Sequence[Problem], num_chains: int = 1) -> list[Verdict]:
    """Verdicts as verification would write them; some problems are hard for everyone."""
    draw = random.Random(model)
    skill = SKILL[model.split("@")[0].split(" ")[0]]
    made: list[Verdict] = []
    for problem in rows:
        hardness = random.Random(problem.id).uniform(-0.3, 0.3)
        for thought in thoughts:
            for number in range(num_chains):
                luck = draw.random()
                failed = draw.choice(FAILURES[thought]) if luck > 0.85 else "wrong"
                reason = "correct" if luck < skill + hardness else failed
                answer = {"correct": problem.answer, "wrong": "-1"}.get(reason)
                n = int(problem.answer or 0) // 2
                steps = {"cot": 1, "socratic": 2}.get(thought, 0)
                made.append(
                    Verdict(
                        problem_id=problem.id,
                        task=problem.task,
                        split=problem.split,
                        thought=thought,
                        index=number,
                        question=problem.question,
                        prompt=f"Question: {problem.question}\n",
                        gold=problem.answer,
                        text=TEXTS[thought].format(n=n, said=answer, end=f"  # {model} {number}"),
                        answer=answer,
                        is_correct=reason == "correct",
                        reason=reason,
                        num_prompt_tokens=30,
                        num_tokens=draw.randrange(10, 90),
                        model_id=model,
                        num_steps=steps,
                        num_right_steps=steps if reason == "correct" else steps // 2,
                    )
                )
    return made


def distilled(store: LocalStore) -> Artifact:
    """A store with all stages of a run, as `pipeline.distill` leaves them; the run's index."""
    recipe = Recipe.model_validate({**RECIPE, "store": store.root})
    run = Run(recipe, store)
    rows = problems()
    writer = Writer(store, Address("problems", 1, {}, {}))
    kept = writer.commit([writer.put_records("problems.parquet", Problem, rows)], Counter(row.split for row in rows))
    run.keep("problems", "arithmetic", kept)
    by_split = {split: [row for row in rows if row.split == split] for split in ("train", "dev", "test")}
    learned = [*by_split["train"], *by_split["dev"]]
    for thought in ("pot", "eot", "cot"):
        sampled(run, f"tiny/{thought}", verdicts("tiny", [thought], learned, 2))
    for made in recipe.corpus:
        corpus(run, made.id, verdicts("tiny", made.thoughts, learned, 2))
    asked = [("tiny", ("pot", "eot", "cot")), ("base shipped:student", ("pot", "cot"))]
    for student in recipe.student:
        for name, _, seed in student_parts(student):
            checkpoint(run, name, steps=300 + 100 * seed, **TRAINED.get(name, {}))
        asked += [(name, recipe.find_corpus(student.corpus).taught) for name in student.runs]
    for name, thoughts in asked:
        sampled(run, f"{name}/test-greedy", verdicts(name, thoughts, by_split["test"]))
        if len(thoughts) == 3:
            sampled(run, f"{name}/test-dev", verdicts(name, thoughts, by_split["dev"]))
        measure(run, name, ("greedy",))
    run.keep("comparison", "students", compare(store, measured(run)))
    return index(run)


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> Contents:
    store = LocalStore(str(tmp_path_factory.mktemp("store")))
    return open_run(store, distilled(store))


@pytest.fixture(scope="module")
def file(contents: Contents) -> Path:
    return Path(report(contents.run.store, contents.run).directory(), "index.html")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture
def opened(browser: Browser, file: Path) -> Iterator[Page]:
    with watched(browser, file) as window:
        yield window


def rows_of(window: Page, name: str) -> list[dict[str, str]]:
    """The rows of a table of the page, by the names of its columns."""
    table = window.get_by_role("table", name=name, exact=True)
    header = table.locator("thead th").all_inner_texts()
    body = [row.locator("th, td").all_inner_texts() for row in table.locator("tbody tr").all()]
    return [dict(zip(header, row, strict=True)) for row in body]


def scores_of(contents: Contents, name: str) -> dict[str, dict[str, Any]]:
    return {row["thought"]: row for row in contents.stage("evaluation")[name].lines("scores.jsonl")}


def with_recipe(contents: Contents, **fields: Any) -> Contents:
    run = replace(contents.run, manifest={**contents.run.manifest, "config": {**contents.recipe, **fields}})
    return Contents(run, contents.artifacts)


def test_the_page_has_its_sections_and_no_errors(opened: Page):
    titles = opened.locator("section h2").all_inner_texts()
    assert titles == [
        "Result",
        "Papers",
        "Thoughts",
        "Comparison",
        "Acceptance",
        "Difficulty",
        "Cost",
        "Training",
        "Failures",
        "Chains",
        "Lineage",
    ]
    assert opened.locator("img, b.injected, .chain-text *").count() == 0


@pytest.mark.parametrize("width", [1280, 390])
def test_plots_fit_and_nothing_scrolls_sideways(opened: Page, width: int):
    opened.set_viewport_size({"width": width, "height": 800})
    # Results, thoughts, verdicts, fates, pass rates (teacher, student), seconds; curves of 3 students and of a pair.
    assert check_plots(opened) == 12
    assert opened.evaluate("document.documentElement.scrollWidth") == width


def test_a_student_of_several_seeds_is_its_mean_beside_the_interval_of_its_first(opened: Page, contents: Contents):
    shown = {row["model"]: row for row in rows_of(opened, "Scores on arithmetic")}
    means = {(row["student"], row["thought"]): row for row in contents.compared("seeds.jsonl")}
    for student, thought in (("etd", "fallback:pot,eot,cot"), ("cot", "cot")):
        row, first = means[student, thought], scores_of(contents, f"{student}@0")[thought]
        assert row["sd"] > 0
        assert shown[student]["accuracy"] == f"{100 * row['mean']:.1f} ± {100 * row['sd']:.1f}%"
        assert shown[student]["seeds"] == "3"
        assert shown[student]["95% interval"] == f"{100 * first['low']:.1f}–{100 * first['high']:.1f}%"
        assert shown[student]["correct"] == f"{first['correct']} of 80"
    alone = scores_of(contents, "label-only")["answer"]
    assert shown["label-only"]["accuracy"] == f"{100 * alone['accuracy']:.1f}%"
    assert shown["label-only"]["seeds"] == "1"
    assert "etd@0" not in shown
    sentence = opened.locator("#result .finding").first.inner_text()
    assert "student etd · fallback: pot, eot, cot, the best here of 3 students, is right on" in sentence
    assert (
        f"{shown['etd']['accuracy']} over 3 seeds (95% interval of the first {shown['etd']['95% interval']})"
        in sentence
    )


def test_the_sentence_tells_students_apart_by_the_test_of_the_comparison(opened: Page, contents: Contents):
    by_intervals, by_problem = opened.locator("#result .finding").all_inner_texts()
    pairs = [pair for pair in contents.compared("pairs.jsonl") if pair["first"] == "etd"]
    assert {pair["second"] for pair in pairs} == {"cot", "pair", "label-only"}
    for pair in pairs:
        clause = by_problem[by_problem.index(f"{pair['second']} (") :].split(")")[0]
        p = "< 0.0001" if pair["p"] < 1e-4 else f"= {pair['p']:.4f}"
        difference, low, high = (f"{100 * pair[key]:+.1f}".replace("-", "−") for key in ("difference", "low", "high"))
        assert clause.endswith(f"%; {difference}, {low} to {high}, p {p}")
    assert all(pair["p"] < 0.05 < pair["difference"] for pair in pairs)
    assert by_problem.startswith("On the same problems, by the first seed of each (")
    assert "), etd · fallback: pot, eot, cot beats label-only (" in by_problem
    assert not any(words in by_problem for words in ("is behind", "cannot be told from"))
    for model in ("tiny · ", "base shipped:student · "):  # they have no pairs: the intervals must do
        assert model in by_intervals
        assert model not in by_problem


def test_the_ensemble_stands_against_every_student_of_one_thought(opened: Page, contents: Contents):
    means = {
        (row["student"], row["thought"]): 100 * row["mean"]
        for row in contents.compared("seeds.jsonl")
        if row["thought"] in ("fallback:pot,eot,cot", "cot", "socratic")
    }
    ensemble = means["etd", "fallback:pot,eot,cot"]
    told = opened.locator("#thoughts .finding").inner_text()
    assert told.startswith("On arithmetic, greedy, etd · fallback: pot, eot, cot (")
    for student, thought in (("cot", "cot"), ("pair", "socratic")):
        (ahead,) = re.findall(rf"(\S+) points ahead of {student} \(", told)
        assert float(ahead) == pytest.approx(ensemble - means[student, thought], abs=0.051)
    assert "label-only" not in told


def test_the_recipe_and_not_the_scores_decides_what_speaks_for_a_model(contents: Contents):
    speaking = {(row.model, row.score.thought) for row in spoken(contents) if row.model not in ("tiny", "pair")}
    base = {("base shipped:student", "pot"), ("base shipped:student", "cot")}  # no combiner: the best of both counts
    assert speaking == {("etd", "fallback:pot,eot,cot"), ("cot", "cot"), ("label-only", "answer"), *base}
    evaluation = {**contents.recipe["evaluation"], "combine": list(reversed(COMBINE))}
    turned = {row.model: row.score.thought for row in spoken(with_recipe(contents, evaluation=evaluation))}
    assert turned["etd"] == "weighted:pot,eot,cot"  # and not the bound, which is listed first


def test_thoughts_stand_beside_combiners_with_the_figures_of_the_artifact(opened: Page, contents: Contents):
    shown = {row["thought"]: row for row in rows_of(opened, "etd on arithmetic, greedy (student of chains)")}
    first = scores_of(contents, "etd@0")
    means = {row["thought"]: row for row in contents.compared("seeds.jsonl") if row["student"] == "etd"}
    weights = contents.stage("evaluation")["etd@0"].stats["weights"]
    names = {"oracle:pot,eot,cot": "oracle: pot, eot, cot (upper bound: needs gold)"}
    names |= {text: text.replace(":", ": ").replace(",", ", ") for text in COMBINE[:3]}
    assert list(shown) == [names.get(thought, thought) for thought in ("pot", "eot", "cot", *COMBINE)]
    for thought, score in first.items():
        row = shown[names.get(thought, thought)]
        assert row["accuracy"] == f"{100 * means[thought]['mean']:.1f} ± {100 * means[thought]['sd']:.1f}%"
        assert row["95% interval"] == f"{100 * score['low']:.1f}–{100 * score['high']:.1f}%"
        assert row["no answer"] == f"{100 * score['no_answer']:.1f}%"
        assert row["answered"] == f"{100 * (1 - score['no_answer']):.1f}%"
        weight = weights.get(thought)
        assert row["dev accuracy (weight)"] == ("–" if weight is None else f"{100 * weight:.1f}%")
    assert set(weights) == {"pot", "eot", "cot"}
    assert len({row["no answer"] for row in shown.values()}) > 2


def test_an_upper_bound_is_marked_as_one(opened: Page):
    figure = opened.locator("#figure-thoughts\\.etd\\.arithmetic\\.greedy")
    assert "an upper bound, which needs gold" in figure.locator(".legend").inner_text()
    label = figure.locator("svg").get_attribute("aria-label") or ""
    assert "oracle: pot, eot, cot (upper bound: needs gold)" in label
    assert "told the gold answers" in opened.locator("#thoughts").inner_text()
    assert "oracle" not in opened.locator("#result table").inner_text()


def test_pairs_are_listed_as_they_were_computed(opened: Page, contents: Contents):
    pairs = contents.compared("pairs.jsonl")
    shown = rows_of(opened, "Pairs of students")
    assert len(shown) == len(pairs) == 6
    for row, pair in zip(shown, pairs, strict=True):
        assert row["first"].split(" · ")[0] == pair["first"]
        assert row["second"].split(" · ")[0] == pair["second"]
        assert [row["only first"], row["only second"]] == [str(pair["only_first"]), str(pair["only_second"])]
        assert float(row["difference"].replace("−", "-")) == pytest.approx(100 * pair["difference"], abs=0.051)
        low, high = (float(bound.replace("−", "-")) for bound in row["95% interval"].split(" to "))
        assert (low, high) == pytest.approx((100 * pair["low"], 100 * pair["high"]), abs=0.051)
        assert row["p"] == ("< 0.0001" if pair["p"] < 1e-4 else f"{pair['p']:.4f}")
    assert shown[0]["first"] == "etd · fallback: pot, eot, cot"
    assert {row["p"] == "< 0.0001" for row in shown} == {True, False}
    told = opened.locator("#comparison").inner_text()
    for words in ("6 comparisons are listed", "not corrected", "share their test problems", "of its first seed"):
        assert words in told


def test_every_seed_stands_behind_its_mean(opened: Page, contents: Contents):
    shown = rows_of(opened, "Accuracy over seeds")
    assert Counter(row["student"] for row in shown) == {"etd": 7, "cot": 1}
    each = {name: scores_of(contents, f"etd@{name}")["majority:cot,pot,eot"]["accuracy"] for name in (0, 1, 2)}
    row = next(row for row in shown if row["thought"] == "majority: cot, pot, eot")
    assert row["each"] == ", ".join(f"{100 * accuracy:.1f}%" for accuracy in each.values())
    assert row["mean"] == f"{100 * sum(each.values()) / 3:.1f}%"
    (kept,) = (one for one in contents.compared("seeds.jsonl") if one["thought"] == "majority:cot,pot,eot")
    assert (row["sd"], row["seeds"]) == (f"{100 * kept['sd']:.1f}%", "3")


def test_right_steps_are_shares_of_the_annotations(opened: Page, contents: Contents):
    shown = {(row["model"], row["thought"]): row for row in rows_of(opened, "Calculator annotations")}
    assert {model for model, _ in shown} == {"tiny", "base shipped:student", "etd", "cot", "pair"}
    score = scores_of(contents, "pair")["socratic"]
    row = shown["pair", "socratic"]
    assert row["recomputed"] == str(score["steps"]) == "160"
    assert row["right"] == f"{100 * score['right_steps'] / score['steps']:.1f}%"
    assert 80 <= score["right_steps"] < 160
    assert ("etd", "pot") not in shown


def test_sub_questions_are_compared_with_the_data_sets_own(opened: Page, contents: Contents):
    (row,) = rows_of(opened, "Sub-questions")
    (asked,) = contents.stage("evaluation")["pair"].lines("questions.jsonl")
    assert row == {
        "model": "pair",
        "task": "arithmetic",
        "problems": "80",
        "BLEU": f"{asked['bleu']:.1f}",
        "#Q": f"{100 * asked['same_count']:.1f}%",
        "similarity": f"{asked['similarity']:.3f}",
    }
    assert 0 < asked["bleu"] < 100


def test_the_layers_that_protected_the_machine_are_named(contents: Contents):
    def told(contents: Contents) -> list[str]:
        blocks = acceptance(contents).blocks
        return [block.text for block in blocks if isinstance(block, Remark) and "sandbox" in block.text]

    (line,) = told(contents)
    assert line.endswith("protected by namespaces, seccomp, rlimits.")

    def protected(*layers: Sequence[str]) -> Contents:
        """The first plans ran under these layers, the others had nothing to run."""
        kept = contents.stage("verdicts")
        ran = [*layers, *([()] * (len(kept) - len(layers)))]
        changed = {
            name: replace(made, manifest={**made.manifest, "stats": {**made.stats, "sandbox": list(said)}})
            for (name, made), said in zip(kept.items(), ran, strict=True)
        }
        return Contents(contents.run, {**contents.artifacts, "verdicts": changed})

    (line,) = told(protected(["seccomp, rlimits"], ["namespaces, seccomp, rlimits"]))
    assert line.endswith("protected by namespaces, seccomp, rlimits; elsewhere by seccomp, rlimits.")
    assert told(protected()) == []


def test_fields_that_no_paper_states_are_listed_with_their_values(opened: Page, contents: Contents):
    shown = {row["field"]: row["value"] for row in rows_of(opened, "Assumed by the recipe")}
    assert shown == {
        "teacher.tiny.temperature": "1.0",
        "teacher.tiny.exemplars": "4",
        "teacher.tiny.stop": '["</td><b class=injected>"]',
        "student.etd.training.steps": "300",
    }
    assert "does not state the values of these fields" in opened.locator("#lineage").inner_text()
    recipe = Recipe.model_validate(RECIPE)
    for name in (*RECIPE["assumed"], "task.arithmetic.train", "student.pair.rollout.iterative.questions"):
        assert value(contents.recipe, name) == recipe.value(name)
    blocks = lineage(with_recipe(contents, assumed=[])).blocks
    assert "Assumed by the recipe" not in [block.caption for block in blocks if isinstance(block, Table)]


def test_no_reason_is_missing_from_the_table(opened: Page, contents: Contents):
    shown = {(row["model"], row["plan"]): row for row in rows_of(opened, "Verdicts by reason")}
    assert ("etd@2", "dev, for weights") in shown
    parts, kinds = run_palette(contents), set[str]()
    for sampling in contents.samplings:
        assert sampling.verdicts
        row, rest = shown[sampling.model, sampling.wording], Counter[str]()
        for reason, number in sampling.verdicts.stats["reasons"].items():
            words, part = reason.replace("_", " "), parts.part(reason)
            kinds.add(part)
            if part == reason:
                assert row[words].split(" ")[0] == str(number)
            else:
                assert f"{words} {number}" in row["in full, where reasons stand together"].split(", ")
                rest[part] += number
        for part, number in rest.items():
            assert row["raised an exception" if part == "raised" else part].split(" ")[0] == str(number)
    assert {"raised", OTHER, "correct"} < kinds


def test_colours_do_not_run_out():
    many = {f"reason_{number}": number for number in range(1, 60)}
    raised = {f"raised Error{number}": 2 for number in range(30)}
    made = palette([{"correct": 5, "wrong": 1, **many}, raised])
    assert {made.colour(reason) for reason in (*many, *raised, "never seen")} <= COLOURS.keys()
    grouped = made.grouped({"correct": 5, **many, **raised})
    assert sum(grouped.values()) == 5 + sum(many.values()) + 60
    assert list(grouped) == [
        "correct",
        "raised",
        "reason_59",
        OTHER,
    ]  # the two most frequent have a colour of their own
    assert len(set(made.colours.values())) == len(set(REASON_COLOURS.values())) + len(SPARE) + 1
    assert made.spelled_out({"wrong": 9, "reason_1": 3, "raised ValueError": 4}) == "raised ValueError 4, reason 1 3"


def test_chains_are_found_by_any_reason_and_keep_their_lines(opened: Page, contents: Contents):
    browser = opened.locator("#browser")
    known = {
        reason for sampling in contents.samplings if sampling.verdicts for reason in sampling.verdicts.stats["reasons"]
    }
    options = browser.get_by_label("reason").locator("option").all_inner_texts()
    assert set(options) == {"all", *(reason.replace("_", " ") for reason in known)}
    browser.get_by_label("reason").select_option("raised ZeroDivisionError")
    assert int(found(opened).split(" ")[0]) > 3
    assert set(opened.locator("#browser .reason").all_inner_texts()) == {"raised ZeroDivisionError"}
    assert set(
        opened.locator("#browser .chain-head").locator("text=raised").evaluate_all("e => e.map(x => x.style.cssText)")
    ) == {f"--reason: var(--{run_palette(contents).colour('raised ZeroDivisionError')});"}
    browser.get_by_label("reason").select_option("correct")
    browser.get_by_label("model").select_option("etd@0")
    browser.get_by_label("thought").select_option("pot")
    lines = opened.locator("#browser .chain-text").first.inner_text().split("\n")
    assert lines[1:4] == [lines[1], "    if bought > 0:", "        eggs += bought  # <b>"]
    assert lines[1].startswith("for bought in")
    browser.get_by_label("model").select_option("pair")
    browser.get_by_label("thought").select_option("socratic")
    lines = opened.locator("#browser .chain-text").first.inner_text().split("\n")
    assert [line.partition(" ** ")[0] for line in lines[:2]] == [
        "How many does she have first?",
        "How many does she have in the end?",
    ]
    assert lines[2].startswith("#### ")


def test_what_belongs_to_one_run_is_counted_together(contents: Contents, opened: Page):
    assert list(stage_seconds(contents)["checkpoint"]) == [
        *(f"{s}@{n}" for s in ("etd", "cot") for n in range(3)),
        "pair",
        "label-only",
    ]
    trained = {row["student"]: row["corpus"] for row in rows_of(opened, "Students")}
    assert (trained["pair/ask"], trained["pair/solve"], trained["etd@2"]) == ("socratic", "socratic", "etd")
    caption = opened.locator("#figure-curve-etd figcaption").inner_text()
    assert all(f"etd@{seed}: lowest dev loss" in caption for seed in range(3))


def test_what_was_kept_is_told_by_the_figure_that_chose_it(opened: Page):
    caption = opened.locator("#figure-curve-cot figcaption").inner_text()
    assert caption.startswith("cot, 3 seeds. cot@0: highest dev accuracy 62.5% at step 200, kept; stopped early, at ")
    assert "stopped early, at step 300 of 800; cot@1: highest dev accuracy 62.5% at step 400, kept; cot@2" in caption
    assert "lowest" not in caption
    rows = {row["student"]: row for row in rows_of(opened, "Students")}
    loss = f"{3.1 * 200**-0.28:.4f}"  # of the kept weights, though the last step's is lower
    shown = ("steps", "kept step", "dev loss", "dev accuracy", "cut off")
    assert [rows["cot@0"][key] for key in shown] == ["300 of 800", "200", loss, "62.5%", "2 (31 tokens)"]
    assert [rows["etd@1"][key] for key in shown] == ["400", "400", f"{3.1 * 400**-0.28:.4f}", "–", "0"]
    panels = {title: opened.locator(f"#figure-curve-{title} svg").text_content() or "" for title in ("etd", "cot")}
    assert {title: "dev accuracy" in words for title, words in panels.items()} == {"etd": False, "cot": True}


def test_steps_from_which_training_went_on_are_marked_and_counted(opened: Page):
    words = "went on after it had died"
    marks = {
        title: opened.locator(f"#figure-curve-{title} svg [style*='--purple']").count()
        for title in ("etd", "cot", "label-only")
    }
    assert marks == {"etd": 3 * 2, "cot": 1 * 3, "label-only": 0}  # in each panel, of all seeds
    legends = {title: words in opened.locator(f"#figure-curve-{title} .legend").inner_text() for title in marks}
    assert legends == {"etd": True, "cot": True, "label-only": False}
    caption = opened.locator("#figure-curve-etd figcaption").inner_text()
    assert (
        "etd@1: lowest dev loss 0.579 at step 400, kept; went on from steps 40, 260, 260 after it had died" in caption
    )
    times = {row["student"]: row["went on"] for row in rows_of(opened, "Speed of training")}
    assert {name: number for name, number in times.items() if number != "0"} == {"etd@1": "3", "cot@2": "1"}


def test_speed_is_of_all_steps_and_mfu_the_median(opened: Page):
    # Of 1,600 tokens of a step 1,200 are computed, every other time among 1,600 positions, else among as many.
    row = next(row for row in rows_of(opened, "Speed of training") if row["student"] == "pair/solve")
    assert row == {
        "student": "pair/solve",
        "workers": "2 on CPU, sharded",
        "time in steps": "15.0 s",
        "tokens/s": "32,000",
        "tokens spared": "25.0%",
        "padding": "14.3%",
        "MFU": "30.0%",
        "peak memory": "700 MB",
        "went on": "0",
    }
    assert (
        "FLOPs = tokens · (4 P + 2 P_trained) + scored · (4 H + 2 H_trained)"
        in opened.locator("#training").inner_text()
    )


def test_columns_of_what_did_not_happen_are_not_there(contents: Contents):
    calm = {name: made for name, made in contents.stage("checkpoint").items() if name not in TRAINED}
    section = training(Contents(contents.run, {**contents.artifacts, "checkpoint": calm}))
    named = {column.name for block in section.blocks if isinstance(block, Table) for column in block.columns}
    assert {"student", "left out", "dev loss", "MFU"} < named
    assert named.isdisjoint({"cut off", "dev accuracy", "went on"})


def test_a_student_that_was_trained_has_a_curve(contents: Contents, tmp_path: Path):
    """What training writes is what the section reads, for a student that died after its last step."""
    import torch

    from retort.training.examining import Exam
    from retort.training.trainer import Training, train, train_and_save

    dev = [problem for problem in problems() if problem.split == "dev"]
    asked = tuple(f"Question: {problem.question}\n" for problem in dev[:2])
    config = TrainingConfig(
        steps=2,
        batch_examples=4,
        learning_rate=1e-3,
        group_chains=2,
        max_example_tokens=64,
        long_examples="truncate",
        dev_every=1,
        choose_by="dev_accuracy",
        num_workers=0,
        save_every_s=0,
    )
    exam = Exam(tuple(dev[:2]), "cot", asked, 8, Rollout(), VerificationConfig())
    given = contents.stage("corpus")["cot"]
    made = Training(given, "shipped:student", None, "pretrained", config, "cot", exam=exam)
    with ThreadPoolExecutor(1) as thread:  # in this one the browser's event loop runs, and the exam has its own
        thread.submit(train_and_save, made, tmp_path, torch.device("cpu"), contents.run.store).result()
        kept = thread.submit(train, contents.run.store, made).result()
    section = training(Contents(contents.run, {**contents.artifacts, "checkpoint": {"cot@0": kept}}))
    figures, learned, _, computed, *_ = section.blocks
    assert isinstance(figures, Figures)
    (figure,) = figures.figures
    assert figure.caption == "cot: highest dev accuracy 0.0% at step 2, kept; went on from step 2 after it had died."
    rows = [
        dict(zip((c.name for c in t.columns), t.rows[0], strict=True)) for t in (learned, computed) if t.kind == "table"
    ]
    assert [row["student"] for row in rows] == ["cot@0", "cot@0"]
    assert (rows[0]["steps"], rows[0]["kept step"], rows[0]["dev accuracy"]) == ("2", "2", "0.0%")
    assert {name for name, value in rows[1].items() if value == "–"} == {"MFU"}, "of CPUs none is told"
    assert 0 < kept.stats["computed_tokens"] < kept.stats["example_tokens"], "nothing was shared"


def test_an_encoder_decoder_student_was_served_by_transformers(contents: Contents):
    assert contents.engine("etd@1") == contents.engine("base shipped:student") == "vllm"
    writer = Writer(contents.run.store, Address("checkpoint", 1, {}, {"name": "t5"}))
    t5 = writer.commit([writer.put("config.json", b'{"is_encoder_decoder": true}')], {})
    changed = Contents(contents.run, {**contents.artifacts, "checkpoint": {"etd@0": t5, "etd@1": t5, "etd@2": t5}})
    assert changed.engine("etd@1") == "hf"
    assert changed.engine("cot@0") == "vllm"
    students = [{**student, "engine": "hf"} for student in contents.recipe["student"]]
    assert with_recipe(contents, student=students).engine("cot@0") == "hf"


def test_two_revisions_of_a_base_are_two_models(contents: Contents):
    students = [{**student, "revision": None} for student in contents.recipe["student"]]
    students[0]["revision"] = "v2"
    students[1]["engine"] = "hf"
    changed = with_recipe(contents, student=students)
    base, of_v2 = changed.students_of("base shipped:student"), changed.students_of("base shipped:student@v2")
    assert [student["id"] for student in of_v2] == ["etd"]
    assert [student["id"] for student in base] == ["cot", "pair", "label-only"]
    assert changed.thoughts("base shipped:student@v2")[:3] == ["pot", "eot", "cot"]
    assert (changed.engine("base shipped:student@v2"), changed.engine("base shipped:student")) == ("vllm", "hf")


def test_the_recipe_on_the_page_starts_the_same_run(contents: Contents):
    again = Recipe.model_validate(tomllib.loads(recipe_text(contents.recipe)))
    assert again.model_dump(mode="json", exclude={"store"}) == contents.recipe
