"""The report: what it claims, and the page itself in a real browser, with chains that attack it."""

import base64
import json
import os
import random
import re
import subprocess
import sys
import time
import tomllib
import zlib
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from retort import evaluation, intervals
from retort.config import Recipe
from retort.pipeline import measure
from retort.records import Example, Problem, Split, Verdict
from retort.report import report, sample
from retort.report.blocks import Remark, Section, Table
from retort.report.comparisons import both_ways
from retort.report.contents import Contents, Measured, Role, Spread, open_run
from retort.report.cost import cost, sampling_stats, union_s
from retort.report.findings import ensembles, leader
from retort.report.formatting import duration, points, probability, share, shortened, size, tokens, visible
from retort.report.recipes import base_name, call, recipe_text
from retort.run import Run
from retort.run import index as index_of
from retort.sampling import Sampled
from retort.selection import SelectionConfig, select
from retort.store.artifacts import Address, Artifact, Writer
from retort.store.local import LocalStore
from retort.training.config import MACHINERY

CHROMIUM = os.environ.get("RETORT_CHROMIUM", "/usr/bin/chromium")
CHROMIUM_ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

# Each carries a word of its own, by which the browser finds it.
HOSTILE = {
    "scripted": "<script>alert(1)</script> scripted",
    "closing": "</script></style></textarea></title><script>alert(2)</script> closing",
    "commented": "</script commented <!-- <script <!-- ]]> -->",
    "pictured": "\"'><img src=x onerror=alert(3)> pictured &lt;b&gt; &amp;quot;",
    "turned": "turned \u202eesrever\u202c \u2066isolated\u2069",
    "controlled": "controlled \x00\x07\x1b[31m\x7f\x85 \u2028 \u2029 \ufeff \u200b",
    "templated": "{{ 7 * 7 }} {% raw %} ${7 * 7} $\\alpha$ templated",
    "prolonged": "prolonged " + "x" * 90_000 + " the end.",
    "stacked": "stacked Z" + "\u0335\u0321\u0322" * 200,
}
RECIPE: dict[str, Any] = {
    "name": "trial",
    "task": [{"id": "arithmetic", "train": 30, "dev": 6, "test": 40}],
    "teacher": [
        {
            "id": "tiny",
            "engine": "vllm",
            "model": "shipped:teacher",
            "temperature": 1.0,
            "max_new_tokens": 96,
            "num_chains": 4,
            "stop": ["</pre><b class=injected>", "\u202e\n"],
        },
        {
            "id": "recorded",
            "engine": "replay",
            "paths": ["recorded.jsonl"],
            "temperature": 0.7,
            "max_new_tokens": 96,
            "num_chains": 2,
        },
    ],
    "corpus": [
        {
            "id": "chains",
            "tasks": ["arithmetic"],
            "teachers": ["tiny", "recorded"],
            "thoughts": ["cot"],
            "selection": {"rule": "correct", "chains_per_problem": 2},
        },
        {"id": "labels", "tasks": ["arithmetic"], "thoughts": ["answer"]},
    ],
    "student": [
        {
            "id": name,
            "base": "",
            "corpus": corpus,
            "training": {"steps": 700, "batch_examples": 16, "learning_rate": 1e-3, "adam_epsilon": 1e-8},
        }
        for name, corpus in (("cot", "chains"), ("label-only", "labels"))
    ],
    "evaluation": {
        "tasks": ["arithmetic"],
        "references": {"tiny": ["arithmetic"], "base": ["arithmetic"]},
        "decodes": ["greedy", "maj@4"],
    },
}
OLDER = ("wanted", "reused", "sampled", "lacking", "prompt_tokens", "output_tokens", "seconds")
# How often each model is right on the test problems.
SKILL = {"tiny": 0.9, "recorded": 0.8, "cot": 0.7, "label-only": 0.1, "base": 0.02}


def recipe_in(folder: Path) -> Recipe:
    """The recipe, with a base whose path is an attack of its own and a recording that exists."""
    base = folder / '"><img src=x onerror=alert(4)>\u202e'
    base.mkdir()
    (base / "config.json").write_text("{}")
    (folder / "recorded.jsonl").write_text("")
    fields = json.loads(json.dumps(RECIPE))
    fields["teacher"][1]["paths"] = [str(folder / "recorded.jsonl")]
    for student in fields["student"]:
        student["base"] = str(base)
    return Recipe.model_validate({**fields, "store": str(folder / "store")})


def verdicts(model: str, thought: str, problems: Sequence[Problem], num_chains: int, skill: float) -> list[Verdict]:
    """Verdicts as verification would write them; every model's first texts are the hostile ones."""
    who = model.split(" ")[0]
    draw = random.Random(f"{who}{len(problems)}{num_chains}")
    hostile = iter(HOSTILE.values())
    made: list[Verdict] = []
    for problem in problems:
        for index in range(num_chains):
            odds = [skill, *((1 - skill) * share for share in (0.7, 0.15, 0.1, 0.05))]
            (reason,) = draw.choices(["correct", "wrong", "no_answer", "truncated", "undecided"], odds)
            answer = {"correct": problem.answer, "wrong": "-1"}.get(reason)
            text = next(hostile, f"First {draw.randrange(90)} + 2 by {who}. The answer is {answer}.")
            made.append(
                Verdict(
                    problem_id=problem.id,
                    task=problem.task,
                    split=problem.split,
                    thought=thought,
                    index=index,
                    question=problem.question,
                    prompt=f"Question: {problem.question}\n",
                    gold=problem.answer,
                    text=text,
                    answer=answer,
                    is_correct=reason == "correct",
                    reason=reason,
                    num_prompt_tokens=0 if model == "recorded" else 30,
                    num_tokens=0 if model == "recorded" else draw.randrange(10, 90),
                    model_id=model,
                )
            )
    return made


