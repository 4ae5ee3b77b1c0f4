"""Runs side by side: one page that says which run's student is better at what, and in what else the runs differ.

In: the indices of two runs or more, each perhaps of another store. Out: an artifact with `index.html` in the store of
the first run, against which the others are held.

    jobs/report.py file:///data/store/artifacts/run/3fa9… s3://bucket/retort/artifacts/report/81c0…
"""

import argparse
import itertools
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from retort.report import plots
from retort.report.blocks import Block, Column, Figure, Figures, Remark, Section, Table, table
from retort.report.contents import ROLE_WORDS, Measured, open_run
from retort.report.differences import cost, data, recipes, versions
from retort.report.duels import Side, duels
from retort.report.findings import stated
from retort.report.formatting import ABSENT, count, interval, moment
from retort.report.outcomes import problems, result
from retort.report.page import LIBRARIES, lay_out
from retort.report.recipes import worded
from retort.report.scores import point, spoken
from retort.run import VERSION as INDEX_VERSION
from retort.store import Store, gc, open_store
from retort.store.artifacts import Address, Artifact, Writer, find
from retort.store.claims import present

logger = logging.getLogger(__name__)
VERSION = 1
COLOURS = {
    "A": "blue",
    "B": "orange",
    "C": "green",
    "D": "purple",
    "E": "red",
    "F": "sky",
    "G": "wine",
    "H": "grey",
}
"""The letters that runs are called by, in the order in which they are given: as many as can be told apart in a plot."""
ADDRESS = re.compile(r"(?P<root>.*)/artifacts/(?:run|report)/(?P<id>[^/?]+)[^?]*(?P<settings>\?.*)?")
READING = (
    "Dots are accuracies, lines are Wilson's 95% intervals; where a student has several seeds the dot is the mean over "
    "them. Two students on the same problems may differ surely where these intervals overlap: the pairs above tell."
)


def names_runs(arguments: Sequence[str]) -> bool:
    """Whether a command line names runs or reports, not a recipe."""
    return any(ADDRESS.fullmatch(argument) for argument in arguments)


def versus_commands(parser: argparse.ArgumentParser, arguments: list[str] | None) -> Iterator[str]:
    """`jobs/report.py A B`."""
    parser.add_argument("runs", metavar="RUN", nargs="+", help="address of a run or report, as jobs print it")
    runs = open_runs(parser.parse_args(arguments).runs)
    with present(runs[0].store):
        artifact = versus(runs)
    yield f"report: {artifact.directory()}/index.html"
    yield f"artifact: {artifact.uri}"


def open_runs(addresses: Sequence[str]) -> list[Artifact]:
    """The indices of the runs at some addresses of runs or reports; a store that several name is opened once.

    Raises:
        ValueError: an address of something else, a run that is not there or that is named twice; too few or too many.
    """
    if not 2 <= len(addresses) <= len(COLOURS):
        raise ValueError(f"runs to compare: got {len(addresses)}; expected 2 to {len(COLOURS)}")
    stores: dict[str, Store] = {}
    found: dict[str, Artifact] = {}
    for address in addresses:
        parsed = ADDRESS.fullmatch(address)
        if parsed is None:
            raise ValueError(
                f"got {address!r} among runs to compare; expected the address of a run or report, as jobs print it: "
                f".../artifacts/run/ID or .../artifacts/report/ID"
            )
        uri = f"{parsed['root']}{parsed['settings'] or ''}"
        stores[uri] = stores.get(uri) or _existing(uri)
        run = gc.find_run(stores[uri], parsed["id"])
        if run.manifest["version"] != INDEX_VERSION:
            raise ValueError(
                f"run {run.id} has an index of version {run.manifest['version']}, of an older release; expected "
                f"{INDEX_VERSION}: start its recipe again, which makes a new one"
            )
        if run.id in found:
            raise ValueError(f"{address!r} is run {run.id}, which is named before; expected different runs")
        found[run.id] = run
    return list(found.values())


def _existing(uri: str) -> Store:
    """The store at a URI; a path may be relative to where the command is given."""
    store = open_store(uri if "://" in uri else str(Path(uri).absolute()))
    if store.is_local and not Path(store.directory("")).is_dir():
        raise ValueError(f"store {uri!r}: no such folder; expected that of an address that a job printed")
    return store


