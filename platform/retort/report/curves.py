"""How each student learned: the loss by step, the dev measurements, and what a step held. Seeds share a plot.

In: `metrics.jsonl` of every checkpoint (`training.loop.StepMetrics`) and its stats.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from retort.report import plots
from retort.report.blocks import Figure, Figures, Remark, Section, table
from retort.report.contents import Contents
from retort.report.formatting import count, duration, number, percent, rate
from retort.store.artifacts import Artifact

MAX_POINTS = 300
"""Points of a curve: more than the plot has room for would only make the page heavier."""

Point = tuple[float, float]


def training(contents: Contents) -> Section:
    """Curves and figures of every student."""
    checkpoints = contents.stage("checkpoint")
    if not checkpoints:
        return Section("training", "Training", (Remark("No student was trained in this run."),))
    metrics = {name: artifact.lines("metrics.jsonl") for name, artifact in checkpoints.items()}
    figures = tuple(_figure(title, runs, metrics) for title, runs in by_student(contents).items())
    rows = [_row(contents, name, artifact, metrics[name]) for name, artifact in checkpoints.items()]
    numbers = [
        "steps",
        "examples a step",
        "train examples",
        "dev examples",
        "too long",
        "target tokens",
        "padding",
        "parameters",
        "best dev loss",
        "at step",
        "time in steps",
        "target tokens/s",
    ]
    explained = (
        "Too long: examples left out because they do not fit a row. Padding: share of a step's positions that hold no "
        "token, over all steps. Time in steps includes the dev measurements."
    )
    return Section(
        "training",
        "Training",
        (Figures(figures), table("Students", ["student", "corpus"], numbers, rows), Remark(explained)),
    )


def by_student(contents: Contents) -> dict[str, dict[str, Artifact]]:
    """Checkpoints that differ by their seed alone stand in one plot: those of a student, or of one of its roles."""
    found: dict[str, dict[str, Artifact]] = {}
    for name, artifact in contents.stage("checkpoint").items():
        run, slash, role = name.partition("/")
        found.setdefault(f"{contents.runs[run]['id']}{slash}{role}", {})[name] = artifact
    return found


def averaged(points: Sequence[Point], most: int = MAX_POINTS) -> tuple[list[Point], int]:
    """At most `most` points, each the mean of so many neighbours, and how many those are."""
    width = max(1, math.ceil(len(points) / most))
    groups = [points[start : start + width] for start in range(0, len(points), width)]
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups], width


def _points(metrics: Sequence[dict[str, Any]], key: str) -> list[Point]:
    return [(row["step"], row[key]) for row in metrics if row[key] is not None and math.isfinite(row[key])]


def _figure(title: str, runs: Mapping[str, Artifact], metrics: Mapping[str, Sequence[dict[str, Any]]]) -> Figure:
    """The curves of a student; its first run stands before the others."""
    trains = {name: averaged(_points(metrics[name], "loss")) for name in runs}
    devs = {name: _points(metrics[name], "dev_loss") for name in runs}
    bests = {name: _best(artifact) if devs[name] else None for name, artifact in runs.items()}
    first = next(iter(runs))
    train, width = trains[first]
    ends = (
        f"Training loss of {first} from {number(train[0][1], 3)} to {number(train[-1][1], 3)}"
        if train
        else f"{first}: no steps"
    )
    kept = "; ".join(
        f"{f'{name}: ' if len(runs) > 1 else ''}lowest dev loss {number(best[1], 3)} at step {count(best[0])}, kept"
        if best
        else f"{f'{name}: ' if len(runs) > 1 else ''}no dev loss; the last step is kept"
        for name, best in bests.items()
    )
    pooled = f" The training line shows means of {count(width)} steps." if width > 1 else ""
    legend = (("training", "blue"), *((("dev", "red"),) if any(devs.values()) else ()))
    plot = f"curve-{title.replace('/', '.')}"
    summary = f"{ends}; {kept}."
    svg = plots.curve(plot, summary, [plots.Curve(trains[name][0], devs[name], bests[name]) for name in runs])
    caption = f"{title}: {kept}." if len(runs) == 1 else f"{title}, {count(len(runs))} seeds. {kept}."
    return Figure(plot, f"{caption}{pooled}", summary, svg, legend)


def _best(artifact: Artifact) -> tuple[int, float] | None:
    loss = artifact.stats["best_dev_loss"]
    return None if loss is None else (artifact.stats["best_step"], loss)


def _row(contents: Contents, name: str, artifact: Artifact, metrics: Sequence[dict[str, Any]]) -> list[str]:
    stats = artifact.stats
    padding = sum(row["padding_share"] for row in metrics) / max(1, len(metrics))
    return [
        name,
        contents.runs[name.split("/")[0]]["corpus"],
        count(len(metrics)),
        count(artifact.manifest["config"]["batch_examples"]),
        count(stats["train_examples"]),
        count(stats["dev_examples"]),
        count(stats["too_long"]),
        count(stats["target_tokens"]),
        percent(padding),
        count(stats["parameters"]),
        number(stats["best_dev_loss"]),
        count(stats["best_step"]),
        duration(stats["train_seconds"]),
        rate(stats["target_tokens"], stats["train_seconds"]),
    ]