def sampled(run: Run, name: str, rows: list[Verdict], reused: int = 0) -> Artifact:
    """What `pipeline.judge` would keep of one plan of one model. Those of `recorded` are of an older version."""
    fresh = rows[reused:]
    is_policy = name == "tiny/cot"
    summary = Sampled(
        wanted=len(rows) + 1 + 600 * is_policy,
        reused=reused,
        sampled=len(fresh),
        lacking=1,
        withheld=350 * is_policy,
        unneeded=250 * is_policy,
        saved_tokens=20_000 * is_policy,
        prompt_tokens=sum(row.num_prompt_tokens for row in fresh),
        output_tokens=sum(row.num_tokens for row in fresh),
        accepted=sum(row.is_correct is True for row in fresh),
        accepted_tokens=sum(row.num_tokens for row in fresh if row.is_correct),
        segments=3,
        segment_bytes=40_500,
        seconds=2.5,
        sampling_s=2.0,
        engine_s=16.0,
        busy_s=12.0,
        engine_starts=3,
        stalls=1,
        replacements=2,
    )
    told = asdict(summary)
    if name.startswith("recorded"):
        told = {key: told[key] for key in OLDER}
    writer = Writer(run.store, Address("sampling", 1, {}, {"name": name}), started_at_s=time.time() - 20)
    run.keep("sampling", name, writer.commit([], told))
    writer = Writer(run.store, Address("verdicts", 1, {}, {"name": name}))
    halves = rows[::2], rows[1::2]
    files = [writer.put_records(f"part-{number}.parquet", Verdict, half) for number, half in enumerate(halves)]
    stats = {
        "wanted": len(rows) + 1,
        "rows": len(rows),
        "lacking": 1,
        "reasons": dict(Counter(row.reason for row in rows)),
        "sandbox": ["namespaces, seccomp, rlimits"],
    }
    return run.keep("verdicts", name, writer.commit(files, stats))


def corpus(run: Run, name: str, rows: Sequence[Verdict]) -> None:
    by_problem = {row.problem_id: [one for one in rows if one.problem_id == row.problem_id] for row in rows}
    config = SelectionConfig(rule="correct", chains_per_problem=2)
    fates = [fate for group in by_problem.values() for fate in select(group, config)]
    examples = [
        Example(row.problem_id, row.split, row.thought, row.index, row.prompt, row.text)
        for row, fate in fates
        if fate == "selected"
    ]
    counts = Counter(f"{row.split}/{fate}" for row, fate in fates)
    writer = Writer(run.store, Address("corpus", 1, {}, {"name": name}))
    stats = {"rows_in": len(rows), "fates": dict(sorted(counts.items())), "problems": len(by_problem)}
    run.keep("corpus", name, writer.commit([writer.put_records("part-0.parquet", Example, examples)], stats))


def checkpoint(
    run: Run, name: str, steps: int = 700, planned: int | None = None, accuracy_at: int | None = None, **told: Any
) -> None:
    """What `trainer.train` would keep, with a dev measurement every 100 steps.

    `accuracy_at` is the step with the highest dev accuracy, where that chooses; `told` are stats that differ.
    """
    from retort.training.loop import StepMetrics  # takes seconds: PyTorch

    def accuracy(step: int) -> float | None:
        return None if accuracy_at is None else 0.625 - abs(step - accuracy_at) / 2000

    metrics = [
        StepMetrics(
            step=step,
            loss=3 * step**-0.3,
            dev_loss=3.1 * step**-0.28 if step % 100 == 0 else None,
            dev_accuracy=accuracy(step) if step % 100 == 0 else None,
            learning_rate=1e-3,
            grad_norm=1.0,
            target_tokens=600,
            example_tokens=1600,
            computed_tokens=1200,
            padding_share=0.25 if step % 2 else 0.0,
            mfu=0.9 if step == 1 else 0.3,
            memory_bytes=700_000_000,
            seconds=0.05,
        )
        for step in range(1, steps + 1)
    ]
    best = metrics[(accuracy_at or steps) - 1]
    stats = {
        "parameters": 528_960,
        "train_examples": 60,
        "dev_examples": 12,
        "too_long": 3,
        "dropped_tokens": 2_100,
        "truncated": 0,
        "truncated_tokens": 0,
        "steps": steps,
        "best_step": best.step,
        "best_dev_loss": best.dev_loss,
        "best_dev_accuracy": best.dev_accuracy,
        "target_tokens": 600 * steps,
        "example_tokens": 1600 * steps,
        "computed_tokens": 1200 * steps,
        "computed": {"workers": 2, "device": "cpu", "shard": True, "compile": False},
        "memory_bytes": 700_000_000,
        "train_seconds": 0.05 * steps,
        "went_on_from": [],
    }
    settings = run.recipe.student[0].training.model_dump(mode="json", exclude={"seeds", *MACHINERY})
    settings |= {"seed": 0, "steps": planned or steps, "choose_by": "dev_accuracy" if accuracy_at else "dev_loss"}
    writer = Writer(run.store, Address("checkpoint", 1, settings, {"name": name}, ("torch", "transformers")))
    files = [writer.put_lines("metrics.jsonl", [row.as_row() for row in metrics]), writer.put("config.json", b"{}")]
    run.keep("checkpoint", name, writer.commit(files, stats | told))


