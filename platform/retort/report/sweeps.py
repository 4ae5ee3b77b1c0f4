"""The sweep of a run: its best trial with a grain of salt, what each parameter does, and every trial.

In: the artifact `sweep/ledger` of the run (`trials.jsonl`).
"""

import shlex
import statistics
from collections.abc import Sequence

from retort.report.blocks import Block, Column, Figures, Listing, Remark, Section, Table
from retort.report.contents import Contents
from retort.report.effects import none_or
from retort.report.formatting import ABSENT, count, duration, interval, percent
from retort.report.importance import importance
from retort.report.sweep_effects import effects, heat, table, weights
from retort.report.sweep_lines import curves, parallel
from retort.report.trials import SEED, Sweep, Trial, open_sweep, worded

SALT = (
    "The best of many trials is chosen by the very scores that it is shown with: the more trials, the more its score "
    "owes to luck. Its interval knows nothing of that choice. Measure it again before it is quoted, with seeds and on "
    "problems that no trial has seen."
)
READING = (
    "A difference of two levels is the mean over pairs of trials that are alike in all else, the seed among it, with "
    "Student's 95% interval over the means of seeds; it is claimed where that interval holds no zero. A single pair, "
    "or levels without any, are judged by whether their intervals overlap; two seeds, or seeds all alike, are not "
    "judged. Intervals over seeds tell how far training varies, Wilson's how far the test problems do; all trials "
    "answered the same problems. Nothing is corrected for the number of comparisons."
)
STOPPED = (
    "Trials that were stopped early have no score, and were stopped for the worse dev losses: means and pairs are of "
    "those that were not, which flatters the levels that lost most. Dev losses on other corpora are of other chains."
)
SEARCHED = (
    "The {searcher} searcher tried more of what looked good, so that the trials at one level are not like those at "
    "another; a mean over them is not a comparison at equal terms."
)


def sweeps(contents: Contents) -> list[Section]:
    """The section; none for a run without a sweep."""
    sweep = open_sweep(contents)
    if sweep is None:
        return []
    if not sweep.ranked:
        none = f"None of {count(sweep.num_wanted)} trials has a score, so that nothing can be compared."
        return [Section("sweep", "Sweep", (Remark(none, is_finding=True), Remark(_whole(sweep)), *_trials(sweep)))]
    weighed = importance(sweep)
    blocks: list[Block] = [Remark(_best(sweep), is_finding=True), Remark(_whole(sweep))]
    blocks += [] if sweep.tested or len(sweep.ranked) == 1 else [Remark(SALT)]
    blocks += [Figures(tuple(found))] if (found := effects(sweep)) else []
    blocks += [*table(sweep), *([Remark(READING)] if found else [])]
    blocks += [Remark(STOPPED)] if any(trial.state == "stopped" for trial in sweep.trials) else []
    blocks += [Remark(SEARCHED.format(searcher=sweep.searcher))] if sweep.searcher == "tpe" else []
    mapped = [*heat(sweep, weighed), *([] if isinstance(weighed, str) else [weights(sweep, weighed)])]
    mapped += [*parallel(sweep, weighed), *curves(sweep)]
    blocks += [Figures(tuple(mapped))] if mapped else []
    blocks += [Remark(f"No importance of parameters is given: {weighed}.")] if isinstance(weighed, str) else []
    return [Section("sweep", "Sweep", (*blocks, *_trials(sweep), _command(contents, sweep)))]


def _best(sweep: Sweep) -> str:
    """The best trial, and how little may set it apart."""
    ranked = sweep.ranked
    best = ranked[0]
    score = sweep.score(best, sweep.metric.decode)
    chosen = f"Of {count(len(ranked))} trials" if len(ranked) > 1 else "The one trial"
    told = (
        f"{chosen} of {sweep.student} on {sweep.where}, {sweep.metric.decode}, {best.id} ({sweep.setting(best)}) "
        f"{'has the highest accuracy' if len(ranked) > 1 else 'has an accuracy of'}"
    )
    told += f"{':' if len(ranked) > 1 else ''} {percent(best.value or 0.0)}"
    if score is None:
        return f"{told}."
    told += f" of {count(score.problems)} problems (95% interval {interval(score.low, score.high)})"
    if len(ranked) > 1:
        within = sum((trial.value or 0.0) >= score.low for trial in ranked) - 1
        told += f". {none_or(within).capitalize()} of the other {count(len(ranked) - 1)} lie within that interval"
    return f"{told}.{_over_seeds(ranked)}{_tested(sweep)}"


