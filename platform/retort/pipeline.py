"""The main path: one recipe, from problems to a report. Each stage is found, where it was finished before.

`distill` is the whole of it. Stages hand each other artifacts; the run's index says which ones belong together.
"""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from retort import evaluation, sampling, verification
from retort.config import Recipe, Student, Teacher
from retort.engines import models
from retort.engines.interface import SamplingDistribution
from retort.records import Problem
from retort.report import report
from retort.sampling import Model, sample
from retort.selection import curate
from retort.store import Store
from retort.store.artifacts import Address, Artifact, Writer, find
from retort.store.hashing import digest, digest_file
from retort.store.plan import Plan
from retort.tasks import TASKS
from retort.training.trainer import train
from retort.verification import verify

logger = logging.getLogger(__name__)
VERSION = 1
CHARACTERS_PER_TOKEN = 4
"""Rule of thumb for English text; used where no tokenizer is asked."""

Stage = Literal["sample", "curate", "train", "evaluate", "report"]
Plans = dict[str, tuple[Plan, SamplingDistribution]]


@dataclass
class Run:
    """A recipe under way: the artifacts made or found so far, by stage and name."""

    recipe: Recipe
    store: Store
    artifacts: dict[str, dict[str, Artifact]] = field(default_factory=dict)

    def keep(self, stage: str, name: str, artifact: Artifact) -> Artifact:
        self.artifacts.setdefault(stage, {})[name] = artifact
        return artifact

    def problems(self, tasks: Sequence[str], splits: Sequence[str]) -> list[Problem]:
        """Problems of some tasks and splits, in order."""
        kept = (self.artifacts["problems"][task].records(Problem) for task in tasks)
        return [problem for problems in kept for problem in problems if problem.split in splits]


def prepare(recipe: Recipe, store: Store) -> Run:
    """Read and freeze the problems, and resolve every model: what can be found wrong before anything is started.

    Raises:
        ValueError: a malformed row, with file, line and field; a model that cannot be resolved.
    """
    run = Run(recipe, store)
    for task in recipe.task:
        run.keep("problems", task.id, load_problems(store, task))
    for teacher in recipe.teacher:
        teacher.settings.identity()
        teacher.settings.check()
    for student in recipe.student:
        models.identity(student.base, student.revision, has_weights=student.init == "pretrained")
    for corpus in recipe.corpus:
        taught = [digest(teacher.settings.identity()) for teacher in recipe.teacher if teacher.id in corpus.teachers]
        if len(set(taught)) < len(taught):
            raise ValueError(f"corpus.{corpus.id}.teachers: two of them are the same model; expected different ones")
        problems = run.problems(corpus.tasks, ("train",))
        if not problems:
            raise ValueError(f"corpus.{corpus.id}.tasks: no training problem in {', '.join(corpus.tasks)}")
        needs_gold = not corpus.teachers or corpus.selection.rule == "correct"
        if needs_gold and all(problem.answer is None for problem in problems):
            raise ValueError(f"corpus.{corpus.id}: no training problem has an answer; expected some, or rule = 'all'")
    asked = {*recipe.evaluation.tasks, *(task for tasks in recipe.evaluation.references.values() for task in tasks)}
    for task in sorted(asked):
        if not run.problems([task], ("test",)):
            raise ValueError(f"evaluation: task {task!r} has no test problem")
    return run


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
        corpus = run.artifacts["corpus"][student.corpus]
        made = train(store, corpus, student.base, student.revision, student.init, student.training, student.id)
        run.keep("checkpoint", student.id, made)
    if until == "train":
        return index(run)
    for teacher in recipe.teacher:
        measure(run, teacher.id, recipe.teacher_decodes(teacher))
    for name, model, plans in [*base_plans(run), *student_plans(run)]:
        judge(run, model, plans, name)
        measure(run, name, recipe.evaluation.decodes)
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