def problems() -> list[Problem]:
    """Problems of the three splits; the last question of each attacks too."""
    made: list[Problem] = []
    splits: list[tuple[Split, int]] = [("train", 30), ("dev", 6), ("test", 40)]
    for split, number in splits:
        questions = [f"Nora has {row} eggs and buys {row}. How many has she?" for row in range(number - 1)]
        for row, question in enumerate([*questions, HOSTILE["closing"] + HOSTILE["turned"]]):
            answer = HOSTILE["pictured"] if row == 1 else str(2 * row)
            made.append(Problem(f"arithmetic/{split}/{row:05}", "arithmetic", split, question, "number", answer))
    return made


def distilled(folder: Path) -> tuple[LocalStore, Artifact]:
    """A store with all stages of a run, as `pipeline.distill` leaves them, and the run's index."""
    recipe = recipe_in(folder)
    store = LocalStore(recipe.store)
    run = Run(recipe, store)
    rows = problems()
    writer = Writer(store, Address("problems", 1, {}, {}))
    kept = writer.commit([writer.put_records("problems.parquet", Problem, rows)], Counter(row.split for row in rows))
    run.keep("problems", "arithmetic", kept)
    learned = [row for row in rows if row.split != "test"]
    tested = [row for row in rows if row.split == "test"]
    base = f"base {recipe.student[0].base}"
    taught: list[Verdict] = []
    for teacher, reused in (("tiny", 20), ("recorded", 0)):
        asked = verdicts(teacher, "cot", learned, 4, SKILL[teacher])
        sampled(run, f"{teacher}/cot", asked, reused)
        taught += asked
    corpus(run, "chains", taught)
    corpus(run, "labels", verdicts("labels", "answer", learned, 1, 1.0))
    for student in recipe.student:
        checkpoint(run, student.id)
    for model, thought in (("tiny", "cot"), (base, "cot"), ("cot", "cot"), ("label-only", "answer")):
        skill = SKILL[model.split(" ")[0]]
        answered = tested[2:] if model == "tiny" else tested
        for key, num_chains in (("greedy", 1), ("maj", 4)):
            sampled(run, f"{model}/test-{key}", verdicts(model, thought, answered, num_chains, skill))
        measure(run, model, ("greedy", "maj@4"))
    return store, index_of(run)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[LocalStore, Artifact]:
    return distilled(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def contents(made: tuple[LocalStore, Artifact]) -> Contents:
    return open_run(*made)


@pytest.fixture(scope="module")
def file(made: tuple[LocalStore, Artifact]) -> Path:
    return Path(report(*made).directory(), "index.html")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@contextmanager
def chromium() -> Generator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGS)
        yield started
        started.close()


@pytest.fixture
def opened(browser: Browser, file: Path) -> Iterator[Page]:
    with watched(browser, file) as window:
        yield window


@contextmanager
def watched(browser: Browser, file: Path) -> Generator[Page]:
    """The page in a desktop window; whatever it complains of, asks for or says fails the test."""
    window = browser.new_page(viewport={"width": 1280, "height": 900})
    complaints: list[str] = []
    window.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    window.on("pageerror", lambda error: complaints.append(str(error)))
    window.on("request", lambda request: complaints.append(request.url) if request.url != file.as_uri() else None)
    window.on("dialog", lambda dialog: complaints.append(dialog.message))
    window.goto(file.as_uri())
    window.locator("progress").wait_for(state="hidden")
    yield window
    assert complaints == []
    window.close()


def found(window: Page) -> str:
    return window.locator(".found").inner_text()


def test_the_page_opens_without_errors_or_requests(opened: Page):
    assert opened.title() == "trial · retort"
    assert opened.locator("section h2").all_inner_texts() == [
        "Result",
        "Papers",
        "Acceptance",
        "Difficulty",
        "Cost",
        "Training",
        "Failures",
        "Chains",
        "Lineage",
    ]
    assert opened.locator("li.chain").count() == 20


@pytest.mark.parametrize("width", [1280, 390])
def test_every_plot_is_drawn_and_its_words_stay_inside(opened: Page, width: int):
    opened.set_viewport_size({"width": width, "height": 800})
    assert check_plots(opened) == 9


