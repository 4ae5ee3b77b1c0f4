"""What became of every chain: asked for, sampled or reused, judged, and selected or not, each with its reason.

In: the counts that sampling, verification and selection left in their manifests.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import get_args

from retort.records import Split
from retort.report import plots
from retort.report.blocks import Block, Figure, Figures, Remark, Section, Table, table
from retort.report.contents import ROLE_WORDS, Contents, Sampling
from retort.report.formatting import count, counted, share
from retort.verification import Reason

REASON_COLOURS = {
    "correct": "green",
    "wrong": "red",
    "no_answer": "orange",
    "truncated": "purple",
    "undecided": "sky",
    "unlabelled": "grey",
}
FATE_COLOURS = {"selected": "green", "over_budget": "blue", **REASON_COLOURS}
assert set(get_args(Reason)) == set(REASON_COLOURS)

Counts = dict[str, int]


def acceptance(contents: Contents) -> Section:
    """Chains by teacher and plan with the verdicts on them, and their fates by corpus and split."""
    samplings = sorted(contents.samplings, key=lambda sampling: contents.role(sampling.model) != "teacher")
    fates = {name: by_split(artifact.stats["fates"]) for name, artifact in contents.stage("corpus").items()}
    figures = [figure for figure in (_reasons_plot(samplings), _fates_plot(fates)) if figure is not None]
    blocks: list[Block] = [Figures(tuple(figures))] if figures else []
    if samplings:
        blocks += [_chains_table(contents, samplings), _reasons_table(samplings)]
    if fates:
        blocks += [_fates_table(contents, fates), *_remarks(contents)]
    return Section(
        "acceptance", "Acceptance", tuple(blocks) or (Remark("No chain was sampled or selected in this run."),)
    )


def by_split(fates: Mapping[str, int]) -> dict[str, Counts]:
    """`{"train/selected": 961, …}` as counts of fates by split; training examples first."""
    found: dict[str, Counts] = defaultdict(dict)
    for key, number in fates.items():
        split, fate = key.split("/", 1)
        found[split][fate] = number
    return {split: found[split] for split in sorted(found, key=lambda split: get_args(Split).index(split))}


def reasons(sampling: Sampling) -> Counts:
    """Verdicts of a plan by reason."""
    return sampling.verdicts.stats["reasons"] if sampling.verdicts else {}


def _present(counts: Iterable[Counts], order: Iterable[str]) -> list[str]:
    """The keys that occur, in the order of the colours; any that has no colour yet would come last."""
    found = dict.fromkeys(key for one in counts for key in one)
    return [*(key for key in order if key in found), *(key for key in found if key not in order)]


def _legend(keys: Iterable[str], colours: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple((key.replace("_", " "), colours.get(key, "grey")) for key in keys)


def _plot(name: str, caption: str, rows: Mapping[str, Counts], colours: Mapping[str, str], good: str) -> Figure | None:
    rows = {row: counts for row, counts in rows.items() if sum(counts.values())}
    if not rows:
        return None
    keys = _present(rows.values(), list(colours))
    told = [
        f"{row}: {', '.join(f'{key} {share(n, sum(c.values()))}' for key, n in c.items())}" for row, c in rows.items()
    ]
    summary = f"{caption} {'; '.join(told)}"
    bars = [plots.Bar(row, counts, share(counts.get(good, 0), sum(counts.values()))) for row, counts in rows.items()]
    svg = plots.stacked(name, summary, bars, {key: colours.get(key, "grey") for key in keys})
    return Figure(name, caption, summary, svg, _legend(keys, colours))


def _reasons_plot(samplings: Sequence[Sampling]) -> Figure | None:
    rows = {f"{sampling.model} · {sampling.wording}": reasons(sampling) for sampling in samplings}
    caption = "Verdicts by model and plan, as shares of its chains; at the right the share that is correct."
    return _plot("verdicts", caption, rows, REASON_COLOURS, "correct")


def _fates_plot(fates: Mapping[str, Mapping[str, Counts]]) -> Figure | None:
    rows = {f"{corpus} · {split}": counts for corpus, splits in fates.items() for split, counts in splits.items()}
    caption = "What selection did, by corpus and split; at the right the share that became examples."
    return _plot("fates", caption, rows, FATE_COLOURS, "selected")


def _chains_table(contents: Contents, samplings: Sequence[Sampling]) -> Table:
    rows: list[list[str]] = []
    for sampling in samplings:
        stats = sampling.sampled.stats if sampling.sampled else {}
        numbers = [count(stats[key]) if key in stats else "–" for key in ("wanted", "reused", "sampled", "lacking")]
        judged = count(sampling.verdicts.stats["rows"]) if sampling.verdicts else "–"
        rows.append([sampling.model, ROLE_WORDS[contents.role(sampling.model)], sampling.wording, *numbers, judged])
    return table(
        "Chains that were asked for",
        ["model", "role", "plan"],
        ["wanted", "reused", "sampled", "lacking", "verdicts"],
        rows,
    )


def _reasons_table(samplings: Sequence[Sampling]) -> Table:
    judged = [sampling for sampling in samplings if sampling.verdicts]
    keys = _present([reasons(sampling) for sampling in judged], REASON_COLOURS)
    rows = [
        [
            sampling.model,
            sampling.wording,
            *(counted(reasons(sampling).get(key, 0), sum(reasons(sampling).values())) for key in keys),
        ]
        for sampling in judged
    ]
    return table("Verdicts by reason", ["model", "plan"], [key.replace("_", " ") for key in keys], rows)


def _fates_table(contents: Contents, fates: Mapping[str, Mapping[str, Counts]]) -> Table:
    keys = _present([counts for splits in fates.values() for counts in splits.values()], FATE_COLOURS)
    rows: list[list[str]] = []
    for corpus, splits in fates.items():
        settings = contents.corpora[corpus]
        source = ", ".join(settings["teachers"]) or "gold labels"
        for split, counts in splits.items():
            whole = sum(counts.values())
            rows.append([corpus, source, split, count(whole), *(counted(counts.get(key, 0), whole) for key in keys)])
    return table(
        "Fates at selection", ["corpus", "from", "split"], ["in", *(key.replace("_", " ") for key in keys)], rows
    )


def _remarks(contents: Contents) -> list[Remark]:
    told: list[str] = []
    for name, artifact in contents.stage("corpus").items():
        rule = contents.corpora[name]["selection"]
        budget = rule["chains_per_problem"]
        limit = "no budget" if budget is None else f"at most {count(budget)} a problem and thought"
        chosen = f"rule {rule['rule']}, {limit}" if contents.corpora[name]["teachers"] else "gold labels"
        told.append(f"{name} ({chosen}) teaches {count(artifact.stats['problems'])} problems")
    return [Remark(f"{'; '.join(told)}.")]