def teacher_plans(run: Run, teacher: Teacher, with_references: bool) -> Plans:
    """What a teacher is asked: each thought that a corpus wants of it, and the test problems it is compared on."""
    wanted: dict[str, dict[str, None]] = {}
    for corpus in run.recipe.corpus:
        if teacher.id in corpus.teachers:
            for thought in corpus.thoughts:
                wanted.setdefault(thought, {}).update(dict.fromkeys(corpus.tasks))
    pool = teacher.model.pool(run.store, teacher.distribution)
    plans: Plans = {}
    for thought, tasks in wanted.items():
        problems = run.problems(list(tasks), ("train", "dev"))
        asked = sampling.plan(problems, thought, pool, teacher.num_chains, teacher.max_new_tokens, teacher.chat)
        plans[thought] = asked, teacher.distribution
    references = run.recipe.evaluation.references.get(teacher.id, ())
    if references and with_references:
        problems = run.problems(references, ("test",))
        decodes = run.recipe.teacher_decodes(teacher)
        if len(decodes) < len(run.recipe.evaluation.decodes):
            logger.info("evaluation %s: %s alone, for want of chains", teacher.id, ", ".join(decodes))
        tests = evaluation.plans(
            teacher.model,
            run.store,
            problems,
            list(wanted) or ["cot"],
            decodes,
            teacher.distribution,
            teacher.max_new_tokens,
            teacher.chat,
        )
        plans |= {f"test-{name}": plan for name, plan in tests.items()}
    return plans


def base_plans(run: Run) -> list[tuple[str, Model, Plans]]:
    """The students before training, each base once, under every thought that its students learn."""
    tasks = run.recipe.evaluation.references.get("base", ())
    bases: dict[tuple[str, str | None], list[Student]] = {}
    for student in run.recipe.student:
        if student.init == "pretrained":
            bases.setdefault((student.base, student.revision), []).append(student)
    plans: list[tuple[str, Model, Plans]] = []
    for (base, revision), students in bases.items() if tasks else ():
        thoughts = {
            thought: None for student in students for thought in run.recipe.find_corpus(student.corpus).thoughts
        }
        plans.append(_tested(run, f"base {base}", base, revision, list(thoughts), tasks))
    return plans


def student_plans(run: Run) -> list[tuple[str, Model, Plans]]:
    """The trained students on the test problems, under the thoughts that they learned."""
    return [
        _tested(
            run,
            student.id,
            run.artifacts["checkpoint"][student.id].directory(),
            None,
            run.recipe.find_corpus(student.corpus).thoughts,
            run.recipe.evaluation.tasks,
        )
        for student in (run.recipe.student if run.recipe.evaluation.tasks else ())
    ]


def _tested(
    run: Run, name: str, model_path: str, revision: str | None, thoughts: Sequence[str], tasks: Sequence[str]
) -> tuple[str, Model, Plans]:
    config = run.recipe.evaluation
    model = Model("vllm", config.engine.model_copy(update={"model": model_path, "revision": revision}).pinned())
    distribution = SamplingDistribution(temperature=config.temperature)
    problems = run.problems(tasks, ("test",))
    plans = evaluation.plans(model, run.store, problems, thoughts, config.decodes, distribution, config.max_new_tokens)
    return name, model, {f"test-{key}": plan for key, plan in plans.items()}


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
                logger.warning(
                    "sampling %s: the recording lacks %d of %d chains", name, summary.lacking, summary.wanted
                )
            writers[key].commit([], asdict(summary))
    model_id = digest(model.config.identity())[:12]
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
    verdicts = {key: kept[f"{name}/test-{key}"] for key in ("greedy", "maj") if f"{name}/test-{key}" in kept}
    if verdicts:
        run.keep("evaluation", name, evaluation.evaluate(run.store, verdicts, decodes, name))


def index(run: Run) -> Artifact:
    """What belongs to a run: its recipe and the artifacts of every stage, by name."""
    names = {stage: {name: made.prefix for name, made in kept.items()} for stage, kept in run.artifacts.items()}
    recipe = run.recipe.model_dump(mode="json", exclude={"store"})
    where = Address("run", VERSION, recipe, names)
    found = find(run.store, where)
    return found or Writer(run.store, where).commit([], {"stages": {stage: len(kept) for stage, kept in names.items()}})
