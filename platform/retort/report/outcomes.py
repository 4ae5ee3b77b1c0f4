"""What duels came to: a sentence for each pair of students, the figures behind it, and problems that one alone solved.

In: the duels of a comparison, all against the same run. The problems to read are chosen by a hash of their ids: by
nothing that they hold.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from retort.combining import parse
from retort.evaluation import num_votes
from retort.records import Prediction, Verdict
from retort.report.blocks import Block, Column, Exhibit, Exhibits, Remark, Section, Table
from retort.report.duels import Duel, Opponent, Side, measured
from retort.report.findings import listed
from retort.report.formatting import count, percent, points, probability, shortened
from retort.report.reasons import Palette, palette, worded
from retort.report.recipes import is_combiner, run_names, spaced
from retort.report.recipes import worded as worded_thought
from retort.store.hashing import digest

MOST_SPOKEN = 6
"""Comparisons that are put in words; the tables hold all."""
MOST_READ = 4
"""Problems that are shown for each side of a duel: what a reader takes in."""
MAX_CHARACTERS = 1500
READING = (
    "Students of one id are compared, and one without a namesake with each of its kind in the other run, by the chains "
    "of their first seeds, on the test problems that both answered: those of which id, question and gold answer are "
    "equal. Differences are in percentage points, with Newcombe's 95% interval for paired shares; p is McNemar's "
    "exact test on the problems that one alone has right. A student is called better where both exclude chance, at 5%. "
    "They tell of these two trainings: another seed of either might do otherwise. p is not corrected for the number of "
    "comparisons, and these are not independent of each other."
)
CHOSEN = (
    f"At most {MOST_READ} problems are shown for either side of a comparison, in the order of a hash of their ids, so "
    "that neither the best nor the worst are picked. Of each student the chain is shown that carries its answer."
)


def result(duels: Sequence[Duel], sides: Sequence[Side]) -> list[Block]:
    """Which run's student is better at what, in sentences and in full."""
    blocks: list[Block] = [Remark(finding(duel), is_finding=True) for duel in spoken(duels)]
    if (more := sum(duel.speaks for duel in duels) - len(blocks)) > 0:
        blocks.append(Remark(f"{count(more)} more comparisons of this kind stand in the tables below alone."))
    blocks += [Remark(told, is_finding=not blocks) for told in _without(duels, sides)]
    for side in sides[1:]:
        rows = [duel for duel in duels if duel.other.side is side and duel.pair is not None]
        if rows:
            blocks.append(_table(rows))
    return [*blocks, *_matching(duels), *([Remark(READING)] if duels else [])]


def spoken(duels: Sequence[Duel]) -> list[Duel]:
    """The duels that the page speaks of: a task each of two students, namesakes first; no more than are read."""
    speaking = [duel for duel in duels if duel.speaks]
    return sorted(speaking, key=lambda duel: duel.one.student != duel.other.student)[:MOST_SPOKEN]


def finding(duel: Duel) -> str:
    """What a duel shows, and no more than its interval and its test allow."""
    one, other, pair = _named(duel.one), _named(duel.other), duel.pair
    if pair is None:
        return f"On {duel.task}, {other} and {one} answered no test problem in common, so that nothing can be said."
    if duel.is_same:
        return f"On {duel.task}, {other} and {one} are one evaluation of one checkpoint: there is no difference."
    seeds = ", by the first seed of each" if any(_has_seeds(who) for who in (duel.one, duel.other)) else ""
    on = f"On {duel.task} ({count(pair.problems)} test problems that both answered, {duel.decode}{seeds})"
    accuracy, other_accuracy = map(percent, duel.accuracies)
    p = probability(pair.p)
    sure = f"95% interval {points(pair.low)} to {points(pair.high)}, p {p if p[0] == '<' else f'= {p}'}"
    if not duel.advantage:
        return (
            f"{on}, {other} ({other_accuracy}) cannot be told from {one} ({accuracy}): the difference is "
            f"{points(pair.difference)} points, {sure}."
        )
    fate = "ahead of" if duel.advantage > 0 else "behind"
    size = f"{abs(100 * pair.difference):.1f}"
    return f"{on}, {other} ({other_accuracy}) is {size} points {fate} {one} ({accuracy}): {sure}."


def problems(duels: Sequence[Duel]) -> Section:
    """Problems that one student solved and the other did not: how many, and some of them to read."""
    shown = [duel for duel in spoken(duels) if duel.pair is not None and not duel.is_same]
    blocks: list[Block] = []
    for duel in shown:
        for by_other in (True, False):
            won = duel.won(by_other)
            winner, loser = (duel.other, duel.one) if by_other else (duel.one, duel.other)
            told = f"{_named(winner)} alone is right, {_named(loser)} is not: {count(len(won))} of "
            told += f"{count(len(duel.matched))} problems of {duel.task}, {duel.decode}"
            if won:
                blocks.append(Exhibits(told, tuple(_exhibits(duel, by_other, won)), is_open=not blocks))
            else:
                blocks.append(Remark(f"{told}."))
    return Section("problems", "Problems", (*blocks, Remark(CHOSEN if shown else "There is nothing to show.")))


def _named(opponent: Opponent) -> str:
    """A student as sentences name it; with its thought, where that is a matter of choice."""
    thoughts = opponent.side.contents.thoughts(opponent.student)
    return f"{opponent.name} ({spaced(opponent.thought)})" if len(thoughts) > 1 else opponent.name


