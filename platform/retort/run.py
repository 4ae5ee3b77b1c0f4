"""A run: a recipe under way. Its problems are frozen and its models resolved before anything is started."""

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retort.asking import student_asked
from retort.config import Corpus, Recipe, Student, Teacher
from retort.engines import models
from retort.engines.interface import ModelConfig
from retort.engines.local import LocalModelConfig
from retort.logs import event
from retort.records import Problem
from retort.selection import label
from retort.store import Store
from retort.store.artifacts import Address, Artifact, Writer, find
from retort.store.hashing import digest, digest_file
from retort.tasks import TASKS

logger = logging.getLogger(__name__)
VERSION = 2


@dataclass
class Run:
    """A recipe under way: the artifacts made or found so far, by stage and name."""

    recipe: Recipe
    store: Store
    artifacts: dict[str, dict[str, Artifact]] = field(default_factory=dict)

    def keep(self, stage: str, name: str, artifact: Artifact, is_output: bool = True) -> Artifact:
        """Count an artifact, made or found, to this run; one that is no output of it is only told of."""
        told = event("kept", stage, name, artifact.prefix, artifact.manifest.get("attempt", ""))
        logger.info("kept %s %s", stage, name, extra=told)
        if is_output:
            self.artifacts.setdefault(stage, {})[name] = artifact
        return artifact

    def problems(self, tasks: Sequence[str], splits: Sequence[str]) -> list[Problem]:
        """Problems of some tasks and splits, in order."""
        kept = (self.artifacts["problems"][task].records(Problem) for task in tasks)
        return [problem for problems in kept for problem in problems if problem.split in splits]

    def exam_problems(self, student: Student) -> list[Problem]:
        """The dev problems by which checkpoints of a student can be told apart: those with gold answers."""
        tasks = self.recipe.find_corpus(student.corpus).tasks
        return [problem for problem in self.problems(tasks, ("dev",)) if problem.answer is not None]


def prepare(recipe: Recipe, store: Store) -> Run:
    """Read and freeze the problems, and resolve every model: what can be found wrong before anything is started.

    Raises:
        ValueError: a malformed row, with file, line and field; a model that cannot be resolved; a problem that lacks
            what a teacher or a student is to be shown of it.
    """
    run = Run(recipe, store)
    for task in recipe.task:
        run.keep("problems", task.id, load_problems(store, task))
    for teacher in recipe.teacher:
        teacher.settings.identity()
        teacher.settings.check()
        if isinstance(loaded := teacher.settings, LocalModelConfig):
            _check_budget(f"teacher.{teacher.id}", loaded.model, teacher.max_new_tokens)
    for student in recipe.student:
        models.identity(student.base, student.revision, has_weights=student.init == "pretrained")
        _check_budget("evaluation", student.base, recipe.evaluation.max_new_tokens)
        if student.rollout.calculator and models.is_encoder_decoder(student.base, student.revision):
            raise ValueError(
                f"student.{student.id}.rollout.calculator: {student.base} is an encoder-decoder, which cannot go on "
                f"with what it has begun; set it to false"
            )
    for corpus in recipe.corpus:
        _check_corpus(run, corpus)
    asked = {*recipe.evaluation.tasks, *(task for tasks in recipe.evaluation.references.values() for task in tasks)}
    split = recipe.evaluation.split
    for task in sorted(asked):
        if not run.problems([task], (split,)):
            raise ValueError(f"evaluation: task {task!r} has no {split} problem")
    for student in recipe.student:
        tasks = student.tasks or recipe.evaluation.tasks
        if recipe.evaluation.needs_dev and tasks and not run.problems(tasks, ("dev",)):
            raise ValueError(
                f"evaluation.combine: a weighted combiner needs dev problems; {', '.join(tasks)}, the tasks of student "
                f"{student.id}, have none"
            )
        if student.training.choose_by == "dev_accuracy" and not run.exam_problems(student):
            raise ValueError(
                f"student.{student.id}.training.choose_by = 'dev_accuracy': no dev problem of corpus {student.corpus} "
                f"has a gold answer; expected some, or choose_by = 'dev_loss'"
            )
        if student.rollout.iterative is not None:
            for problem in run.problems(tasks, (split,)):
                student_asked(student.rollout)(problem, "socratic")
    return run


