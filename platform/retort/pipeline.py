"""The main path: one recipe, from problems to a report. Each stage is found, where it was finished before.

`distill` is the whole of it. Stages hand each other artifacts; the run's index says which ones belong together.
"""

import logging
from collections.abc import Sequence
from dataclasses import asdict
from typing import Literal

from retort import evaluation, verification
from retort.combining import Tolerance, parse
from retort.comparison import Measured, compare
from retort.config import Recipe, Student
from retort.planning import Plans, base_plans, student_parts, student_plans, teacher_plans
from retort.report import report
from retort.run import Run, index, prepare
from retort.sampling import Model, sample
from retort.selection import curate
from retort.store import Store
from retort.store.artifacts import Address, Artifact, Writer, find
from retort.store.hashing import digest
from retort.thoughts.socratic import Role
from retort.training.trainer import train
from retort.verification import verify

logger = logging.getLogger(__name__)
VERSION = 1
CHARACTERS_PER_TOKEN = 4
"""Rule of thumb for English text; used where no tokenizer is asked."""

Stage = Literal["sample", "curate", "train", "evaluate", "report"]


def distill(recipe: Recipe, store: Store, until: Stage = "report") -> Artifact:
    """Run a recipe up to a stage; the report, or the index of what there is by then."""
    run = prepare(recipe, store)
    for teacher in recipe.teacher:
        judge(
            run, teacher.model, teacher_plans(run, teacher, with_references=until in ("evaluate", "report")), teacher.id
        )
    if until == "sample":
        return index(run)
    for corpus in recipe.corpus:
        run.keep("corpus", corpus.id, build_corpus(run, corpus.id))
    if until == "curate":
        return index(run)
    for student in recipe.student:
        for name, role, seed in student_parts(student):
            run.keep("checkpoint", name, train_part(run, student, name, role, seed))
    if until == "train":
        return index(run)
    for teacher in recipe.teacher:
        measure(run, teacher.id, recipe.teacher_decodes(teacher))
    for name, model, plans in [*base_plans(run), *student_plans(run)]:
        judge(run, model, plans, name)
        measure(run, name, recipe.evaluation.decodes)
    if recipe.student and recipe.evaluation.tasks:
        run.keep("comparison", "students", compare(store, measured(run)))
    return index(run) if until == "evaluate" else report(store, index(run))


def dry_run(recipe: Recipe, store: Store) -> list[str]:
    """What sampling would do, a line a plan. Starts nothing; reads the pools' keys and local data only."""
    run = prepare(recipe, store)
    lines = [f"recipe {recipe.name}, store {store.uri}"]
    for task in recipe.task:
        lines.append(f"task {task.id}: {run.artifacts['problems'][task.id].stats}")
    total = 0
    for teacher in recipe.teacher:
        for name, (plan, _) in teacher_plans(run, teacher, with_references=True).items():
            missing = list(plan.missing())
            prompt_tokens = sum(len(request.prompt) for request in missing) // CHARACTERS_PER_TOKEN
            total += prompt_tokens + len(missing) * plan.max_new_tokens
            lines.append(
                f"teacher {teacher.id}, {name}: {len(plan.prompts)} problems, {plan.num_wanted} chains wanted, "
                f"{plan.num_wanted - len(missing)} present, {len(missing)} missing: ~{prompt_tokens} prompt tokens "
                f"(by {CHARACTERS_PER_TOKEN} characters a token), at most {len(missing) * plan.max_new_tokens} new ones"
            )
    students = ", ".join(student.id for student in recipe.student) or "none"
    lines.append(f"students: {students}; their test chains depend on their weights and are planned after training")
    return [*lines, f"estimate: at most {total} teacher tokens"]


def train_part(run: Run, student: Student, name: str, role: Role | None, seed: int) -> Artifact:
    """One checkpoint of a student."""
    corpus = run.artifacts["corpus"][student.corpus]
    config = student.training.model_copy(update={"seeds": (seed,)})
    view = None if role is None or student.rollout.iterative is None else (role, student.rollout.iterative)
    return train(run.store, corpus, student.base, student.revision, student.init, config, name, view)


def judge(run: Run, model: Model, plans: Plans, name: str) -> None:
    """Sample what the pools of a model lack, in one engine session, and verify all that was asked for."""
    addresses = {key: Address("sampling", VERSION, {}, plan.describe()) for key, (plan, _) in plans.items()}
    config = run.recipe.verification
    lacking = [
        key
        for key, (plan, _) in plans.items()
        if find(run.store, addresses[key]) is None or find(run.store, verification.address(plan, config)) is None
    ]
    not_given = 0
    writers = {key: Writer(run.store, addresses[key]) for key in lacking}
    if lacking:
        summaries = sample(model, [plans[key] for key in lacking], run.recipe.sampling, name)
        for key, summary in zip(lacking, summaries, strict=True):
            not_given += summary.lacking
            if summary.lacking:
                told = name, key, summary.lacking, summary.wanted
                logger.warning("sampling %s, %s: the recording lacks %d of %d chains", *told)
            writers[key].commit([], asdict(summary))
    model_id = digest(model.identity())[:12]
    verdicts = verify(run.store, [plan for plan, _ in plans.values()], model_id, config, not_given)
    for key, artifact in zip(plans, verdicts, strict=True):
        sampled = find(run.store, addresses[key])
        assert sampled is not None
        run.keep("sampling", f"{name}/{key}", sampled)
        run.keep("verdicts", f"{name}/{key}", artifact)


def build_corpus(run: Run, corpus_id: str) -> Artifact:
    """The examples of one corpus."""
    corpus = run.recipe.find_corpus(corpus_id)
    verdicts = [
        run.artifacts["verdicts"][f"{teacher}/{thought}"] for teacher in corpus.teachers for thought in corpus.thoughts
    ]
    problems = [] if corpus.teachers else run.problems(corpus.tasks, ("train", "dev"))
    return curate(run.store, verdicts, problems, corpus.tasks, corpus.thoughts, corpus.selection)


def measure(run: Run, name: str, decodes: Sequence[str]) -> None:
    """Scores of one model, if it was asked any test problems."""
    kept = run.artifacts.get("verdicts", {})
    verdicts = {key: kept[f"{name}/test-{key}"] for key in ("greedy", "maj", "dev") if f"{name}/test-{key}" in kept}
    if not verdicts:
        return
    problems = run.problems([task.id for task in run.recipe.task], ("test",))
    references = {problem.id: problem.sub_questions for problem in problems if problem.sub_questions}
    combiners, checks = run.recipe.evaluation.combine, run.recipe.verification
    tolerance = Tolerance(checks.relative_tolerance, checks.absolute_tolerance)
    run.keep(
        "evaluation", name, evaluation.evaluate(run.store, verdicts, decodes, combiners, references, tolerance, name)
    )


def measured(run: Run) -> list[Measured]:
    """Every student with its evaluations; the first combiner of the recipe speaks for it, else its first thought."""
    found: list[Measured] = []
    for student in run.recipe.student:
        taught = run.recipe.find_corpus(student.corpus).taught
        known = map(parse, run.recipe.evaluation.combine)
        combiners = [one.text for one in known if set(one.thoughts) <= set(taught) and not one.is_upper_bound]
        evaluations = [run.artifacts["evaluation"][name] for name in student.runs]
        found.append(Measured(student.id, evaluations, [*combiners, *taught][0]))
    return found