def check_plots(window: Page) -> int:
    """Look at every plot of a page; how many there are."""
    plots = window.locator("svg.plot").all()
    assert len(plots) == len(window.locator("figure").all())
    for plot in plots:
        box = plot.bounding_box()
        assert box is not None
        assert min(box["width"], box["height"]) > 40
        assert plot.is_visible()
        assert plot.get_attribute("aria-label")
        words, outside = plot.evaluate(
            """plot => {
                const frame = plot.getBoundingClientRect();
                const words = [...plot.querySelectorAll("text")].filter(text => text.textContent.trim());
                const boxes = words.map(word => word.getBoundingClientRect());
                const isOutside = box => box.left < frame.left - 1 || box.right > frame.right + 1
                    || box.top < frame.top - 1 || box.bottom > frame.bottom + 1;
                const outside = words.filter((_, place) => isOutside(boxes[place]));
                return [words.length, outside.map(word => word.textContent)];
            }"""
        )
        assert words > 3
        assert outside == []
    ids = window.evaluate("[...document.querySelectorAll('[id]')].map(element => element.id)")
    assert len(ids) == len(set(ids))
    return len(plots)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_the_paper_in_light_and_dark(opened: Page, scheme: Any):
    opened.emulate_media(color_scheme=scheme)
    colours = opened.evaluate(
        """["main p", "td", "svg.plot text", "figcaption", "nav a", ".chain-text"].map(selector =>
            getComputedStyle(document.querySelector(selector))[selector.startsWith("svg") ? "fill" : "color"])
            .concat(getComputedStyle(document.body).backgroundColor)
            .map(colour => colour.match(/\\d+/g).slice(0, 3).map(Number))"""
    )
    *words, paper = [_luminance(colour) for colour in colours]
    assert (paper > 0.9) == (scheme == "light")
    for word in words:
        light, dark = max(word, paper), min(word, paper)
        assert (light + 0.05) / (dark + 0.05) >= 4.5  # WCAG AA


def _luminance(rgb: Sequence[int]) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (part / 255 for part in rgb)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_a_phone_needs_no_sideways_scrolling(opened: Page):
    opened.set_viewport_size({"width": 390, "height": 844})
    opened.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true; })")
    for word in ("prolonged", "stacked", "closing"):
        opened.get_by_role("searchbox").fill(word)
        assert opened.locator("li.chain").count() > 0
        assert opened.evaluate("document.documentElement.scrollWidth") == 390


def test_search_and_filters_show_the_chains_that_match(opened: Page, contents: Contents):
    rows = [row for one in contents.samplings if one.verdicts for row in one.verdicts.records(Verdict)]
    assert found(opened).startswith(f"{len(rows):,} of {len(rows):,} chains")
    opened.locator("#browser").get_by_label("reason").select_option("no_answer")
    wanted = sum(row.reason == "no_answer" for row in rows)
    assert found(opened).startswith(f"{wanted} of")
    assert 0 < wanted < len(rows)
    assert set(opened.locator("#browser .reason").all_inner_texts()) == {"no answer"}
    opened.locator("#browser").get_by_label("split").select_option("dev")
    assert found(opened).startswith(f"{sum((row.reason, row.split) == ('no_answer', 'dev') for row in rows)} of")
    opened.locator("#browser").get_by_label("reason").select_option("")
    opened.locator("#browser").get_by_label("split").select_option("")
    opened.locator("#browser").get_by_label("model").select_option("label-only")
    opened.locator("#browser").get_by_label("thought").select_option("answer")
    opened.get_by_role("searchbox").press_sequentially("BY LABEL-ONLY. the")
    wanted = sum("by label-only. The" in row.text for row in rows)
    assert found(opened).startswith(f"{wanted} of")
    assert set(opened.locator("#browser .model").all_inner_texts()) == {"label-only"}
    opened.get_by_role("searchbox").fill("nothing says this")
    assert found(opened).startswith("0 of")
    assert opened.locator("li.chain").count() == 0


