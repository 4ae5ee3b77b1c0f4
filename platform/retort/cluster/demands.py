"""What a recipe asks of the machines, stage by stage, before anything is started."""

from retort.cluster import live
from retort.cluster.nodes import Launch, told
from retort.cluster.room import Demand, unmet
from retort.config import Recipe, Student
from retort.engines import models
from retort.rollouts import Rollout
from retort.sampling import Model
from retort.training.trainer import demand

STAGES = ("sample", "curate", "train", "evaluate", "report")


def demands(recipe: Recipe, has_gpus: bool, until: str = "report", training: Student | None = None) -> list[Demand]:
    """What the stages up to one ask for, on a cluster that has GPUs or not: all, or a student's training and answers.

    One stage has the machines at a time.
    """
    last = STAGES.index(until)
    students = recipe.student if training is None else (training,)
    asked: list[Demand] = []
    for teacher in recipe.teacher if training is None else ():
        asked += Model(teacher.engine, (teacher.settings,)).demands(f"teacher {teacher.id}", has_gpus)
    if last >= STAGES.index("train"):
        asked += [demand(each.training, each.id) for each in students if each.training.num_workers]
    if last >= STAGES.index("evaluate") and recipe.evaluation.tasks:
        for student in students:
            asked += _served(recipe, student).demands(f"answers of {student.id}", has_gpus)
    return asked


def _served(recipe: Recipe, student: Student) -> Model:
    """The engines of a student, as far as they are known before it is trained."""
    config = recipe.evaluation
    engine = student.engine or ("hf" if models.is_encoder_decoder(student.base, student.revision) else "vllm")
    settings = config.hf if engine == "hf" else config.engine
    return Model(engine, (settings,) * len(student.roles), Rollout())


def check_fits(recipe: Recipe, until: str, training: Student | None = None) -> None:
    """Raises ValueError where neither the cluster's machines nor those that it may start have room for a stage: any, or
    a student's training and answers.
    """
    live.refuse([live.verification(), *demands(recipe, live.has_gpus(), until, training)])


def forecast(recipe: Recipe, launch: Launch, until: str = "report") -> list[str]:
    """What a recipe asks of a cluster that is not there yet, a line a demand.

    Raises:
        ValueError: some machine that it needs is none of the cluster's; each on a line.
    """
    asked = demands(recipe, any(kind.gpus for kind in launch.types), until)
    refused = [line for each in asked if (line := unmet(each, launch.types, launch.most_workers)) is not None]
    if refused:
        raise ValueError("\n".join(f"cluster {launch.source.name}: {line}" for line in refused))
    lines = [f"cluster {launch.source.name}: " + "; ".join(_described(launch))]
    for each in asked:
        fitting = [kind.name for kind in launch.types if kind.most and kind.fits(each.bundle)]
        lines.append(f"machines for {each.text}, on {' or '.join(fitting)}")
    if launch.unfilled:
        lines.append(
            f"cluster {launch.source.name}: {len(launch.unfilled)} fields are empty; jobs/check_cluster.py names them"
        )
    return lines


def _described(launch: Launch) -> list[str]:
    return [f"{kind.name} {kind.least}–{kind.most} x ({told(kind.resources)})" for kind in launch.types]
