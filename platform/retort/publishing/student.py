"""A student as a folder for `transformers` and `vllm serve`: its checkpoint with a model card.

`generation_config.json` becomes what was measured: greedy, within the token budget, up to the tokens that end a text.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from retort.config import expected
from retort.evaluation import Score
from retort.publishing.cards import card, code, fenced, licence_fields, placeless, settings, table
from retort.publishing.folder import copy_files, new_folder
from retort.publishing.provenance import TAGS, behind_corpus, language, licences, lineage, teaching
from retort.records import Example
from retort.report.contents import ROLE_WORDS, Contents, Measured
from retort.report.formatting import count, interval, number, percent, spread
from retort.report.recipes import taught, worded
from retort.store.artifacts import Artifact
from retort.thoughts.socratic import Iterative
from retort.training.examples import View, viewed

LOADING = """\
from transformers import {auto}, AutoTokenizer

model = {auto}.from_pretrained(".")  # this folder, or its name
tokenizer = AutoTokenizer.from_pretrained(".")
prompt = {prompt!r}
asked = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
written = model.generate(**asked)[0]
print(tokenizer.decode(written{answer}, skip_special_tokens=True))
"""
SERVING = """\
from openai import OpenAI

server = OpenAI(base_url="http://localhost:8000/v1", api_key="none")
prompt = {prompt!r}
print(server.completions.create(model="{name}", prompt=prompt, temperature=0, max_tokens={most}).choices[0].text)
"""
DRAWN = ("temperature", "top_p", "top_k", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")
"""Fields of a generation config that count for samples alone."""
LIMITS = (
    "It is a small model that was taught to write reasoning of one form on problems of the tasks named here, and it is "
    "meant for such problems, and for research on distillation. A chain can read well and be wrong; nothing is known "
    "of other tasks, languages and ways of asking. It was not made safe: do not let it decide about people, and run "
    "what it writes, where that is a program, in a sandbox only."
)


def publish_student(contents: Contents, name: str, folder: Path, licence: str | None) -> str:
    """Write a checkpoint of a run, with its card, to a new folder; what it is, in a line.

    Raises:
        ValueError: no such student in the run; something in the folder's place; a damaged artifact.
    """
    known = contents.stage("checkpoint")
    found = known.get(name)
    if found is None:
        raise ValueError(f"run {contents.run.id} has no student {name!r}: {expected(name, known)}")
    with new_folder(folder) as made:
        copy_files(found, made)
        _set_generation(made, contents.recipe["evaluation"]["max_new_tokens"])
        is_encoder_decoder = bool(json.loads((made / "config.json").read_bytes()).get("is_encoder_decoder"))
        text = student_card(contents, name, found, licence, is_encoder_decoder)
        (made / "README.md").write_text(text, encoding="utf-8")
    return f"student {name}, {count(found.stats['parameters'])} parameters"


def _set_generation(folder: Path, max_new_tokens: int) -> None:
    """Have a checkpoint generate as it was measured."""
    from transformers import AutoTokenizer

    file = folder / "generation_config.json"
    fields: dict[str, Any] = json.loads(file.read_bytes())
    ends = fields.get("eos_token_id") or []
    # Training ends each target with the tokenizer's token, at which vLLM stops by itself and transformers does not.
    last: int = AutoTokenizer.from_pretrained(folder).eos_token_id
    all_ends = list(dict.fromkeys([last, *(ends if isinstance(ends, list) else [ends])]))
    kept = {key: value for key, value in fields.items() if key not in (*DRAWN, "max_length", "_from_model_config")}
    kept |= {"do_sample": False, "max_new_tokens": max_new_tokens, "eos_token_id": all_ends}
    file.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def student_card(
    contents: Contents, name: str, checkpoint: Artifact, licence: str | None, is_encoder_decoder: bool
) -> str:
    """The model card of a student."""
    student = contents.student(name)
    assert student is not None, name
    base, corpus_id = student["base"], student["corpus"]
    tasks, settled = contents.corpora[corpus_id]["tasks"], checkpoint.manifest["config"]
    is_of_hub = student["init"] == "pretrained" and placeless(base) == base and ":" not in base
    fields = {
        **licence_fields(licence),
        "base_model": base if is_of_hub else None,
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "language": language(contents, tasks),
        "tags": TAGS,
    }
    origin = "fine-tuned from" if student["init"] == "pretrained" else "with the architecture and the tokenizer of"
    identity = checkpoint.manifest["inputs"]["base"]
    blocks = [
        f"# Student {code(name)} of {code(contents.recipe['name'])}",
        f"A language model of {count(checkpoint.stats['parameters'])} parameters, {origin} {code(placeless(base))}"
        f" ({code(identity)}) on corpus {code(corpus_id)} with retort, which distils the reasoning of large models "
        f"into small ones.",
        *_role(student, name),
        *_scores(contents, student, name),
        *_use(contents, student, name, is_encoder_decoder),
        "## Intended use and limits",
        LIMITS,
        "## Training",
        _training(checkpoint),
        settings(settled),
        f"## Data: corpus {code(corpus_id)}",
        f"Problems of {', '.join(map(code, tasks))}.",
        *teaching(contents, corpus_id),
        *licences(contents, corpus_id, (f"student {code(name)}", licence), base),
        *lineage(contents, [*behind_corpus(contents, corpus_id), *_behind(contents, name)]),
    ]
    return card(fields, blocks)


def _behind(contents: Contents, name: str) -> Iterator[tuple[str, str, Artifact]]:
    for stage, of in (("checkpoint", name), ("evaluation", name.split("/")[0])):
        if of in contents.stage(stage):
            yield stage, of, contents.stage(stage)[of]


def _role(student: dict[str, Any], name: str) -> Iterator[str]:
    """What is to be said of a checkpoint that does not do everything by itself."""
    role, rollout = name.partition("/")[2], student["rollout"]
    if role:
        yield (
            f"It is one of several that answer a problem together, in turns: {code(role)} of {code(student['id'])}. "
            f"Alone it does only its own turn. How they share a problem:"
        )
        yield settings(rollout["iterative"])
    if rollout["calculator"]:
        yield (
            "It was measured with a calculator, which writes the value behind each `=` of an annotation `<<3+4=`; "
            "without one it computes by itself, and may be wrong more often."
        )


def _scores(contents: Contents, student: dict[str, Any], name: str) -> Iterator[str]:
    """Scores of this run of the student, and of what it is to be compared with on the same tasks."""
    run = name.split("/")[0]
    evaluation = contents.stage("evaluation").get(run)
    yield "## Scores"
    if evaluation is None:
        yield "It was not evaluated in this run."
        return
    own = [Score(**row) for row in evaluation.lines("scores.jsonl")]
    asked = {(score.task, score.decode) for score in own}
    rows = [_score(code(run), "this student", score) for score in own]
    for each in contents.scores:
        if (each.score.task, each.score.decode) in asked and _is_beside(contents, student, each):
            rows.append(_score(code(each.model), ROLE_WORDS[each.role], each.score))
        elif each.model == student["id"] and each.spread is not None:
            stated = spread(each.spread.mean, each.spread.sd)
            place = [code(each.score.task), code(worded(each.score.thought)), code(each.score.decode)]
            rows.append([f"{code(student['id'])}, {each.spread.seeds} seeds", "mean ± sd", *place, stated, "", ""])
    yield table(["model", "is", "task", "thought", "decode", "accuracy", "95% interval", "correct"], rows)
    yield (
        "Accuracy on test problems; intervals are Wilson's. `greedy` is one chain at temperature 0, `maj@k` the vote "
        f"of k chains at temperature {contents.recipe['evaluation']['temperature']:g}."
    )


def _is_beside(contents: Contents, student: dict[str, Any], measured: Measured) -> bool:
    """Whether a card compares its student with a model: teachers, its own base, students of labels alone."""
    if measured.role == "base":
        return student in contents.students_of(measured.model)
    return measured.role != "chains" and measured.model != student["id"]


def _score(model: str, role: str, score: Score) -> list[str]:
    place = [code(score.task), code(worded(score.thought)), code(score.decode)]
    if not score.problems:
        return [model, role, *place, "no gold answers", "", ""]
    counted = f"{count(score.correct)} of {count(score.problems)}"
    return [model, role, *place, percent(score.accuracy), interval(score.low, score.high), counted]


def _use(contents: Contents, student: dict[str, Any], name: str, is_encoder_decoder: bool) -> Iterator[str]:
    """The prompts, word for word, and how to load and to serve the model."""
    view: View | None = None
    if student["rollout"]["iterative"]:
        shared = Iterative.model_validate(student["rollout"]["iterative"])
        view = next((role, shared) for role in shared.roles if role == name.partition("/")[2])
    corpus = contents.stage("corpus")[student["corpus"]]
    shown = shown_examples(corpus.records(Example), taught(contents.corpora[student["corpus"]]), view)
    yield "## How to ask it"
    yield (
        "It continues a prompt of exactly this form, which ends with a line end; no chat template is used. Examples of "
        "what it was taught, a prompt and its target:"
    )
    for example in shown:
        yield f"{code(example.thought)}:"
        yield fenced(example.prompt)
        yield fenced(example.target)
    prompt, most = shown[0].prompt, contents.recipe["evaluation"]["max_new_tokens"]
    auto = "AutoModelForSeq2SeqLM" if is_encoder_decoder else "AutoModelForCausalLM"
    answer = "" if is_encoder_decoder else '[asked["input_ids"].shape[1] :]'
    yield "## How to run it"
    yield fenced(LOADING.format(auto=auto, prompt=prompt, answer=answer), "python")
    if is_encoder_decoder:
        yield "vLLM does not serve encoder-decoders such as this one."
        return
    dtype, served = contents.recipe["evaluation"]["engine"]["dtype"], contents.recipe["name"]
    yield "With vLLM, the server and then a client:"
    yield fenced(f"vllm serve . --served-model-name {served} --dtype {dtype}", "sh")
    yield fenced(SERVING.format(prompt=prompt, name=served, most=most), "python")


def shown_examples(examples: Iterable[Example], thoughts: Sequence[str], view: View | None) -> list[Example]:
    """The first example of each thought, or the first of what a role is taught; reads no further than it must."""
    found: dict[str, Example] = {}
    for each in examples:
        for example in viewed([each], view)[:1]:
            found.setdefault(example.thought, example)
        if len(found) == (len(thoughts) if view is None else 1):
            break
    return [found[thought] for thought in sorted(found)]


def _training(checkpoint: Artifact) -> str:
    stats = checkpoint.stats
    measured = [
        *([f"a dev loss of {number(stats['best_dev_loss'])}"] if stats["best_dev_loss"] is not None else []),
        *(
            [f"a dev accuracy of {percent(stats['best_dev_accuracy'])}"]
            if stats["best_dev_accuracy"] is not None
            else []
        ),
    ]
    return (
        f"{count(stats['train_examples'])} training and {count(stats['dev_examples'])} dev examples, "
        f"{count(stats['too_long'])} left out as too long, {count(stats['truncated'])} cut off; "
        f"{count(stats['target_tokens'])} target tokens; the kept weights are those of step {count(stats['best_step'])}"
        f"{', with ' * bool(measured)}{' and '.join(measured)}. `metrics.jsonl` holds the curve. Settings:"
    )