def test_pages_turn_and_end(opened: Page):
    opened.locator("#browser").get_by_label("reason").select_option("no_answer")
    total = int(found(opened).split(" ")[0])
    assert 60 < total < 200
    seen: list[str] = []
    previous, following = opened.get_by_role("button", name="Previous"), opened.get_by_role("button", name="Next")
    assert previous.is_disabled()
    while True:
        seen += opened.locator("#browser .chain-head").all_inner_texts()
        if following.is_disabled():
            break
        following.click()
    assert len(seen) == len(set(seen)) == total
    previous.click()
    assert opened.locator("#browser .chain-head").first.inner_text() == seen[(total - 1) // 20 * 20 - 20]


@pytest.mark.parametrize("word", HOSTILE)
def test_markup_in_a_chain_stays_text(opened: Page, word: str):
    opened.get_by_role("searchbox").fill(HOSTILE[word][:20] if word == "templated" else word)
    opened.locator("#browser").get_by_label("model").select_option("tiny")
    shown = opened.locator("#browser .chain-text").all_text_contents()
    assert visible(shortened(HOSTILE[word], sample.MAX_CHARACTERS)) in shown
    assert opened.locator("img, iframe, b.injected, textarea, .chain-text *, .question *").count() == 0
    assert opened.locator("script").count() == 2
    assert opened.locator("section").count() == 9
    assert "Run " in opened.locator("footer").inner_text()


def test_a_long_chain_is_folded_and_opens(opened: Page):
    opened.get_by_role("searchbox").fill("prolonged")
    text = opened.locator("#browser .chain-text").first
    folded = text.bounding_box()
    opened.get_by_role("button", name="Show all").first.click()
    unfolded = text.bounding_box()
    assert folded is not None
    assert unfolded is not None
    assert unfolded["height"] > 2 * folded["height"]
    assert text.inner_text().endswith("the end.")


def test_no_hidden_character_is_in_the_file(file: Path):
    text = file.read_text(encoding="utf-8")
    assert visible(text) == text
    packed = re.search(r'id="chains-data">([^<]*)</script>', text)
    assert packed
    assert re.fullmatch(r"[A-Za-z0-9+/=\n]+", packed[1])
    documents = [zlib.decompress(base64.b64decode(line)).decode() for line in packed[1].split("\n")]
    assert all(visible(document) == document for document in documents)
    assert "⟨U+202E⟩" in "".join(documents)


def test_rendering_twice_gives_equal_bytes(made: tuple[LocalStore, Artifact], file: Path, tmp_path: Path):
    store, run = made
    program = (
        "import sys; from retort.report import page; from retort.report.contents import open_run\n"
        "from retort.store.artifacts import open_artifact; from retort.store.local import LocalStore\n"
        "store = LocalStore(sys.argv[1]); contents = open_run(store, open_artifact(store, sys.argv[2]))\n"
        "open(sys.argv[3], 'wb').write(page.render(contents, page.compose(contents)))"
    )
    target = tmp_path / "again.html"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    subprocess.run(
        [sys.executable, "-c", program, store.root, run.prefix, str(target)], env=environment, check=True, timeout=120
    )
    assert target.read_bytes() == file.read_bytes()


def test_a_report_that_was_made_is_found(made: tuple[LocalStore, Artifact]):
    assert report(*made).manifest == report(*made).manifest


def test_a_run_without_students_has_a_page(tmp_path: Path):
    recipe = recipe_in(tmp_path)
    recipe = recipe.model_copy(update={"teacher": (), "corpus": (), "student": ()})
    run = index_of(Run(recipe, LocalStore(recipe.store)))
    text = report(run.store, run).read("index.html").decode()
    for word in ("Nothing was evaluated", "No chain was sampled", "No student was trained", "no chains to show"):
        assert word in text


def test_an_artifact_that_is_gone_is_named(made: tuple[LocalStore, Artifact]):
    store, run = made
    inputs = {"corpus": {"chains": "artifacts/corpus/gone/"}}
    broken = replace(run, manifest={**run.manifest, "inputs": inputs})
    with pytest.raises(ValueError, match=r"corpus 'chains' is not at .*/artifacts/corpus/gone;"):
        open_run(store, broken)


@pytest.mark.parametrize(
    ("bases", "called"),
    [
        ({"/models/small", "org/tiny"}, {"base /models/small": "base small"}),
        ({"/a/small", "/b/small", "./c"}, {"base ./c": "base c"}),
        ({"/a", "/a/b/"}, {"base /a": "base a", "base /a/b/": "base b"}),
        ({"/models/tiny", "tiny"}, {}),
    ],
)
def test_bases_in_directories_have_short_names_that_tell_them_apart(bases: set[str], called: dict[str, str]):
    assert call([{"base": base, "revision": None} for base in bases]) == called


def test_revisions_of_one_base_keep_their_own_names():
    students = [
        {"base": base, "revision": revision} for base in ("/models/small", "org/t") for revision in (None, "v2")
    ]
    assert [base_name(student) for student in students[2:]] == ["base org/t", "base org/t@v2"]
    assert call(students) == {"base /models/small": "base small", "base /models/small@v2": "base small@v2"}


def measured(model: str, role: Role, correct: int, problems: int = 200, spread: Spread | None = None) -> Measured:
    low, high = intervals.wilson(correct, problems)
    share = correct / max(1, problems)
    score = evaluation.Score(
        task="sums",
        thought="cot",
        decode="greedy",
        problems=problems,
        correct=correct,
        accuracy=share,
        low=low,
        high=high,
        pass_at_k=share,
        no_answer=0.0,
        truncated=0.0,
        mean_tokens=9.0,
        chains=problems,
        steps=0,
        right_steps=0,
    )
    return Measured(model, role, score, spread)


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (
            [("tiny", "teacher", 180), ("base x", "base", 4), ("gold", "labels", 30), ("cot", "chains", 120)],
            "On sums (200 test problems, greedy), student cot is right on 60.0% (95% interval 53.1–66.5%): it beats "
            "base x (2.0%) and gold (15.0%) beyond the intervals and is behind tiny (90.0%) beyond the intervals.",
        ),
        (
            [("gold", "labels", 110), ("cot", "chains", 120)],
            "On sums (200 test problems, greedy), student cot is right on 60.0% (95% interval 53.1–66.5%): it cannot "
            "be told from gold (55.0%), whose intervals overlap with its own.",
        ),
        (
            [("gold", "labels", 190), ("cot", "chains", 20)],
            "On sums (200 test problems, greedy), student cot is right on 10.0% (95% interval 6.6–14.9%): it is behind "
            "gold (95.0%) beyond the intervals.",
        ),
        (
            [("a", "chains", 110), ("b", "chains", 120), ("tiny", "teacher", 180)],
            "On sums (200 test problems, greedy), student b, the best here of 2 students, is right on 60.0% (95% "
            "interval 53.1–66.5%): it is behind tiny (90.0%) beyond the intervals and cannot be told from a "
            "(55.0%), whose intervals overlap with its own.",
        ),
        (
            [("cot", "chains", 120, 200, Spread(0.615, 0.02, 3)), ("pot", "chains", 122), ("gold", "labels", 30)],
            "On sums (200 test problems, greedy), student cot, the best here of 2 students, is right on 61.5 ± 2.0% "
            "over 3 seeds (95% interval of the first 53.1–66.5%): it beats gold (15.0%) beyond the intervals and "
            "cannot be told from pot (61.0%), whose intervals overlap with its own.",
        ),
        (
            [("tiny", "teacher", 180)],
            "On sums (200 test problems, greedy), tiny is right on 90.0% (95% interval 85.1–93.4%).",
        ),
    ],
)
def test_the_sentence_claims_no_more_than_the_intervals(rows: list[Any], sentence: str):
    assert leader([measured(*row) for row in rows], "greedy", {}) == [sentence]