def _check_budget(name: str, model: str, max_new_tokens: int) -> None:
    longest = models.context(model)
    if longest is not None and max_new_tokens >= longest:
        raise ValueError(
            f"{name}.max_new_tokens = {max_new_tokens}: {model} sees {longest} tokens, its prompt among them; lower it"
        )


def _check_corpus(run: Run, corpus: Corpus) -> None:
    teachers = [teacher for teacher in run.recipe.teacher if teacher.id in corpus.teachers]
    if len({digest(teacher.settings.identity()) for teacher in teachers}) < len(teachers):
        raise ValueError(f"corpus.{corpus.id}.teachers: two of them are the same model; expected different ones")
    problems = run.problems(corpus.tasks, ("train",))
    if not problems:
        raise ValueError(f"corpus.{corpus.id}.tasks: no training problem in {', '.join(corpus.tasks)}")
    config = corpus.selection
    by_rates = config.min_pass_rate is not None or config.max_pass_rate is not None
    if (not teachers or config.rule == "correct" or by_rates) and all(problem.answer is None for problem in problems):
        raise ValueError(f"corpus.{corpus.id}: no training problem has an answer; expected some, or rule = 'all'")
    if not teachers:
        for thought in corpus.thoughts:
            if not any(label(problem, thought) for problem in problems):
                raise ValueError(
                    f"corpus.{corpus.id}: gold annotations of {', '.join(corpus.tasks)} teach no {thought!r}; expected "
                    f"problems with steps (and sub-questions), or teachers"
                )
    _check_selection(run, corpus, teachers)
    for teacher in teachers:
        if teacher.lesson.exemplars or teacher.lesson.given != "nothing":
            asked = teacher.lesson.asked(run.recipe.kinds)
            for problem, thought in itertools.product(run.problems(corpus.tasks, ("train", "dev")), corpus.thoughts):
                asked(problem, thought)


def _check_selection(run: Run, corpus: Corpus, teachers: Sequence[Teacher]) -> None:
    """Raises ValueError where a corpus is to be selected by what it has not."""
    where, config = f"corpus.{corpus.id}.selection", corpus.selection
    if not teachers and config.needs_chains:
        raise ValueError(f"{where}.{config.needs_chains[0]}: gold labels are no chains; leave it out or name teachers")
    if config.max_overlap is not None and not (run.recipe.evaluation.tasks or run.recipe.evaluation.references):
        raise ValueError(f"{where}.max_overlap: nothing is tested; expected evaluation.tasks to compare questions with")
    for teacher in teachers:
        asks = isinstance(teacher.settings, ModelConfig) and teacher.settings.logprobs == "none"
        if config.pick == "likely" and asks:
            raise ValueError(
                f"{where}.pick = 'likely' needs log-probabilities; expected teacher.{teacher.id}.logprobs = \"sum\""
            )


def load_problems(store: Store, task: Any) -> Artifact:
    """The problems of a task, frozen."""
    inputs = {"files": [digest_file(Path(file)) for file in task.files()]}
    where = Address("problems", VERSION, task.model_dump(mode="json"), inputs)
    found = find(store, where)
    if found is not None:
        return found
    writer = Writer(store, where)
    problems = list(TASKS[task.kind].load(task))
    counts = {split: sum(problem.split == split for problem in problems) for split in ("train", "dev", "test")}
    logger.info("task %s: %s", task.id, counts)
    return writer.commit([writer.put_records("problems.parquet", Problem, problems)], counts)


def index(run: Run) -> Artifact:
    """What belongs to a run: its recipe and the artifacts of every stage, by name."""
    names = {stage: {name: made.prefix for name, made in kept.items()} for stage, kept in run.artifacts.items()}
    recipe = run.recipe.model_dump(mode="json", exclude={"store"})
    where = Address("run", VERSION, recipe, names)
    found = find(run.store, where)
    return found or Writer(run.store, where).commit([], {"stages": {stage: len(kept) for stage, kept in names.items()}})
