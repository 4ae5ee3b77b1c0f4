"""What a reader takes home, in sentences: the best student beside all others, an ensemble beside those of one thought.

In: `Score` rows and `pairs.jsonl` of the comparison. Two students are told apart by the exact test on the problems of
their first seeds, where it was made; any other two models only where their intervals do not overlap.
"""

from collections.abc import Iterable, Sequence

from retort.intervals import Paired
from retort.report.comparisons import Pairs
from retort.report.contents import Measured
from retort.report.formatting import count, interval, percent, points, probability, spread
from retort.report.recipes import is_combiner

LEVEL = 0.05
"""Below this p two students differ, as the 95% of the intervals has it."""
FATES = ("beats", "is behind", "cannot be told from")


def leader(rows: Sequence[Measured], decode: str, pairs: Pairs) -> list[str]:
    """One task in a sentence or two: the best student taught by chains against every other model."""
    at_decode = [row for row in rows if row.score.decode == decode]
    students = [row for row in at_decode if row.role == "chains"] or [row for row in at_decode if row.role == "labels"]
    contenders = students or at_decode
    lead = max(contenders, key=lambda row: row.value)
    score = lead.score
    if not score.problems:
        return [f"On {score.task} no test problem has a gold answer, so that nothing can be said of accuracy."]
    num_models = len({row.model for row in contenders})
    chosen = f", the best here of {num_models} {'students' if students else 'models'}," if num_models > 1 else ""
    subject = f"{'student ' if students else ''}{lead.name}{chosen}"
    of_first = f" over {lead.spread.seeds} seeds (95% interval of the first" if lead.spread else " (95% interval"
    sentence = (
        f"On {score.task} ({count(score.problems)} test problems, {decode}), {subject} is right on {stated(lead)}"
        f"{of_first} {interval(score.low, score.high)})"
    )
    others = [
        best_of(at_decode, model) for model in dict.fromkeys(row.model for row in at_decode) if model != lead.model
    ]
    apart = by_intervals(lead, [row for row in others if (lead.key, row.key) not in pairs])
    by_problem = by_pairs(lead, [row for row in others if (lead.key, row.key) in pairs], pairs)
    return [f"{sentence}{f': it {apart}' if apart else ''}.", *([by_problem] if by_problem else [])]


def stated(row: Measured) -> str:
    """The accuracy that stands for a model: over its seeds, or of its only training."""
    return percent(row.score.accuracy) if row.spread is None else spread(row.spread.mean, row.spread.sd)


def best_of(rows: Iterable[Measured], model: str) -> Measured:
    """A model's highest score."""
    return max((row for row in rows if row.model == model), key=lambda row: row.value)


def by_intervals(lead: Measured, others: Iterable[Measured]) -> str:
    """Those below the lead's interval, those above it, and those whose intervals overlap with it."""
    groups: dict[str, list[str]] = {fate: [] for fate in FATES}
    for other in others:
        is_below, is_above = other.score.high < lead.score.low, other.score.low > lead.score.high
        fate = "beats" if is_below else "is behind" if is_above else "cannot be told from"
        groups[fate].append(f"{other.name} ({stated(other)})")
    ends = (" beyond the intervals", " beyond the intervals", ", whose intervals overlap with its own")
    return _clauses(groups, ends)


def by_pairs(lead: Measured, others: Sequence[Measured], pairs: Pairs) -> str:
    """What the test on the same problems says of the lead and other students, with the figures that it says it of."""
    if not others:
        return ""
    groups: dict[str, list[str]] = {fate: [] for fate in FATES}
    for other in others:
        pair = pairs[lead.key, other.key]
        fate = "cannot be told from" if pair.p >= LEVEL else "beats" if pair.difference > 0 else "is behind"
        groups[fate].append(f"{other.name} ({stated(other)}; {_tested(pair)})")
    first = ", by the first seed of each" if any(row.spread for row in (lead, *others)) else ""
    told = _clauses(groups, ("", "", ""))
    return f"On the same problems{first} (differences in points, with 95% intervals), {lead.name} {told}."


def ensembles(rows: Sequence[Measured]) -> list[str]:
    """For every student for whom a combiner speaks: how far it is from each student of a single thought.

    `rows` are the scores that speak for the models. Students of labels alone have no thought to compare.
    """
    students = [row for row in rows if row.role == "chains" and row.score.problems]
    told: list[str] = []
    for combined in (row for row in students if is_combiner(row.score.thought)):
        score = combined.score
        rivals = [
            row
            for row in students
            if not row.is_one_of_several and (row.score.task, row.score.decode) == (score.task, score.decode)
        ]
        distances = [f"{_distance(combined.value - row.value)} {row.name} ({stated(row)})" for row in rivals]
        mean = " in mean over seeds" if any(row.spread for row in (combined, *rivals)) else ""
        if distances:
            told.append(
                f"On {score.task}, {score.decode}, {combined.name} ({stated(combined)}) is{mean} {listed(distances)}."
            )
    return told


def listed(parts: Sequence[str]) -> str:
    """Parts of a sentence: `a, b and c`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _clauses(groups: dict[str, list[str]], ends: Sequence[str]) -> str:
    clauses = [f"{fate} {listed(group)}{end}" for (fate, group), end in zip(groups.items(), ends, strict=True) if group]
    return listed(clauses) if clauses else ""


def _tested(pair: Paired) -> str:
    p = probability(pair.p)
    return f"{points(pair.difference)}, {points(pair.low)} to {points(pair.high)}, p {p if p[0] == '<' else f'= {p}'}"


def _distance(difference: float) -> str:
    size = f"{abs(100 * difference):.1f}"
    if size == "0.0":
        return "level with"
    return f"{size} points {'ahead of' if difference > 0 else 'behind'}"