def pair_row(first: str, second: str, *counts: int) -> dict[str, Any]:
    """A row of `pairs.jsonl`: both right, only the first, only the second, neither."""
    outcomes = ((True, True), (True, False), (False, True), (False, False))
    rights = [outcome for outcome, number in zip(outcomes, counts, strict=True) for _ in range(number)]
    pair = intervals.paired(*({str(row): right[side] for row, right in enumerate(rights)} for side in (0, 1)))
    whose = {"first": first, "second": second, "first_thought": "cot", "second_thought": "cot"}
    return {**whose, "task": "sums", "decode": "greedy", **asdict(pair)}


@pytest.mark.parametrize(
    ("rows", "pairs", "told"),
    [
        (  # the intervals 53.1–66.5% and 48.1–61.7% overlap, and yet no coin gives 12 to 1
            [("tiny", "teacher", 180), ("gold", "labels", 109), ("cot", "chains", 120)],
            [("cot", "gold", 108, 12, 1, 79)],
            (
                "On sums (200 test problems, greedy), student cot is right on 60.0% (95% interval 53.1–66.5%): it is "
                "behind tiny (90.0%) beyond the intervals.",
                " (differences in points, with 95% intervals), cot beats gold (54.5%; +5.5, +1.9 to +9.0, p = 0.0034).",
            ),
        ),
        (  # stored the other way round
            [("gold", "labels", 119), ("cot", "chains", 120)],
            [("gold", "cot", 100, 19, 20, 61)],
            (
                "On sums (200 test problems, greedy), student cot is right on 60.0% (95% interval 53.1–66.5%).",
                " (differences in points, with 95% intervals), cot cannot be told from gold (59.5%; +0.5, −5.7 to "
                "+6.6, p = 1.0000).",
            ),
        ),
        (  # the best by its mean is not the best of the first seeds
            [("cot", "chains", 100, 200, Spread(0.615, 0.02, 3)), ("pot", "chains", 122), ("gold", "labels", 30)],
            [("cot", "pot", 99, 1, 23, 77), ("cot", "gold", 28, 72, 2, 98), ("pot", "gold", 28, 94, 2, 76)],
            (
                "On sums (200 test problems, greedy), student cot, the best here of 2 students, is right on 61.5 ± "
                "2.0% over 3 seeds (95% interval of the first 43.1–56.9%).",
                ", by the first seed of each (differences in points, with 95% intervals), cot beats gold (15.0%; "
                "+35.0, +27.8 to +41.7, p < 0.0001) and is behind pot (61.0%; −11.0, −15.6 to −6.3, p < 0.0001).",
            ),
        ),
    ],
)
def test_the_sentence_goes_by_the_same_problems_where_two_students_have_them(
    rows: list[Any], pairs: list[Any], told: tuple[str, str]
):
    measurements = [measured(*row) for row in rows]
    said = leader(measurements, "greedy", both_ways(pair_row(*pair) for pair in pairs))
    assert [sentence.removeprefix("On the same problems") for sentence in said] == list(told)


def test_a_pair_of_other_thoughts_says_nothing_of_these():
    rows = [measured("gold", "labels", 109), measured("cot", "chains", 120)]
    pair = {**pair_row("cot", "gold", 108, 12, 1, 79), "second_thought": "answer"}
    (sentence,) = leader(rows, "greedy", both_ways([pair]))
    assert "whose intervals overlap" in sentence


def test_an_ensemble_is_measured_against_students_of_one_thought_by_their_means():
    def spoken(model: str, thought: str, mean: float, role: Role = "chains") -> Measured:
        row = measured(model, role, 100, spread=Spread(mean, 0.02, 3))
        return replace(row, score=replace(row.score, thought=thought), is_one_of_several=":" in thought)

    means = (("pot", 0.85), ("eot", 0.912), ("cot", 0.9002))
    single = [spoken(thought, thought, mean) for thought, mean in means]
    others = [spoken("gold", "answer", 0.2, "labels"), spoken("tiny", "cot", 0.99, "teacher")]
    (told,) = ensembles([*others, spoken("etd", "fallback:pot,cot", 0.9), *single])
    assert told == (
        "On sums, greedy, etd · fallback: pot, cot (90.0 ± 2.0%) is in mean over seeds 5.0 points ahead of pot (85.0 ± "
        "2.0%), 1.2 points behind eot (91.2 ± 2.0%) and level with cot (90.0 ± 2.0%)."
    )
    assert ensembles(single) == ensembles([spoken("etd", "fallback:pot,cot", 0.9), *others]) == []


