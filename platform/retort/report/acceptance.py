"""What became of every chain: asked for, sampled or reused, judged, and selected or not, each with its reason.

In: the counts that sampling, verification and selection left in their manifests.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from retort.records import Split
from retort.report import plots
from retort.report.blocks import Block, Column, Figure, Figures, Remark, Section, Table, table
from retort.report.contents import ROLE_WORDS, Contents, Sampling
from retort.report.formatting import ABSENT, count, counted, share
from retort.report.reasons import Counts, Palette, palette, worded
from retort.report.recipes import taught


def acceptance(contents: Contents) -> Section:
    """Chains by teacher and plan with the verdicts on them, and their fates by corpus and split."""
    samplings = sorted(contents.samplings, key=lambda sampling: contents.role(sampling.model) != "teacher")
    fates = {name: by_split(artifact.stats["fates"]) for name, artifact in contents.stage("corpus").items()}
    parts = run_palette(contents)
    drawn = (_reasons_plot(contents, samplings, parts), _fates_plot(fates, parts))
    figures = [figure for figure in drawn if figure is not None]
    blocks: list[Block] = [Figures(tuple(figures))] if figures else []
    if samplings:
        blocks += [_chains_table(contents, samplings), _reasons_table(samplings, parts), *_protection(samplings)]
    if fates:
        blocks += [_fates_table(contents, fates, parts), *_remarks(contents)]
    return Section(
        "acceptance", "Acceptance", tuple(blocks) or (Remark("No chain was sampled or selected in this run."),)
    )


def by_split(fates: Mapping[str, int]) -> dict[str, Counts]:
    """`{"train/selected": 961, …}` as counts of fates by split; training examples first."""
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for key, number in fates.items():
        split, fate = key.split("/", 1)
        found[split][fate] = number
    return {split: found[split] for split in sorted(found, key=lambda split: get_args(Split).index(split))}


def reasons(sampling: Sampling) -> Counts:
    """Verdicts of a plan by reason."""
    return sampling.verdicts.stats["reasons"] if sampling.verdicts else {}


def run_palette(contents: Contents) -> Palette:
    """One for the whole page, so that a reason has one colour on it."""
    fates = (by_split(artifact.stats["fates"]).values() for artifact in contents.stage("corpus").values())
    return palette([*map(reasons, contents.samplings), *(counts for splits in fates for counts in splits)])


def _plot(name: str, caption: str, rows: Mapping[str, Counts], parts: Palette, good: str) -> Figure | None:
    grouped = {row: parts.grouped(counts) for row, counts in rows.items() if sum(counts.values())}
    if not grouped:
        return None
    told = [
        f"{row}: {', '.join(f'{worded(part)} {share(n, sum(c.values()))}' for part, n in c.items())}"
        for row, c in grouped.items()
    ]
    summary = f"{caption} {'; '.join(told)}"
    bars = [plots.Bar(row, counts, share(counts.get(good, 0), sum(counts.values()))) for row, counts in grouped.items()]
    colours = {part: parts.colour(part) for part in parts.present(grouped.values())}
    legend = tuple((worded(part), colour) for part, colour in colours.items())
    return Figure(name, caption, summary, plots.stacked(name, summary, bars, colours), legend)


def _reasons_plot(contents: Contents, samplings: Sequence[Sampling], parts: Palette) -> Figure | None:
    shown = [sampling for sampling in samplings if sampling.model not in contents.later_runs]
    rows = {f"{sampling.model} · {sampling.wording}": reasons(sampling) for sampling in shown}
    caption = "Verdicts by model and plan, as shares of its chains; at the right the share that is correct."
    if len(shown) < len(samplings):
        caption += " Of each student the first seed; the table holds all."
    return _plot("verdicts", caption, rows, parts, "correct")


def _fates_plot(fates: Mapping[str, Mapping[str, Counts]], parts: Palette) -> Figure | None:
    rows = {f"{corpus} · {split}": counts for corpus, splits in fates.items() for split, counts in splits.items()}
    caption = "What selection did, by corpus and split; at the right the share that became examples."
    return _plot("fates", caption, rows, parts, "selected")


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


def counts_table(
    caption: str,
    words: Sequence[str],
    numbers: Sequence[str],
    rows: Sequence[tuple[Sequence[str], Counts]],
    parts: Palette,
) -> Table:
    """Counts and shares by part; a last column names what stands behind the parts that hold several reasons."""
    keys = parts.present(counts for _, counts in rows)
    spelled = [parts.spelled_out(counts) for _, counts in rows]
    last = [Column("in full, where reasons stand together", is_number=False)] if any(spelled) else []
    columns = [*(Column(name, is_number=False) for name in words), *map(Column, [*numbers, *map(worded, keys)]), *last]
    cells: list[tuple[str, ...]] = []
    for (first, counts), told in zip(rows, spelled, strict=True):
        grouped, whole = parts.grouped(counts), sum(counts.values())
        shares = (counted(grouped.get(key, 0), whole) for key in keys)
        cells.append((*first, *shares, *([told or ABSENT] if last else [])))
    return Table(caption, tuple(columns), tuple(cells))


def _reasons_table(samplings: Sequence[Sampling], parts: Palette) -> Table:
    judged = [sampling for sampling in samplings if sampling.verdicts]
    rows = [((sampling.model, sampling.wording), reasons(sampling)) for sampling in judged]
    return counts_table("Verdicts by reason", ["model", "plan"], [], rows, parts)


def _fates_table(contents: Contents, fates: Mapping[str, Mapping[str, Counts]], parts: Palette) -> Table:
    rows: list[tuple[Sequence[str], Counts]] = []
    for corpus, splits in fates.items():
        source = _source(contents.corpora[corpus])
        rows += [((corpus, source, split, count(sum(counts.values()))), counts) for split, counts in splits.items()]
    return counts_table("Fates at selection", ["corpus", "from", "split"], ["in"], rows, parts)


def _source(corpus: Mapping[str, Any]) -> str:
    gold = "gold labels" if taught(corpus) == ["answer"] else "gold annotations"
    return ", ".join(corpus["teachers"]) or gold


def _protection(samplings: Sequence[Sampling]) -> list[Remark]:
    """What stood between the machine and what models wrote; nothing, where nothing had to be run."""
    layers = {
        said for sampling in samplings if sampling.verdicts for said in sampling.verdicts.stats.get("sandbox", ())
    }
    if not layers:
        return []
    told = "; elsewhere by ".join(sorted(layers, key=lambda said: (-len(said), said)))
    return [
        Remark(
            f"What had to be run of what models wrote (programs, nonlinear equations, answers that only algebra can "
            f"compare) ran in a sandbox, the machine protected by {told}."
        )
    ]


def _remarks(contents: Contents) -> list[Remark]:
    told: list[str] = []
    for name, artifact in contents.stage("corpus").items():
        corpus = contents.corpora[name]
        rule = corpus["selection"]
        budget = rule["chains_per_problem"]
        limit = "no budget" if budget is None else f"at most {count(budget)} a problem and thought"
        target = ", answers alone" if rule["target"] == "answer" else ""
        pick = rule.get("pick", "first")
        picked = "" if pick == "first" else f" pick {pick.replace('_', '-')},"
        chosen = f"rule {rule['rule']},{picked} {limit}{target}" if corpus["teachers"] else _source(corpus)
        told.append(f"{name} ({chosen}) teaches {count(artifact.stats['problems'])} problems")
    return [Remark(f"{'; '.join(told)}.")]
