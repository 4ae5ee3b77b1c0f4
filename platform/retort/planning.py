"""Planning: which chains a run wants of its teachers, of its students, and of these before training.

A plan's name is the thought that a corpus wants of a teacher, `cot`, or `cot[:4]` where it looks at the first 4 chains
of more; or `test-greedy`, `test-maj`, `test-dev` (evaluation).
"""

import logging
from collections.abc import Sequence
from dataclasses import replace

from retort import evaluation, sampling
from retort.asking import student_asked
from retort.combining import parse
from retort.config import Corpus, Student, Teacher
from retort.engines import models
from retort.engines.interface import SamplingDistribution
from retort.rollouts import Rollout
from retort.run import Run
from retort.sampling import Model
from retort.store.hashing import digest
from retort.store.plan import Plan
from retort.thoughts.socratic import Role
from retort.training.examining import Exam
from retort.verification import until_correct

logger = logging.getLogger(__name__)
Plans = dict[str, tuple[Plan, SamplingDistribution]]


def num_chains(teacher: Teacher, corpus: Corpus) -> int:
    """Chains of each problem that a corpus looks at."""
    return corpus.selection.num_chains or teacher.num_chains


def plan_name(thought: str, chains: int, teacher: Teacher) -> str:
    """The name of a plan for so many chains: `cot`, or `cot[:4]` for the first 4 of more."""
    return thought if chains == teacher.num_chains else f"{thought}[:{chains}]"


def teacher_plans(run: Run, teacher: Teacher, with_references: bool) -> Plans:
    """What a teacher is asked: each thought that a corpus wants of it, and the test problems it is compared on."""
    wanted: dict[tuple[str, int], dict[str, None]] = {}
    for corpus in run.recipe.corpus:
        if teacher.id in corpus.teachers:
            for thought in corpus.thoughts:
                key = thought, num_chains(teacher, corpus)
                wanted.setdefault(key, {}).update(dict.fromkeys(corpus.tasks))
    pool = teacher.model.pool(run.store, teacher.distribution)
    asked = teacher.lesson.asked(run.recipe.kinds)
    until = until_correct(teacher.num_correct, run.recipe.verification) if teacher.num_correct else None
    plans: Plans = {}
    for (thought, chains), tasks in sorted(wanted.items(), key=lambda one: -one[0][1]):
        problems = run.problems(list(tasks), ("train", "dev"))
        planned = sampling.plan(problems, thought, pool, chains, teacher.max_new_tokens, asked, until)
        plans[plan_name(thought, chains, teacher)] = planned, teacher.distribution
    references = run.recipe.evaluation.references.get(teacher.id, ())
    if references and with_references:
        problems = run.problems(references, (run.recipe.evaluation.split,))
        decodes = run.recipe.teacher_decodes(teacher)
        if len(decodes) < len(run.recipe.evaluation.decodes):
            logger.info("evaluation %s: %s alone, for want of chains", teacher.id, ", ".join(decodes))
        tests = evaluation.plans(
            teacher.model,
            run.store,
            problems,
            [],
            list(dict.fromkeys(thought for thought, _ in wanted)) or ["cot"],
            decodes,
            teacher.distribution,
            teacher.max_new_tokens,
            teacher.lesson.model_copy(update={"given": "nothing"}).asked(run.recipe.kinds),
        )
        plans |= {f"test-{name}": plan for name, plan in tests.items()}
    return plans


def pilot_plans(plans: Plans, problems: int) -> Plans:
    """The same for the first problems alone, which the whole then finds sampled. Test problems need no pilot."""
    return {
        name: (replace(plan, prompts=plan.prompts[:problems]), distribution)
        for name, (plan, distribution) in plans.items()
        if not name.startswith("test-")
    }


def base_plans(run: Run) -> list[tuple[str, Model, Plans]]:
    """The students before training, each base once, under every thought that its students learn."""
    tasks = run.recipe.evaluation.references.get("base", ())
    bases: dict[tuple[str, str | None], list[Student]] = {}
    for student in run.recipe.student:
        if student.init == "pretrained":
            bases.setdefault((student.base, student.revision), []).append(student)
    plans: list[tuple[str, Model, Plans]] = []
    for (base, revision), students in bases.items() if tasks else ():
        thoughts = {thought: None for student in students for thought in run.recipe.find_corpus(student.corpus).taught}
        model = served(run, students[0].engine, [base], revision, Rollout())
        name = f"base {base}" if revision is None else f"base {base}@{revision}"
        plans.append((name, model, _tests(run, model, tasks, (), list(thoughts))))
    return plans


def student_plans(run: Run) -> list[tuple[str, Model, Plans]]:
    """The trained students on the test problems, each run under the thoughts that it learned."""
    config = run.recipe.evaluation
    plans: list[tuple[str, Model, Plans]] = []
    for student in run.recipe.student if config.tasks else ():
        taught, tasks = run.recipe.find_corpus(student.corpus).taught, student.tasks or config.tasks
        weighs = any(set(parse(c).thoughts) <= set(taught) for c in config.combine if parse(c).rule == "weighted")
        for name, seed in student.runs.items():
            parts = [part for part, _, of_seed in student_parts(student) if of_seed == seed]
            paths = [run.artifacts["checkpoint"][part].location for part in parts]
            model = served(run, student.engine, paths, None, student.rollout)
            plans.append((name, model, _tests(run, model, tasks, tasks if weighs else (), taught)))
    return plans


def exam(run: Run, student: Student) -> Exam | None:
    """The dev problems by which checkpoints of a student are told apart, under its first thought; None where their loss
    does.
    """
    config = student.training
    if config.choose_by != "dev_accuracy":
        return None
    asked, thought = student_asked(student.rollout), run.recipe.find_corpus(student.corpus).taught[0]
    # By hash, so that several tasks have their shares.
    by_chance = sorted(run.exam_problems(student), key=lambda problem: digest(problem.id))
    chosen = tuple(by_chance[: config.dev_problems])
    prompts = tuple(asked(problem, thought) for problem in chosen)
    return Exam(chosen, thought, prompts, config.dev_max_new_tokens, student.rollout, run.recipe.verification)


def student_parts(student: Student) -> list[tuple[str, Role | None, int]]:
    """Name, role and seed of every checkpoint of a student."""
    return [
        (name if role is None else f"{name}/{role}", role, seed)
        for name, seed in student.runs.items()
        for role in student.roles
    ]


def served(run: Run, engine: str | None, paths: Sequence[str], revision: str | None, rollout: Rollout) -> Model:
    """Checkpoints as a model that can be sampled, by the engine that serves their kind."""
    config = run.recipe.evaluation
    if engine is None:
        engine = "hf" if models.is_encoder_decoder(paths[0], revision) else "vllm"
    settings = config.hf if engine == "hf" else config.engine
    configs = (settings.model_copy(update={"model": path, "revision": revision}).pinned() for path in paths)
    return Model(engine, tuple(configs), rollout)


def _tests(run: Run, model: Model, tasks: Sequence[str], dev_tasks: Sequence[str], thoughts: Sequence[str]) -> Plans:
    config = run.recipe.evaluation
    plans = evaluation.plans(
        model,
        run.store,
        run.problems(tasks, (config.split,)),
        run.problems(dev_tasks, ("dev",)),
        thoughts,
        config.decodes,
        SamplingDistribution(temperature=config.temperature),
        config.max_new_tokens,
        student_asked(model.rollout),
    )
    return {f"test-{key}": plan for key, plan in plans.items()}