def test_the_sentence_says_when_there_is_no_gold():
    (sentence,) = leader([measured("cot", "chains", 0, problems=0)], "greedy", {})
    assert "no test problem has a gold answer" in sentence


def test_the_page_tells_the_label_only_student_from_the_one_of_chains(opened: Page):
    sentence = opened.locator("#result .finding").inner_text()
    assert "student cot is right on" in sentence
    assert "label-only (" in sentence
    assert 'base "><img' in sentence  # and not all of its path
    assert opened.get_by_text("Not all answered the same problems of arithmetic: of 40, tiny 38.").is_visible()
    assert opened.locator("#result .legend").first.inner_text().split("\n") == [
        "teacher",
        "before training",
        "student of labels",
        "student of chains",
    ]


def test_tokens_that_nobody_counted_are_not_zero(opened: Page):
    assert (tokens(0, 5), tokens(0, 0), tokens(1200, 5), tokens(41.25, 5)) == ("not recorded", "–", "1,200", "41.2")
    table = opened.get_by_role("table", name="Sampling by model")
    row = table.get_by_role("row").filter(has_text="recorded").get_by_role("cell").all_inner_texts()
    assert row[:4] == ["replay", "144", "not recorded", "not recorded"]
    row = table.get_by_role("row").filter(has_text="tiny").get_by_role("cell").all_inner_texts()
    assert row[:2] == ["vllm", "314"]
    assert 20 <= float(row[4].removesuffix(" s")) < 60  # three plans of 20 s each, at about the same time


def cells(window: Page, table: str, row: str) -> list[str]:
    """The cells of a row of a table, its name left out."""
    rows = window.get_by_role("table", name=table).get_by_role("row")
    return rows.filter(has=window.get_by_role("rowheader", name=row, exact=True)).get_by_role("cell").all_inner_texts()


def test_rates_run_over_the_sampling_alone_where_it_was_timed(opened: Page, contents: Contents):
    artifacts = [one.sampled for one in contents.samplings if one.model == "tiny" and one.sampled]
    accepted = sum(made.stats["accepted_tokens"] for made in artifacts)
    # 314 chains of three plans that share 2 s.
    tiny, recorded = (cells(opened, "Sampling by model", model)[5:] for model in ("tiny", "recorded"))
    assert (tiny[0], tiny[2]) == ("157", f"{accepted / 2:,.0f}")
    # 144 chains in the 20 s from start to end; nobody counted tokens, nor what was accepted.
    assert recorded == ["7.20", "–", "–"]


def test_what_became_of_engines_and_segments_is_told_where_it_is_known(opened: Page):
    # Three plans of one session: engines are its own, segments are each plan's.
    assert cells(opened, "Engines and storage by model", "tiny") == ["16.0 s", "75.0%", "3", "1", "2", "9", "122 kB"]
    assert cells(opened, "Engines and storage by model", "recorded") == []
    for told in (
        "Of tiny, 250 chains were not needed (about 20,000 tokens, 44.6% of what all would have cost)",
        "Of tiny, 350 chains were not asked for: max_tokens_total was reached.",
    ):
        assert opened.locator("#cost").get_by_text(told).is_visible()