def _has_seeds(opponent: Opponent) -> bool:
    return len(run_names(opponent.side.contents.students[opponent.student])) > 1


def _without(duels: Sequence[Duel], sides: Sequence[Side]) -> Iterator[str]:
    """Runs that have no student to compare, and students that none was compared with."""
    met = {(who.side.letter, who.student) for duel in duels for who in (duel.one, duel.other)}
    alone: list[str] = []
    for side in sides:
        found = measured(side.contents)
        if not found:
            yield f"Nothing can be said of students of {side.letter}: none was evaluated in this run."
        alone += [f"{student} of {side.letter}" for student in found if (side.letter, student) not in met]
    if alone:
        yield f"Without a student of the same kind, task and decode to be compared with: {listed(alone)}."


def _matching(duels: Sequence[Duel]) -> list[Remark]:
    """How many problems could not be compared, and why."""
    told: list[str] = []
    for duel in duels:
        only_one, only_other, changed = duel.unmatched
        if duel.speaks and (only_one or only_other or changed):
            told.append(
                f"{_named(duel.one)} and {_named(duel.other)} on {duel.task}: {count(len(duel.matched))} matched, "
                f"{count(only_one)} answered by the first alone, {count(only_other)} by the second alone, "
                f"{count(changed)} with one id and another question or gold answer"
            )
    if told:
        return [Remark(f"Not all test problems could be matched. {'; '.join(told)}.")]
    return [Remark("All test problems were matched.")] if duels else []


def _table(duels: Sequence[Duel]) -> Table:
    one, other = duels[0].one.side.letter, duels[0].other.side.letter
    numbers = [f"{other} − {one}", "95% interval", "p", one, other, f"only {one}", f"only {other}"]
    numbers += ["matched", "not matched"]
    words = ("task", "decode", "thought")
    columns = [Column("student", is_number=False), *map(Column, numbers), *(Column(w, is_number=False) for w in words)]
    return Table(f"Students of {other} against {one}", tuple(columns), tuple(map(_row, duels)))


def _row(duel: Duel) -> tuple[str, ...]:
    assert duel.pair is not None
    pair, (one, other) = duel.pair, (duel.one, duel.other)
    thoughts = worded_thought(one.thought), worded_thought(other.thought)
    return (
        one.student if one.student == other.student else f"{other.name}, {one.name}",
        points(pair.difference),
        f"{points(pair.low)} to {points(pair.high)}",
        probability(pair.p),
        *map(percent, duel.accuracies),
        count(pair.only_second),
        count(pair.only_first),
        count(pair.problems),
        count(sum(duel.unmatched)),
        duel.task,
        duel.decode,
        thoughts[0]
        if thoughts[0] == thoughts[1]
        else f"{other.side.letter} {thoughts[1]}, {one.side.letter} {thoughts[0]}",
    )


def _exhibits(duel: Duel, by_other: bool, won: Sequence[str]) -> Iterator[Exhibit]:
    """The winner's chain and the loser's, problem by problem."""
    chosen = sorted(won, key=digest)[:MOST_READ]
    meeting = [(duel.other, duel.other_answers), (duel.one, duel.answers)]
    texts = [_said(who, duel.decode, [said[name] for name in chosen]) for who, said in meeting]
    colours = palette([Counter(verdict.reason for found in texts for verdict in found.values())])
    order = (0, 1) if by_other else (1, 0)
    for name in chosen:
        for place in order:
            (who, said), found = meeting[place], texts[place]
            if name in found:
                yield _exhibit(who, said[name], found[name], colours, is_winner=place == order[0])


def _exhibit(who: Opponent, said: Prediction, verdict: Verdict, colours: Palette, is_winner: bool) -> Exhibit:
    votes = [] if said.num_chains == 1 else [f"{count(said.num_correct)} of {count(said.num_chains)} chains right"]
    return Exhibit(
        why=f"{who.name} is right" if is_winner else f"{who.name} is not",
        id="",  # there is no browser of chains on this page
        facts=(said.problem_id, spaced(verdict.thought), *votes),
        question=said.question if is_winner else "",
        text=shortened(verdict.text, MAX_CHARACTERS),
        answer=said.answer,
        gold=said.gold,
        reason=worded(verdict.reason),
        colour=colours.colour(verdict.reason),
    )


def _said(who: Opponent, decode: str, predictions: Collection[Prediction]) -> dict[str, Verdict]:
    """By problem id, the first chain that carries a prediction's answer; where none does, the first of all."""
    contents, predicted = who.side.contents, {prediction.problem_id: prediction for prediction in predictions}
    parts = parse(who.thought).thoughts if is_combiner(who.thought) else (who.thought,)
    plan = f"{contents.first_run(who.student)}/test-{'greedy' if decode == 'greedy' else 'maj'}"
    found: dict[str, Verdict] = {}

    def rank(verdict: Verdict) -> tuple[bool, int, int]:
        carries = verdict.answer == predicted[verdict.problem_id].answer
        return not carries, parts.index(verdict.thought), verdict.index

    for verdict in contents.stage("verdicts")[plan].records(Verdict):
        name = verdict.problem_id
        if name in predicted and verdict.thought in parts and verdict.index < num_votes(decode):
            found[name] = min(found.get(name, verdict), verdict, key=rank)
    return found
