"""What the run cost: tokens and rates of sampling, and the seconds of every stage.

In: the manifests' `stats` and `seconds`. Plans of one model are sampled and verified together, each artifact with the
seconds of all: where times overlap they are counted once.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from retort.report import plots
from retort.report.blocks import Block, Figure, Figures, Remark, Section, Table, table
from retort.report.contents import Contents
from retort.report.formatting import ABSENT, count, duration, rate, tokens
from retort.store.artifacts import Artifact

STAGES = {
    "problems": "problems",
    "sampling": "sampling",
    "verdicts": "verification",
    "corpus": "selection",
    "checkpoint": "training",
    "evaluation": "evaluation",
    "comparison": "comparison",
}
COUNTED = (
    "Times run from the first look into the pool to the last durable chain and include the start of the engine. Prompt "
    "tokens count once a chain, though chains of a prompt share their prefill. What an earlier run had finished stands "
    "here with what it cost then."
)

Seconds = dict[str, dict[str, float]]
"""By stage and by what was made."""


def cost(contents: Contents) -> Section:
    """Tokens by model, seconds by stage."""
    seconds = stage_seconds(contents)
    if not seconds:
        return Section("cost", "Cost", (Remark("This run holds no artifact that took time."),))
    by_stage = {STAGES[stage]: sum(parts.values()) for stage, parts in seconds.items()}
    summary = f"Seconds by stage. {'; '.join(f'{stage}: {duration(value)}' for stage, value in by_stage.items())}"
    caption = f"Wall-clock time by stage, {duration(sum(by_stage.values()))} in all."
    figure = Figure("seconds", caption, summary, plots.durations("seconds", summary, by_stage))
    blocks: list[Block] = [Figures((figure,))]
    if contents.stage("sampling"):
        blocks += [_sampling_table(contents, seconds["sampling"]), Remark(COUNTED), *_reused(contents)]
    return Section("cost", "Cost", (*blocks, _time_table(seconds), *_time_of_data(seconds)))


def union_s(artifacts: Iterable[Artifact]) -> float:
    """Seconds in which at least one of some artifacts was being made."""
    spans = sorted(
        (made.manifest["created_at_s"] - made.manifest["seconds"], made.manifest["created_at_s"]) for made in artifacts
    )
    total, reached = 0.0, float("-inf")
    for start, end in spans:
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def stage_seconds(contents: Contents) -> Seconds:
    """Seconds by stage and by what was made: plans of one model count as one, and so do students that share a run."""
    found: Seconds = {}
    for stage in STAGES:
        groups: dict[str, list[Artifact]] = defaultdict(list)
        for name, artifact in contents.stage(stage).items():
            groups[_maker(stage, name)].append(artifact)
        if groups:
            found[stage] = {name: union_s(artifacts) for name, artifacts in groups.items()}
    return found


def _maker(stage: str, name: str) -> str:
    """The model of a plan, the run of a checkpoint."""
    match stage:
        case "sampling" | "verdicts":
            return name.rsplit("/", 1)[0]
        case "checkpoint":
            return name.split("/", 1)[0]
        case _:
            return name


def _sampling_table(contents: Contents, seconds: dict[str, float]) -> Table:
    rows: list[list[str]] = []
    for model, spent in seconds.items():
        stats = [
            sampling.sampled.stats for sampling in contents.samplings if sampling.model == model and sampling.sampled
        ]
        chains, prompt_tokens, new_tokens = (
            sum(one[key] for one in stats) for key in ("sampled", "prompt_tokens", "output_tokens")
        )
        figures = [tokens(prompt_tokens, chains), tokens(new_tokens, chains)]
        speeds = [rate(chains, spent), rate(new_tokens, spent)] if chains else [ABSENT, ABSENT]
        rows.append([model, contents.engine(model), count(chains), *figures, duration(spent), *speeds])
    return table(
        "Sampling by model",
        ["model", "engine"],
        ["chains sampled", "prompt tokens", "new tokens", "time", "chains/s", "new tokens/s"],
        rows,
    )


def _time_table(seconds: Seconds) -> Table:
    """Times that belong to a model."""
    stages = [stage for stage in ("sampling", "verdicts", "checkpoint", "evaluation") if stage in seconds]
    models = dict.fromkeys(model for stage in stages for model in seconds[stage])
    rows = [[model, *(_time(seconds[stage].get(model)) for stage in stages)] for model in models]
    return table("Time by model", ["model"], [STAGES[stage] for stage in stages], rows)


def _time_of_data(seconds: Seconds) -> list[Remark]:
    """Times that belong to a task, a corpus or all students."""
    parts = [(STAGES[stage], seconds[stage]) for stage in ("problems", "corpus", "comparison") if stage in seconds]
    told = [
        f"{word} {', '.join(f'{name} {duration(value)}' for name, value in times.items())}" for word, times in parts
    ]
    return [Remark(f"Besides: {'; '.join(told)}.")] if told else []


def _time(seconds: float | None) -> str:
    return ABSENT if seconds is None else duration(seconds)


def _reused(contents: Contents) -> Sequence[Remark]:
    reused = sum(made.stats["reused"] for made in contents.stage("sampling").values())
    if not reused:
        return ()
    return (Remark(f"{count(reused)} chains were in their pools before; their tokens are not counted here."),)