def with_stats(contents: Contents, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Contents:
    """The same run, had its sampling left other stats."""
    changed = {
        name: replace(made, manifest={**made.manifest, "stats": change(made.stats)})
        for name, made in contents.stage("sampling").items()
    }
    return replace(contents, artifacts={**contents.artifacts, "sampling": changed})


def columns(section: Section, caption: str) -> list[str] | None:
    """The columns of a table; None where it is not there."""
    tables = (block for block in section.blocks if isinstance(block, Table) and block.caption == caption)
    return next(([column.name for column in table.columns] for table in tables), None)


def test_columns_of_trouble_are_there_after_trouble_only(contents: Contents):
    usual = ["model", "engines up", "busy", "engine starts", "segments", "stored"]
    caption = "Engines and storage by model"
    calm = with_stats(contents, lambda stats: {**stats, "stalls": 0, "replacements": 0})
    assert columns(cost(calm), caption) == usual
    assert columns(cost(contents), caption) == [*usual[:4], "silent", "replaced", *usual[4:]]


def test_a_run_of_an_older_version_is_told_by_what_it_kept(contents: Contents):
    older = cost(with_stats(contents, lambda stats: {key: stats[key] for key in OLDER}))
    assert columns(older, "Engines and storage by model") is None
    assert (columns(older, "Sampling by model") or [])[-2:] == ["chains/s", "new tokens/s"]
    assert not any(isinstance(block, Remark) and "Accepted" in block.text for block in older.blocks)


def test_stats_of_a_session_count_once_and_unknown_ones_not_at_all(made: tuple[LocalStore, Artifact]):
    def artifact(end: float, **stats: float) -> Artifact:
        return replace(made[1], manifest={"created_at_s": end, "seconds": 4.0, "stats": stats})

    both = {"sampling_s": 3.0, "engine_starts": 1, "reused": 0}
    first, sibling = artifact(10.0, sampled=5, **both), artifact(10.1, sampled=7, **both)
    later = artifact(20.0, sampled=1, **both)
    assert sampling_stats([first, sibling, later]) == {
        "sampled": 13,
        "sampling_s": 6.0,
        "engine_starts": 2,
        "reused": 0,
    }
    assert sampling_stats([first, artifact(20.0, sampled=0, reused=9)])["sampling_s"] == 3.0
    assert set(sampling_stats([first, artifact(20.0, sampled=3, reused=9)])) == {"sampled", "reused"}


def test_differences_have_signs_and_small_chances_bounds():
    assert [points(difference) for difference in (0.25, -0.0512, 0.0)] == ["+25.0", "−5.1", "+0.0"]
    assert [probability(p) for p in (1.0, 0.07031, 0.0001, 3e-9, 0.0)] == ["1.0000", "0.0703", "0.0001"] + [
        "< 0.0001"
    ] * 2


def test_shares_are_not_rounded_to_none_or_all():
    shares = [share(*of) for of in ((0, 9), (1, 9999), (1, 8), (9998, 9999), (9, 9), (0, 0))]
    assert shares == ["0.0%", "< 0.1%", "12.5%", "> 99.9%", "100.0%", "–"]


def test_sizes_have_the_unit_that_fits():
    numbers = (0, 812, 999, 1000, 40_500, 121_500, 999_499, 999_999, 4_120_000, 2.5e9, 7e12)
    assert [size(number) for number in numbers] == [
        "0 B",
        "812 B",
        "999 B",
        "1.0 kB",
        "40.5 kB",
        "122 kB",
        "999 kB",
        "1.0 MB",
        "4.1 MB",
        "2.5 GB",
        "7.0 TB",
    ]


def test_times_that_overlap_count_once(made: tuple[LocalStore, Artifact]):
    _, run = made
    spans = [(10.0, 4.0), (10.5, 4.0), (20.0, 1.0)]
    artifacts = [replace(run, manifest={"created_at_s": end, "seconds": seconds}) for end, seconds in spans]
    assert union_s(artifacts) == pytest.approx(5.5)
    assert [duration(s) for s in (0, 0.05, 59.94, 153.4, 7260)] == [
        "0.0 s",
        "< 0.1 s",
        "59.9 s",
        "2 min 33 s",
        "2 h 01 min",
    ]


def test_a_sample_of_chains_is_even_and_the_same_each_time(contents: Contents):
    drawn = sample.draw(contents, most=100)
    everything = sample.draw(contents, most=10**9)
    assert drawn.total == everything.total == len(everything.rows) > 1000
    assert 80 < len(drawn.rows) <= 100
    assert drawn.rows == sample.draw(contents, most=100).rows == everything.cut(100).rows
    assert drawn.tallies == everything.tallies
    assert set(sample.draw(contents, most=30).rows) < set(drawn.rows) < set(everything.rows)
    strata = Counter((row.model, row.reason) for row in drawn.rows)
    sizes = Counter((row.model, row.reason) for row in everything.rows)
    assert set(strata) == set(sizes)
    level = max(strata.values())
    assert all(strata[key] == min(size, level) for key, size in sizes.items())


@pytest.mark.parametrize(
    ("sizes", "most", "level"), [([10, 2, 10], 12, 5), ([1, 1], 12, 1), ([], 5, 0), ([9], 4, 4), ([7, 7, 7], 2, 0)]
)
def test_quotas_share_what_there_is(sizes: list[int], most: int, level: int):
    assert sample.quotas(sizes, most) == level
    assert sum(min(size, level) for size in sizes) <= most


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain – ünï 漢字 🙂\n\tx", "plain – ünï 漢字 🙂\n\tx"),
        ("a\r\nb\rc", "a\nb⟨U+000D⟩c"),
        ("a\ud800b\udfff", "a⟨U+D800⟩b⟨U+DFFF⟩"),
        ("\u202eabc\u202c", "⟨U+202E⟩abc⟨U+202C⟩"),
        ("\x00\x1b\x7f\x85", "⟨U+0000⟩⟨U+001B⟩⟨U+007F⟩⟨U+0085⟩"),
        ("\u2028\u2029\ufeff\u200b\ufffe", "⟨U+2028⟩⟨U+2029⟩⟨U+FEFF⟩⟨U+200B⟩⟨U+FFFE⟩"),
        ("\U000e0041\U0010ffff", "⟨U+E0041⟩⟨U+10FFFF⟩"),
    ],
)
def test_hidden_characters_are_shown(text: str, shown: str):
    assert visible(text) == shown
    assert visible(shown) == shown
    assert shown.encode()


def test_the_recipe_on_the_page_starts_the_same_run(contents: Contents):
    text = recipe_text(contents.recipe)
    again = Recipe.model_validate(tomllib.loads(text))
    assert again.model_dump(mode="json", exclude={"store"}) == contents.recipe
    assert "chains_per_problem = 2" in text
    assert visible(text) == text
    assert "\\U0000202E" in text
