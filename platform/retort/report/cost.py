"""What the run cost: tokens, rates and use of the engines while sampling, and the seconds of every stage.

In: the manifests' `stats` and `seconds`. Plans of one model are sampled and verified together, each artifact with the
seconds of all: where times overlap they are counted once. Artifacts may be older than a figure: it is absent then.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from retort.metrics import together
from retort.report import plots
from retort.report.blocks import Block, Figure, Figures, Remark, Section, Table, table
from retort.report.contents import Contents
from retort.report.formatting import ABSENT, count, duration, percent, rate, share, size, tokens
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
    "Time is all that was spent on sampling, from the first look into the pool on, with the start of the engine. Rates "
    "run from the first request to the last durable chain; where an older run did not keep these, over the whole time. "
    "Prompt tokens count once a chain, though chains of a prompt share their prefill. What an earlier run had finished "
    "stands here with what it cost then."
)
ACCEPTED = " Accepted tokens are those of chains that were found right, or else to have an answer, while sampling."
ENGINES = "Engines up adds up over engines; busy is the share of that time with a request open."
SILENT = (
    " A silent engine had requests open and generated nothing; silent and dead ones were replaced, and what was open "
    "was asked again."
)
RATES = {"chains/s": "sampled", "new tokens/s": "output_tokens", "accepted tokens/s": "accepted_tokens"}
TROUBLES = {"silent": "stalls", "replaced": "replacements"}
"""Columns that are there where there is anything to show."""

Seconds = dict[str, dict[str, float]]
"""By stage and by what was made."""
Stats = dict[str, float]
"""Figures of sampling, summed up; one that is not known of all that was sampled is not there."""


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
        blocks += _sampling(contents, seconds["sampling"])
    return Section("cost", "Cost", (*blocks, _time_table(seconds), *_time_of_data(seconds)))


def sessions(artifacts: Iterable[Artifact]) -> list[list[Artifact]]:
    """Artifacts by the time in which they were made: those whose times overlap were made together."""
    found: list[list[Artifact]] = []
    reached = float("-inf")
    for made in sorted(artifacts, key=_start_s):
        if _start_s(made) >= reached:
            found.append([])
        found[-1].append(made)
        reached = max(reached, made.manifest["created_at_s"])
    return found


def union_s(artifacts: Iterable[Artifact]) -> float:
    """Seconds in which at least one of some artifacts was being made."""
    spans = ((_start_s(group[0]), (made.manifest["created_at_s"] for made in group)) for group in sessions(artifacts))
    return sum(max(ends) - start for start, ends in spans)


def _start_s(made: Artifact) -> float:
    return made.manifest["created_at_s"] - made.manifest["seconds"]


def stage_seconds(contents: Contents) -> Seconds:
    """Seconds by stage and by what was made: plans of one model count as one, and so do students that share a run."""
    found: Seconds = {}
    for stage in STAGES:
        groups: dict[str, list[Artifact]] = defaultdict(list)
        for name, artifact in contents.stage(stage).items():
            groups[maker(stage, name)].append(artifact)
        if groups:
            found[stage] = {name: union_s(made) for name, made in groups.items()}
    return found


def maker(stage: str, name: str) -> str:
    """The model of a plan, the run of a checkpoint."""
    match stage:
        case "sampling" | "verdicts":
            return name.rsplit("/", 1)[0]
        case "checkpoint":
            return name.split("/", 1)[0]
        case _:
            return name


def _sampling(contents: Contents, seconds: Mapping[str, float]) -> Iterator[Block]:
    """What every model's chains took, and what was spared or withheld."""
    by_model: dict[str, list[Artifact]] = defaultdict(list)
    for sampling in contents.samplings:
        if sampling.sampled:
            by_model[sampling.model].append(sampling.sampled)
    stats = {model: sampling_stats(artifacts) for model, artifacts in by_model.items()}
    yield _sampling_table(contents, stats, seconds)
    yield Remark(COUNTED + ACCEPTED * any("accepted_tokens" in of_model for of_model in stats.values()))
    for model, of_model in stats.items():
        yield from _not_sampled(model, of_model)
    yield from _reused(contents)
    yield from _engine_table(stats)


def sampling_stats(artifacts: Sequence[Artifact]) -> Stats:
    """The stats of a model's plans, added up; what is of a whole session counts once in each."""
    # Where nothing was sampled there is nothing to know.
    sampled = [made for made in artifacts if made.stats["sampled"]] or artifacts
    known = set[str].intersection(*(set(made.stats) for made in sampled))
    by_session = [together([made.stats for made in group]) for group in sessions(artifacts)]
    return {key: sum(stats.get(key, 0) for stats in by_session) for key in known}


def _sampling_table(contents: Contents, stats: Mapping[str, Stats], seconds: Mapping[str, float]) -> Table:
    rates = {word: key for word, key in RATES.items() if any(key in of_model for of_model in stats.values())}
    rows: list[list[str]] = []
    for model, of_model in stats.items():
        chains = int(of_model["sampled"])
        sampling_s = of_model.get("sampling_s", seconds[model])
        rows.append(
            [
                model,
                contents.engine(model),
                count(chains),
                *(tokens(of_model[key], chains) for key in ("prompt_tokens", "output_tokens")),
                duration(seconds[model]),
                *(rate(of_model.get(key, 0), sampling_s) for key in rates.values()),
            ]
        )
    numbers = ["chains sampled", "prompt tokens", "new tokens", "time", *rates]
    return table("Sampling by model", ["model", "engine"], numbers, rows)


def _engine_table(stats: Mapping[str, Stats]) -> Iterator[Block]:
    """How the engines of models were used that sampled and tell, and what was written."""
    telling = {model: of_model for model, of_model in stats.items() if of_model.get("engine_starts")}
    if not telling:
        return
    troubles = [word for word, key in TROUBLES.items() if any(of_model[key] for of_model in telling.values())]
    rows = [
        [
            model,
            duration(of_model["engine_s"]),
            percent(of_model["busy_s"] / of_model["engine_s"]) if of_model["engine_s"] else ABSENT,
            count(int(of_model["engine_starts"])),
            *(count(int(of_model[TROUBLES[word]])) for word in troubles),
            count(int(of_model["segments"])),
            size(of_model["segment_bytes"]),
        ]
        for model, of_model in telling.items()
    ]
    numbers = ["engines up", "busy", "engine starts", *troubles, "segments", "stored"]
    yield table("Engines and storage by model", ["model"], numbers, rows)
    yield Remark(ENGINES + SILENT * bool(troubles))


def _not_sampled(model: str, stats: Stats) -> Iterator[Remark]:
    """Chains that a fixed number would have drawn, and those that the budget did not allow."""
    unneeded, saved, withheld = (int(stats.get(key, 0)) for key in ("unneeded", "saved_tokens", "withheld"))
    spent = int(stats["prompt_tokens"] + stats["output_tokens"])
    if unneeded:
        about = f"about {count(saved)} tokens, {share(saved, saved + spent)} of what all would have cost"
        told = f" ({about})" if saved else ""
        yield Remark(f"Of {model}, {count(unneeded)} chains were not needed{told}: enough before them were right.")
    if withheld:
        yield Remark(f"Of {model}, {count(withheld)} chains were not asked for: max_tokens_total was reached.")


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