def versus(runs: Sequence[Artifact]) -> Artifact:
    """The comparison of some runs with the first of them; found, if it was made before."""
    store = runs[0].store
    where = Address("versus", VERSION, {}, {"runs": [run.id for run in runs]}, LIBRARIES)
    found = find(store, where)
    if found is not None:
        return found
    writer = Writer(store, where)
    opened = (open_run(run.store, run) for run in runs)
    sides = [Side(letter, contents) for letter, contents in zip(COLOURS, opened, strict=False)]
    page = lay_out(
        name=", ".join(f"{side.letter} {side.contents.recipe['name']}" for side in sides),
        told=f"Reasoning, distilled: {len(sides)} runs by retort, compared with A, the first",
        sections=compose(sides),
        source=f"Runs {', '.join(f'{side.letter} {side.contents.run.id}' for side in sides)}",
    )
    logger.info("comparison of %d runs: %d bytes", len(sides), len(page))
    return writer.commit([writer.put("index.html", page)], {"runs": len(sides), "bytes": len(page)})


def compose(sides: Sequence[Side]) -> list[Section]:
    """The sections of the page, in order."""
    fought = [duel for other in sides[1:] for duel in duels(sides[0], other)]
    return [
        Section("result", "Result", (*result(fought, sides), _runs(sides))),
        accuracies(sides),
        problems(fought),
        recipes(sides),
        data(sides),
        cost(sides),
        versions(sides),
    ]


def _runs(sides: Sequence[Side]) -> Block:
    rows: list[list[str]] = []
    for letter, contents in sides:
        students = ", ".join(contents.students) or ABSENT
        rows.append([letter, contents.recipe["name"], students, contents.run.id, _made(contents.run)])
    return table("Runs", ["run", "recipe", "students", "index", "made"], [], rows)


def _made(run: Artifact) -> str:
    return moment(run.manifest["created_at_s"])


def accuracies(sides: Sequence[Side]) -> Section:
    """All models of all runs: in plots under what speaks for them, in tables under all that was measured."""
    plotted = {side.letter: list(spoken(side.contents)) for side in sides}
    settings = dict.fromkeys((row.score.task, row.score.decode) for rows in plotted.values() for row in rows)
    figures = [
        figure
        for number, (task, decode) in enumerate(settings)
        if (figure := _figure(f"versus-{number}", task, decode, plotted)) is not None
    ]
    if not settings:
        return Section("accuracy", "Accuracy", (Remark("Nothing was evaluated in these runs."),))
    tables = [_table(task, sides) for task in dict.fromkeys(task for task, _ in settings)]
    return Section("accuracy", "Accuracy", (Figures(tuple(figures)), *tables, Remark(READING)))


Lettered = tuple[str, Measured]
"""A score and the letter of its run."""


def _beside(rows: dict[str, list[Measured]]) -> list[Lettered]:
    """Scores of equal names side by side, in the order in which names come; of each name in the order of the runs."""
    found = [(letter, row) for letter, measured in rows.items() for row in measured]
    names = list(dict.fromkeys(row.name for _, row in found))
    return sorted(found, key=lambda each: names.index(each[1].name))


def _figure(name: str, task: str, decode: str, plotted: dict[str, list[Measured]]) -> Figure | None:
    """Accuracies on one task under one decode; None where no problem has a gold answer."""
    rows = [
        (letter, row)
        for letter, row in _beside(plotted)
        if (row.score.task, row.score.decode) == (task, decode) and row.score.problems
    ]
    if not rows:
        return None
    points = [point(f"{row.name} {letter}", row, COLOURS[letter]) for letter, row in rows]
    caption = f"Accuracy on {task}, {decode}, with 95% intervals"
    summary = f"{caption}: {', '.join(f'{each.name} {each.text}' for each in points)}"
    legend = tuple((f"run {letter}", COLOURS[letter]) for letter in plotted if letter in dict(rows))
    return Figure(name, caption, summary, plots.intervals(name, summary, points), legend)


def _table(task: str, sides: Sequence[Side]) -> Block:
    measured = {side.letter: [row for row in side.contents.scores if row.score.task == task] for side in sides}
    rows = sorted(_beside(measured), key=lambda each: _decodes(sides).index(each[1].score.decode))
    cells = [
        (
            f"{row.model} {letter}",
            stated(row) if row.score.problems else ABSENT,
            interval(row.score.low, row.score.high) if row.score.problems else ABSENT,
            f"{count(row.score.correct)} of {count(row.score.problems)}",
            row.score.decode,
            worded(row.score.thought),
            ROLE_WORDS[row.role],
        )
        for letter, row in rows
    ]
    # Numbers stand before the decode and the thought: a phone shows what comes first.
    parts = (
        (("model and run",), False),
        (("accuracy", "95% interval", "correct"), True),
        (("decode", "thought", "role"), False),
    )
    columns = tuple(Column(name, is_number) for names, is_number in parts for name in names)
    return Table(f"Scores on {task}", columns, tuple(cells))


def _decodes(sides: Sequence[Side]) -> list[str]:
    return list(itertools.chain.from_iterable(side.contents.recipe["evaluation"]["decodes"] for side in sides))
