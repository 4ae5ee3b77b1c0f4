"""The shipped models are what their README says: the teacher solves the task and errs when warm, the student cannot."""

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from retort import answers, prompts
from retort.engines import models
from retort.tasks import arithmetic
from retort.thoughts import cues

STORIES = list(islice(arithmetic.stories("test", seed=100), 200))


def load(name: str) -> tuple[Any, Any]:
    path = models.locate(f"shipped:{name}")
    return AutoTokenizer.from_pretrained(path, padding_side="left"), AutoModelForCausalLM.from_pretrained(path).eval()


def complete(name: str, cue: str, temperature: float = 0.0, with_steps: bool = False) -> list[str]:
    """One completion of each story."""
    tokenizer, model = load(name)
    problems = [story.problem("test", number) for number, story in enumerate(STORIES)]
    given = [["Steps:", *problem.steps] if with_steps else [] for problem in problems]
    texts = [prompts.ask(prompts.body(problem), cue, shown) for problem, shown in zip(problems, given, strict=True)]
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    torch.manual_seed(0)
    sampling = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {"do_sample": False}
    output = model.generate(**batch, max_new_tokens=200, pad_token_id=tokenizer.pad_token_id, **sampling)
    return tokenizer.batch_decode(output[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)


def accuracy(texts: list[str]) -> float:
    """Share whose marked answer is the story's."""
    right = 0
    for text, story in zip(texts, STORIES, strict=True):
        found = answers.find("number", text)
        right += found is not None and answers.compare("number", found, str(story.answer)) is True
    return right / len(texts)


def run_assignments(text: str) -> float | None:
    """The value of `ans` after lines `name = a [op b]`; None where a line is anything else."""
    values: dict[str, float] = {}
    operations = {"+": float.__add__, "-": float.__sub__, "*": float.__mul__, "/": float.__truediv__}
    for line in text.splitlines():
        if line.startswith("%"):
            continue
        match line.split():
            case [name, "=", term]:
                values[name] = values.get(term, float(term) if term.isdigit() else float("nan"))
            case [name, "=", left, operation, right] if operation in operations and left in values and right.isdigit():
                values[name] = operations[operation](values[left], float(right))
            case _:
                return None
    return values.get("ans")


def test_the_teacher_solves_the_task_greedily() -> None:
    assert accuracy(complete("teacher", cues.COT)) >= 0.95


def test_the_warm_teacher_errs_often_enough_to_be_worth_filtering() -> None:
    assert 0.05 <= 1 - accuracy(complete("teacher", cues.COT, temperature=1.0)) <= 0.40


@pytest.mark.parametrize("cue", [cues.POT, cues.EOT])
def test_the_teacher_writes_programs_and_equations_that_give_the_answer(cue: str) -> None:
    texts = complete("teacher", cue)
    right = sum(run_assignments(text) == story.answer for text, story in zip(texts, STORIES, strict=True))
    assert right / len(STORIES) >= 0.9


@pytest.mark.slow
def test_the_teacher_asks_and_answers_sub_questions() -> None:
    texts = complete("teacher", cues.SOCRATIC)
    assert accuracy(texts) >= 0.9
    asked = [text.count("?") == len(story.steps) for text, story in zip(texts, STORIES, strict=True)]
    assert sum(asked) / len(asked) >= 0.9


@pytest.mark.slow
def test_the_teacher_adds_sub_questions_to_given_steps() -> None:
    texts = complete("teacher", cues.SUB_QUESTIONS, with_steps=True)
    kept = 0
    for text, story in zip(texts, STORIES, strict=True):
        steps = [line.partition(" ** ")[2].partition("<<")[0].strip() for line in text.splitlines()[:-1]]
        kept += steps == [step.equation.rpartition(" ")[0] for step in story.steps]
    assert kept / len(texts) >= 0.9


@pytest.mark.slow
def test_the_base_student_cannot_solve_anything() -> None:
    for cue in (cues.COT, cues.ANSWER):
        assert accuracy(complete("student", cue)) <= 0.03


def test_the_models_are_small_and_their_tokenizer_knows_every_byte() -> None:
    folders = [Path(models.locate(f"shipped:{name}")) for name in models.SHIPPED]
    assert sum(file.stat().st_size for folder in folders for file in folder.iterdir()) <= 8_000_000
    tokenizer, _ = load("teacher")
    for text in ("Größe: 3½ €", "数学", "tabs\tand\nlines", "\x00\x07", "🙂"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
