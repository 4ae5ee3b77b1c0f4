"""The main path: one recipe, from problems to a report. Each stage is found, where it was finished before.

`distill` is the whole of it. Stages hand each other artifacts; the run's index says which ones belong together.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, Literal

from retort import evaluation, overlap, verification
from retort.cluster.demands import check_fits
from retort.combining import Tolerance, parse
from retort.comparison import Measured, compare
from retort.config import Corpus, Recipe, Student
from retort.engines import models
from retort.engines.interface import ModelConfig
from retort.planning import (
    Plans,
    base_plans,
    exam,
    num_chains,
    pilot_plans,
    plan_name,
    student_parts,
    student_plans,
    teacher_plans,
)
from retort.report import report
from retort.run import Run, index, prepare
from retort.sampling import Model, Pilot, Sampled, SamplingConfig, sample
from retort.selection import curate, left_out
from retort.store import Store
from retort.store.artifacts import Address, Artifact, Writer, find
from retort.store.hashing import digest
from retort.store.plan import CHARACTERS_PER_TOKEN, Plan, united
from retort.thoughts.socratic import Role
from retort.training.trainer import Training, train
from retort.verification import verify

logger = logging.getLogger(__name__)
VERSION = 1
Stage = Literal["sample", "curate", "train", "evaluate", "report"]


def distill(recipe: Recipe, store: Store, until: Stage = "report") -> Artifact:
    """Run a recipe up to a stage; the report, or the index of what there is by then."""
    run = carry_out(recipe, store, until)
    return report(store, index(run)) if until == "report" else index(run)


def carry_out(recipe: Recipe, store: Store, until: Stage, tells_tune: bool = False) -> Run:
    """The stages of a recipe one by one, up to the one before the report; each is found, or made.

    A trial of a sweep `tells_tune` of dev losses as they come.
    """
    run = prepare(recipe, store)
    if not tells_tune:
        check_room(run, until)
    ask_teachers(run, with_references=until in ("evaluate", "report"))
    if until == "sample":
        return run
    for corpus in recipe.corpus:
        run.keep("corpus", corpus.id, build_corpus(run, corpus.id))
    if until == "curate":
        return run
    for student in recipe.student:
        for number, (name, role, seed) in enumerate(student_parts(student)):
            # Of a pair the first tells: the losses of two models are no curve.
            training = training_of(run, student, name, role, seed, tells_tune and number == 0)
            if not tells_tune and find(store, training.address) is None:
                check_fits(recipe, until, student)  # before it is trained, not when it is to answer
            run.keep("checkpoint", name, train(store, training))
    if until == "train":
        return run
    for teacher in recipe.teacher:
        measure(run, teacher.id, recipe.teacher_decodes(teacher))
    for name, model, plans in [*base_plans(run), *student_plans(run)]:
        judge(run, model, plans, name)
        measure(run, name, recipe.evaluation.decodes)
    if recipe.student and recipe.evaluation.tasks:
        run.keep("comparison", "students", compare(store, measured(run)))
    return run


def quieten_data() -> None:
    """Settings of Ray Data for this process: no bars, no limits that a slow stage would run into."""
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # A partition of slow programs may well take half an hour, Ray Data's limit; sampling sets it for itself.
    context.execution_no_progress_timeout_s = -1
    context.raise_original_map_exception = True  # a refusal, of one line, and not an exception around it
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def dry_run(recipe: Recipe, store: Store) -> list[str]:
    """What sampling would do, a line a plan. Starts nothing; reads the pools' keys and local data only."""
    run = prepare(recipe, store)
    lines = [f"recipe {recipe.name}, store {store.uri}"]
    for task in recipe.task:
        lines.append(f"task {task.id}: {run.artifacts['problems'][task.id].stats}")
    config, total, limit = recipe.sampling, 0, ""
    wanted = {teacher.id: teacher_plans(run, teacher, with_references=True) for teacher in recipe.teacher}
    counted: dict[tuple[str, str], int] = {}
    for teacher_id, plans in wanted.items():
        for name, (plan, _) in plans.items():
            told, tokens = _forecast(run, plan, counted)
            total += tokens
            lines.append(f"teacher {teacher_id}, {name}: {told}")
    if config.pilot is not None:
        lines.append(f"pilot: {config.pilot.problems} problems, at least {config.pilot.min_accepted:.0%} accepted")
    if recipe.student:
        students = ", ".join(student.id for student in recipe.student)
        lines.append(f"students: {students}; their test chains depend on their weights and are planned after training")
    if config.max_tokens_total is not None:
        limit = f"; max_tokens_total = {config.max_tokens_total} leaves {_left(config, wanted)}"
    return [*lines, f"estimate: at most about {total} teacher tokens{limit}"]


