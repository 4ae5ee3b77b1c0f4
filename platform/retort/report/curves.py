"""How each student learned: losses, dev accuracy and speed by step, what was kept, and what was computed for it.

In: `metrics.jsonl` of every checkpoint (`training.loop.StepMetrics`) and its stats. Seeds share a plot.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from retort.report.blocks import Block, Figure, Figures, Remark, Section, Table, table
from retort.report.contents import Contents
from retort.report.curve_plots import Curve, Point, curve
from retort.report.formatting import ABSENT, count, duration, number, percent, rate, share, size
from retort.store.artifacts import Artifact

MAX_POINTS = 300
"""Points of a curve: more than the plot has room for would only make the page heavier."""
MAX_SPEEDS = 60
"""Points of a line of speeds, which differ more from step to step than they change."""
OCCASIONAL = ("cut off", "dev accuracy", "went on")
"""Columns that are there where there is anything to show."""
LEARNED = (
    "Left out: examples longer than max_example_tokens or the model's positions, with all their tokens. Dev loss and "
    "accuracy are those of the kept weights."
)
CUT_OFF = " Cut off: examples whose targets were, with the tokens that they lost."
COMPUTED = (
    "Time in steps leaves out dev measurements and the saving of states; tokens/s are those of the examples in this "
    "time, each with its own prompt, as plain training would compute them. Tokens spared: share of these that was not "
    "computed, since chains of one step share their prompt. Padding: share of computed positions that hold no token. "
    "Peak memory: the most that the first worker used, of its GPU or of its process."
)
WENT_ON = (
    " Went on: how often training went on from a saved state after it had died; steps that were lost and taken again "
    "count once. The times under Cost begin with the last start."
)
MFU = (
    "MFU, the median over steps: FLOPs by the time of a step and by the peak of all its GPUs. FLOPs = tokens · (4 P "
    "+ 2 P_trained) + scored · (4 H + 2 H_trained) + 12 · layers · width · pairs. P are the parameters of the layers "
    "and H those of the output; tokens are computed, scored of them through the output; pairs are of a token and one "
    "that it attends to; width is that of all heads. The peak is what the data sheet says of a GPU in bfloat16, what a "
    "large matrix product reaches in float32 or on one that is not listed; none is told of CPUs."
)
FLATTERED = (
    "Checkpoints were chosen by measurements on dev problems, and the accuracies of this report are on dev problems "
    "too: they are flattered. Compare settings by them, and report what the best of these reaches on test problems."
)


@dataclass(frozen=True)
class Trained:
    """One training: its checkpoint, and a row for every step."""

    artifact: Artifact
    steps: Sequence[dict[str, Any]]

    @property
    def config(self) -> dict[str, Any]:
        return self.artifact.manifest["config"]

    @property
    def stats(self) -> dict[str, Any]:
        return self.artifact.stats

    @property
    def kept(self) -> float | None:
        """The figure by which the kept weights were chosen; None where nothing was measured."""
        return self.stats[f"best_{self.config['choose_by']}"]

    def points(self, key: str) -> list[Point]:
        """What is known of each step."""
        return [(row["step"], row[key]) for row in self.steps if row[key] is not None and math.isfinite(row[key])]


def training(contents: Contents) -> Section:
    """Curves and figures of every student."""
    checkpoints = contents.stage("checkpoint")
    if not checkpoints:
        return Section("training", "Training", (Remark("No student was trained in this run."),))
    runs = {name: Trained(artifact, artifact.lines("metrics.jsonl")) for name, artifact in checkpoints.items()}
    figures = tuple(
        _figure(title, {name: runs[name] for name in of_student}) for title, of_student in by_student(contents).items()
    )
    blocks: list[Block] = [Figures(figures), *_learned(contents, runs), *_computed(runs)]
    if contents.recipe["evaluation"]["split"] == "dev" and any(run.kept is not None for run in runs.values()):
        blocks.append(Remark(FLATTERED))
    return Section("training", "Training", tuple(blocks))


def by_student(contents: Contents) -> dict[str, list[str]]:
    """Checkpoints that differ by their seed alone stand in one plot: those of a student, or of one of its roles."""
    found: dict[str, list[str]] = {}
    for name in contents.stage("checkpoint"):
        run, slash, role = name.partition("/")
        found.setdefault(f"{contents.runs[run]['id']}{slash}{role}", []).append(name)
    return found


def averaged(points: Sequence[Point], most: int = MAX_POINTS) -> tuple[list[Point], int]:
    """At most `most` points, each the mean of so many neighbours, and how many those are."""
    width = max(1, math.ceil(len(points) / most))
    groups = [points[start : start + width] for start in range(0, len(points), width)]
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups], width


def _figure(title: str, runs: Mapping[str, Trained]) -> Figure:
    """The curves of a student; its first run stands before the others."""
    first, made = next(iter(runs.items()))
    losses, width = averaged(made.points("loss"))
    ends = f"Training loss of {first} from {number(losses[0][1], 3)} to {number(losses[-1][1], 3)}"
    told = "; ".join(f"{f'{name}: ' if len(runs) > 1 else ''}{_outcome(run)}" for name, run in runs.items())
    pooled = f" The training line shows means of {count(width)} steps." if width > 1 else ""
    plot, summary = f"curve-{title.replace('/', '.')}", f"{ends}; {told}."
    svg = curve(plot, summary, [_curve(run) for run in runs.values()])
    caption = f"{title}: {told}." if len(runs) == 1 else f"{title}, {count(len(runs))} seeds. {told}."
    return Figure(plot, f"{caption}{pooled}", summary, svg, tuple(_legend(list(runs.values()))))


def _legend(runs: Sequence[Trained]) -> Iterator[tuple[str, str]]:
    yield "training", "blue"
    if any(run.points("dev_loss") or run.points("dev_accuracy") for run in runs):
        yield "dev", "red"
    if any(run.stats["went_on_from"] for run in runs):
        yield "went on after it had died", "purple"


def _curve(run: Trained) -> Curve:
    (tokens, _), (seconds, _) = (averaged(run.points(key), MAX_SPEEDS) for key in ("example_tokens", "seconds"))
    return Curve(
        losses=averaged(run.points("loss"))[0],
        dev_losses=run.points("dev_loss"),
        dev_accuracies=run.points("dev_accuracy"),
        speeds=[(step, spent / took) for (step, spent), (_, took) in zip(tokens, seconds, strict=True)],
        kept=None if run.kept is None else run.stats["best_step"],
        went_on_from=run.stats["went_on_from"],
    )


def _outcome(run: Trained) -> str:
    """Which weights were kept, and what befell the training."""
    at = f"at step {count(run.stats['best_step'])}, kept"
    if run.kept is None:
        told = "no dev loss; the last step is kept"
    elif run.config["choose_by"] == "dev_accuracy":
        told = f"highest dev accuracy {percent(run.kept)} {at}"
    else:
        told = f"lowest dev loss {number(run.kept, 3)} {at}"
    if run.stats["steps"] < run.config["steps"]:
        told += f"; stopped early, at step {count(run.stats['steps'])} of {count(run.config['steps'])}"
    if run.stats["went_on_from"]:
        steps = run.stats["went_on_from"]
        told += f"; went on from step{'s' * (len(steps) > 1)} {', '.join(map(count, steps))} after it had died"
    return told


def _learned(contents: Contents, runs: Mapping[str, Trained]) -> tuple[Table, Remark]:
    """What each student learned from, and what was kept of it."""
    rows = {name: _learned_row(run) for name, run in runs.items()}
    numbers = _columns(list(rows.values()))
    corpora = {name: contents.runs[name.split("/")[0]]["corpus"] for name in runs}
    cells = [[name, corpora[name], *(row[column] for column in numbers)] for name, row in rows.items()]
    explained = LEARNED + CUT_OFF * ("cut off" in numbers)
    return table("Students", ["student", "corpus"], numbers, cells), Remark(explained)


def _learned_row(run: Trained) -> dict[str, str]:
    stats, planned, accuracy = run.stats, run.config["steps"], run.stats["best_dev_accuracy"]
    return {
        "steps": count(stats["steps"]) + (f" of {count(planned)}" if stats["steps"] < planned else ""),
        "kept step": count(stats["best_step"]),
        "dev loss": number(stats["best_dev_loss"]),
        "dev accuracy": ABSENT if accuracy is None else percent(accuracy),
        "examples a step": count(run.config["batch_examples"]),
        "train examples": count(stats["train_examples"]),
        "dev examples": count(stats["dev_examples"]),
        "left out": _lost(stats["too_long"], stats["dropped_tokens"]),
        "cut off": _lost(stats["truncated"], stats["truncated_tokens"]),
        "target tokens": count(stats["target_tokens"]),
        "parameters": count(stats["parameters"]),
    }


def _lost(examples: int, tokens: int) -> str:
    return f"{count(examples)} ({count(tokens)} tokens)" if examples else "0"


def _computed(runs: Mapping[str, Trained]) -> tuple[Table, Remark, Remark]:
    """How fast each student was trained, and what was computed for it."""
    rows = {name: _computed_row(run) for name, run in runs.items()}
    numbers = _columns(list(rows.values()))
    cells = [[name, *(row[column] for column in numbers)] for name, row in rows.items()]
    explained = COMPUTED + WENT_ON * ("went on" in numbers)
    return table("Speed of training", ["student"], numbers, cells), Remark(explained), Remark(MFU)


def _computed_row(run: Trained) -> dict[str, str]:
    stats, how, used = run.stats, run.stats["computed"], [used for _, used in run.points("mfu")]
    positions = sum(row["computed_tokens"] / (1 - row["padding_share"]) for row in run.steps)
    return {
        "workers": f"{count(how['workers'])} on {how['device'].upper()}{', sharded' * how['shard']}",
        "time in steps": duration(stats["train_seconds"]),
        "tokens/s": rate(stats["example_tokens"], stats["train_seconds"]),
        "tokens spared": share(stats["example_tokens"] - stats["computed_tokens"], stats["example_tokens"]),
        "padding": percent(1 - stats["computed_tokens"] / positions),
        "MFU": percent(median(used)) if used else ABSENT,
        "peak memory": size(stats["memory_bytes"]),
        "went on": count(len(stats["went_on_from"])),
    }


def _columns(rows: Sequence[dict[str, str]]) -> list[str]:
    """The columns of rows, without occasional ones of which there is nothing to show."""
    empty = {"0", ABSENT}
    return [name for name in rows[0] if name not in OCCASIONAL or any(row[name] not in empty for row in rows)]