def _tested(sweep: Sweep) -> str:
    """What the best trial scored on problems that no trial was chosen by."""
    wanted = sweep.metric.task, sweep.metric.decode
    found = [score for score in sweep.tested if (score.task, score.decode) == wanted]
    score = next((each for each in found if each.thought == sweep.metric.thought), found[0] if found else None)
    if score is None:
        return ""
    return (
        f" On the test problems, which no trial was chosen by, it has {percent(score.accuracy)} of "
        f"{count(score.problems)} (95% interval {interval(score.low, score.high)})."
    )


def _over_seeds(ranked: Sequence[Trial]) -> str:
    """The mean of the best trial's settings over seeds, which the choice of the best flatters less."""
    alike = [trial.value or 0.0 for trial in ranked if trial.rest(SEED) == ranked[0].rest(SEED)]
    if len(alike) < 2:
        return " Its settings were trained from one seed only." if SEED in ranked[0].params else ""
    return f" Over the {count(len(alike))} seeds of its settings the mean is {percent(statistics.fmean(alike))}."


def _whole(sweep: Sweep) -> str:
    """How the trials were chosen, what became of them and what they cost."""
    stopped = sum(trial.state == "stopped" for trial in sweep.trials)
    how = f"searcher {sweep.searcher}" + (f", scheduler {sweep.scheduler}" if sweep.scheduler != "none" else "")
    cost = duration(sum(trial.seconds for trial in sweep.trials))
    early = f", {count(stopped)} of them stopped early" if stopped else ""
    num, wanted, failed = len(sweep.trials), sweep.num_wanted, sweep.failures
    ended = count(num) if num == wanted else f"{count(num)} of {count(wanted)}"
    why = f" {count(len(failed))} failed, the first for: {next(iter(failed.values()))}." if failed else ""
    return (
        f"{ended} trial{'s' * (wanted != 1)} ({how}){early}; {cost} of training and evaluation, one after the other, "
        f"which the cost of the recipe's own run below leaves out.{why}"
    )


def _trials(sweep: Sweep) -> list[Block]:
    """Every trial, the best first; those without a value stand at the end, the longest first."""
    if not sweep.trials:
        return []
    without = sorted((trial for trial in sweep.trials if trial.value is None), key=lambda trial: -trial.step)
    columns = [
        Column("trial", is_number=False),
        *(Column(decode) for decode in sweep.decodes),
        *(Column(each.called, each.is_number) for each in sweep.parameters),
        *map(Column, ("steps done", "time")),
        Column("state", is_number=False),
    ]
    rows = tuple(tuple(_row(sweep, trial)) for trial in (*sweep.ranked, *without))
    return [Table(f"Trials on {sweep.where}, best by {sweep.metric.decode} first", tuple(columns), rows)]


def _row(sweep: Sweep, trial: Trial) -> list[str]:
    scores = [sweep.score(trial, decode) for decode in sweep.decodes]
    return [
        trial.id,
        *(
            ABSENT if score is None else f"{percent(score.accuracy)} ({interval(score.low, score.high)})"
            for score in scores
        ),
        *(worded(trial.params[each.name]) if each.name in trial.params else ABSENT for each in sweep.parameters),
        count(trial.step),
        duration(trial.seconds),
        trial.state,
    ]


def _command(contents: Contents, sweep: Sweep) -> Listing:
    """What runs the recipe with the best trial's settings."""
    best = sweep.ranked[0]
    overrides = [shlex.quote(sweep.override(name, value)) for name, value in best.params.items() if value is not None]
    split = [] if sweep.split == "test" else [f"evaluation.split={sweep.split}"]
    lines = ["jobs/distill.py RECIPE.toml", *overrides, *split]
    return Listing(
        f"The command that runs trial {best.id} by itself, with the file of {contents.recipe['name']}",
        " \\\n  ".join(lines),
    )