def _forecast(run: Run, plan: Plan, counted: dict[tuple[str, str], int]) -> tuple[str, int]:
    """What sampling a plan comes to, in words, and the most tokens that it can cost.

    `counted` has how many chains of each prompt, by pool and hash, other plans were told to sample.
    """
    if _is_judged(run, plan):
        return f"{len(plan.prompts)} problems, all that is wanted is sampled and verified", 0
    missing = prompt_tokens = shared = 0
    for partition in plan.partitions:
        for gap in plan.survey(partition, sets_aside=False).gaps:
            key = plan.pool.id, gap.prompt.prompt_hash
            fresh = sum(index >= counted.get(key, 0) for index in gap.indexes)
            counted[key] = max(counted.get(key, 0), gap.prompt.num_chains)
            missing += fresh
            shared += len(gap.indexes) - fresh
            prompt_tokens += fresh * len(gap.prompt.prompt) // CHARACTERS_PER_TOKEN
    new_tokens = missing * plan.max_new_tokens
    until = f" (fewer where {plan.until.num_correct} are correct)" if plan.until else ""
    among = f", {shared} shared with plans above" if shared else ""
    told = (
        f"{len(plan.prompts)} problems, {plan.num_wanted} chains wanted{until}, "
        f"{plan.num_wanted - missing - shared} present{among}, {missing} missing: ~{prompt_tokens} prompt tokens "
        f"(by {CHARACTERS_PER_TOKEN} characters a token), at most {new_tokens} new ones"
    )
    return told, prompt_tokens + new_tokens


def ask_teachers(run: Run, with_references: bool) -> None:
    """Sample and verify every teacher's chains, within `max_tokens_total`, each after its pilot."""
    config = run.recipe.sampling
    wanted = {teacher.id: teacher_plans(run, teacher, with_references) for teacher in run.recipe.teacher}
    left = partial(_left, config, wanted)
    for teacher in run.recipe.teacher:
        if config.pilot is not None:
            plans = pilot_plans(wanted[teacher.id], config.pilot.problems)
            judge(run, teacher.model, plans, f"{teacher.id} (pilot)", left, is_output=False)
            check_pilot(run, teacher.id, plans, config.pilot)
        judge(run, teacher.model, wanted[teacher.id], teacher.id, left)


def _left(config: SamplingConfig, wanted: Mapping[str, Plans]) -> int | None:
    """Tokens that may still be bought, after what the pools hold of what is wanted."""
    if config.max_tokens_total is None:
        return None
    plans = united(plan for plans in wanted.values() for plan, _ in plans.values())
    spent = sum(plan.survey(partition, sets_aside=False).num_tokens for plan in plans for partition in plan.partitions)
    return max(0, config.max_tokens_total - spent)


def check_pilot(run: Run, teacher_id: str, plans: Plans, pilot: Pilot) -> None:
    """Raises ValueError where too few of a pilot's chains are accepted."""
    for thought, (plan, _) in plans.items():
        artifact = find(run.store, verification.address(plan, run.recipe.verification))
        assert artifact is not None
        rows, reasons = artifact.stats["rows"], artifact.stats["reasons"]
        share = sum(reasons.get(reason, 0) for reason in verification.ACCEPTED) / max(rows, 1)
        told = f"{share:.1%} of {rows} chains on the first {len(plan.prompts)} problems accepted"
        logger.info("pilot of %s, %s: %s", teacher_id, thought, told)
        if share < pilot.min_accepted:
            raise ValueError(
                f"pilot of teacher {teacher_id}, {thought}: {told}, expected at least {pilot.min_accepted:.1%} "
                f"(reasons: {reasons}); mend how it is asked, or lower sampling.pilot.min_accepted; the chains are kept"
            )


def training_of(
    run: Run, student: Student, name: str, role: Role | None, seed: int, tells_tune: bool = False
) -> Training:
    """What makes one checkpoint of a student."""
    corpus = run.artifacts["corpus"][student.corpus]
    config = student.training.model_copy(update={"seeds": (seed,)})
    view = None if role is None or student.rollout.iterative is None else (role, student.rollout.iterative)
    revision, examined = models.pin(student.base, student.revision), exam(run, student)
    return Training(corpus, student.base, revision, student.init, config, name, view, examined, tells_tune)


def judge(
    run: Run,
    model: Model,
    plans: Plans,
    name: str,
    left: Callable[[], int | None] = lambda: None,
    is_output: bool = True,
) -> None:
    """Sample what the pools of a model lack, in one engine session, and verify all that was asked for.

    Raises:
        ValueError: there were not tokens enough `left`; what was sampled is in the pool.
    """
    config = run.recipe.verification
    lacking = {key: plan for key, plan in plans.items() if not _is_judged(run, plan[0])}
    not_given = 0
    if lacking:
        writers = [Writer(run.store, _address(plan), f"{name}/{key}") for key, (plan, _) in lacking.items()]
        summaries = sample(model, list(lacking.values()), run.recipe.sampling, name, config, left)
        _check_complete(run, name, dict(zip(lacking, summaries, strict=True)))
        not_given = sum(summary.lacking for summary in summaries)
        for writer, summary in zip(writers, summaries, strict=True):
            writer.commit([], asdict(summary))
    model_id = digest(model.identity())[:12]
    verdicts = verify(run.store, [plan for plan, _ in plans.values()], model_id, config, not_given)
    for key, artifact in zip(plans, verdicts, strict=True):
        sampled = find(run.store, _address(plans[key][0]))
        assert sampled is not None
        _tell_lacks(model, f"{name}, {key}", sampled.stats, artifact.stats)
        run.keep("sampling", f"{name}/{key}", sampled, is_output)
        run.keep("verdicts", f"{name}/{key}", artifact, is_output)


def _tell_lacks(model: Model, name: str, sampled: Mapping[str, Any], judged: Mapping[str, Any]) -> None:
    """Warn of chains that a recording has not, and of those that were sampled without their log-probabilities."""
    if sampled["lacking"]:
        logger.warning("sampling %s: the recording lacks %d of %d chains", name, sampled["lacking"], sampled["wanted"])
    wants_logprobs = any(isinstance(each, ModelConfig) and each.logprobs != "none" for each in model.configs)
    without = judged["rows"] - judged["logprobs"]
    if wants_logprobs and without:
        told = name, without, judged["rows"]
        logger.warning("sampling %s: %d of %d chains were sampled before without log-probabilities", *told)


def check_room(run: Run, until: Stage) -> None:
    """Before a teacher is paid, see whether the machines have room for every stage; done teachers need none.

    Raises:
        ValueError: what some stage asks for, and what there is.
    """
    has_references = until in ("evaluate", "report")
    wanted = (teacher_plans(run, teacher, has_references) for teacher in run.recipe.teacher)
    if not all(_is_judged(run, plan) for plans in wanted for plan, _ in plans.values()):
        check_fits(run.recipe, until)


def _address(plan: Plan) -> Address:
    """Where the summary of a plan's sampling lies."""
    return Address("sampling", VERSION, {}, plan.describe())


def _is_judged(run: Run, plan: Plan) -> bool:
    """Whether a plan's chains are sampled and verified, so that no engine is needed."""
    places = _address(plan), verification.address(plan, run.recipe.verification)
    return all(find(run.store, place) is not None for place in places)


def _check_complete(run: Run, name: str, summaries: Mapping[str, Sampled]) -> None:
    """Raises ValueError where tokens did not suffice, or a recording has nothing of what is wanted of it."""
    withheld = sum(summary.withheld for summary in summaries.values())
    if withheld:
        raise ValueError(
            f"sampling {name}: max_tokens_total = {run.recipe.sampling.max_tokens_total} leaves too little for "
            f"{withheld} chains; what is sampled stays: raise sampling.max_tokens_total and run again"
        )
    for key, summary in summaries.items():
        if summary.lacking and summary.lacking == summary.wanted:
            raise ValueError(
                f"sampling {name}, {key}: the recording holds none of the {summary.wanted} chains wanted; expected "
                f"rows of these tasks' questions, or ids, under thought {key!r}"
            )


def build_corpus(run: Run, corpus_id: str) -> Artifact:
    """The examples of one corpus; beside it, what its questions share with those that are tested."""
    corpus = run.recipe.find_corpus(corpus_id)
    verdicts = [
        run.artifacts["verdicts"][f"{teacher.id}/{plan_name(thought, num_chains(teacher, corpus), teacher)}"]
        for teacher in run.recipe.teacher
        if teacher.id in corpus.teachers
        for thought in corpus.thoughts
    ]
    problems = run.problems(corpus.tasks, ("train", "dev"))
    without = left_out(problems, _overlaps(run, corpus), corpus.selection)
    taught = [] if corpus.teachers else problems
    return _outside_groups(
        partial(curate, run.store, verdicts, taught, corpus.tasks, corpus.thoughts, corpus.selection, without)
    )


def _outside_groups(make: Callable[[], Artifact]) -> Artifact:
    """Call where no placement group captures what is started: in that of a trial of Ray Tune no shuffle finds room."""
    import ray

    if ray.util.get_current_placement_group() is None:
        return make()
    return ray.get(ray.remote(num_cpus=0, scheduling_strategy="DEFAULT")(_quietly).remote(make))


def _quietly(make: Callable[[], Artifact]) -> Artifact:
    quieten_data()
    return make()


def _overlaps(run: Run, corpus: Corpus) -> Mapping[str, float]:
    """Measure how much of a corpus's questions occurs in test questions; by problem, where the corpus asks for it."""
    tested = {task for tasks in run.recipe.evaluation.references.values() for task in tasks}
    tested.update(run.recipe.evaluation.tasks)
    if not tested:
        return {}
    asked, tests = ([run.artifacts["problems"][task] for task in tasks] for tasks in (corpus.tasks, sorted(tested)))
    found = overlap.measure(run.store, asked, tests, corpus.id)
    run.keep("overlap", corpus.id, found)
    return overlap.shares(found) if corpus.selection.max_overlap is not None else {}


def measure(run: Run, name: str, decodes: Sequence[str]) -> None:
    """Scores of one model, if it was asked any test problems."""
    kept = run.artifacts.get("verdicts", {})
    verdicts = {key: kept[f"{name}/test-{key}"] for key in ("greedy", "maj", "dev") if f"{name}/test-{key}" in kept}
    if not verdicts:
        return
    problems = run.problems([task.id for task in run.recipe.task], (run.recipe.evaluation.split,))
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
