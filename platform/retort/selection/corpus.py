"""The corpus: selection over the verdicts of whole plans, in one shuffle that brings the chains of a problem together.

Rows in: `Verdict` (or `Problem`, where gold labels are learned). Rows out: `Example`.
"""

import logging
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from retort.cluster import live
from retort.cluster.room import Demand
from retort.cluster.skew import Installed, installed
from retort.records import Example, Problem, Verdict, as_row, from_rows, from_table, to_table
from retort.selection import counts, picks
from retort.selection.budgets import Limit, Source, limits, supplies
from retort.selection.config import SelectionConfig
from retort.selection.counts import Kind, stratum
from retort.selection.examples import example, label
from retort.selection.rules import pass_rate, select, unique_bigrams
from retort.store import Store
from retort.store.artifacts import Address, Artifact, File, Writer, find, read_table
from retort.store.hashing import digest

logger = logging.getLogger(__name__)
VERSION = 5
FILES = 8
"""Files of a corpus, at least; a problem's chains meet in one of them."""
ROWS_OF_FILE = 250_000
"""Verdicts that a task of selection looks at, about: some 250 MB. Of more of them there are more files."""


def curate(
    store: Store,
    verdicts: Sequence[Artifact],
    problems: Sequence[Problem],
    tasks: Sequence[str],
    thoughts: Sequence[str],
    config: SelectionConfig,
    left_out: Mapping[str, str],
) -> Artifact:
    """The corpus of examples: chains on `tasks` that the rule picks, or what gold labels teach of `problems`.

    `left_out` are the problems that it does without, and why.

    Raises:
        ValueError: nothing was selected for training, or a chain lacks what its pick needs.
    """
    labels = [made for problem in problems for thought in thoughts if (made := label(problem, thought)) is not None]
    inputs = {
        "verdicts": sorted(artifact.id for artifact in verdicts),
        "labels": digest([as_row(made) for made in labels]) if labels else None,
        "tasks": sorted(tasks),
        "left_out": digest(dict(left_out)) if left_out else None,
    }
    # `num_chains` is in the verdicts already: they are those of the chains that it leaves.
    settings = config.model_dump(mode="json", exclude={"num_chains"})
    where = Address("corpus", VERSION, settings, inputs, picks.LIBRARIES if config.pick == "diverse" else ())
    found = find(store, where)
    if found is not None:
        return found
    if verdicts:
        _check(verdicts, config)
    writer = Writer(store, where)
    parts = _select(store, verdicts, tasks, config, left_out, writer) if verdicts else _labels(labels, left_out, writer)
    stats = counts.stats(parts)
    if not stats["fates"].get("train/selected"):
        raise ValueError(f"corpus is empty: expected a training chain that is selected, got {stats['fates']}")
    logger.info("selection: %d chains in, %d problems taught: %s", stats["rows_in"], stats["problems"], stats["fates"])
    # Parts of which nothing was selected have one name.
    files = {part["name"]: File(part["name"], part["key"], part["size"]) for part in parts}
    return writer.commit(list(files.values()), stats)


def _check(verdicts: Sequence[Artifact], config: SelectionConfig) -> None:
    """Raises ValueError where there is nothing to select from, or nothing to tell likely chains by."""
    rows = sum(artifact.stats["rows"] for artifact in verdicts)
    if not rows:
        raise ValueError("no chain to select from: the teachers gave none; does the recording hold these questions?")
    without = rows - sum(artifact.stats["logprobs"] for artifact in verdicts)
    if config.pick == "likely" and without:
        raise ValueError(
            f"selection.pick = 'likely': {without} of {rows} chains were sampled without log-probabilities; expected "
            f'logprobs = "sum" of their teacher from the first chain on: set it and sample into a new store'
        )


def _labels(labels: Sequence[Example], left_out: Mapping[str, str], writer: Writer) -> list[dict[str, Any]]:
    """Write the examples that gold labels make; the same out as for chains."""
    fates = [left_out.get(made.problem_id, "selected") for made in labels]
    kept = [made for made, fate in zip(labels, fates, strict=True) if fate == "selected"]
    counted = Counter(
        Kind(made.split, made.thought, fate, None, False) for made, fate in zip(labels, fates, strict=True)
    )
    return [_part(writer.put_records("labels.parquet", Example, kept), kept, counted)]


def _select(
    store: Store,
    verdicts: Sequence[Artifact],
    tasks: Sequence[str],
    config: SelectionConfig,
    left_out: Mapping[str, str],
    writer: Writer,
) -> list[dict[str, Any]]:
    """Select and write with Ray Data. What depends on the whole corpus is decided here, from ids and numbers."""
    import ray

    keys = [{"key": file["key"]} for artifact in verdicts for file in artifact.manifest["files"]]
    num_files = max(FILES, math.ceil(sum(artifact.stats["rows"] for artifact in verdicts) / ROWS_OF_FILE))
    files = ray.data.from_items(keys, override_num_blocks=min(len(keys), num_files))
    read = partial(read_verdicts, store=store, tasks=tuple(tasks))
    rows = files.map_batches(read, batch_size=1, batch_format="pyarrow")
    groups = rows.groupby("problem_id", num_partitions=num_files)
    chosen = groups.map_groups(
        partial(select_group, config=config, left_out=left_out, driver=installed()), batch_format="pyarrow"
    )
    write = partial(write_examples, writer=writer)
    with live.waiting([Demand("selection", {"CPU": 1.0}, 1, 1, "nothing: it takes one CPU")]):
        if config.pick != "open_ended" and config.total_chains is None:
            return chosen.map_batches(partial(write, allowed=None), batch_size=None, batch_format="pyarrow").take_all()
        chosen = chosen.materialize()
        counted = chosen.map_batches(count_supplies, batch_size=None, batch_format="pyarrow")
        allowed = limits(supplies(counted.take_all()), config)
        return chosen.map_batches(partial(write, allowed=allowed), batch_size=None, batch_format="pyarrow").take_all()


def read_verdicts(keys: pa.Table, store: Store, tasks: tuple[str, ...]) -> pa.Table:
    """The verdicts on some tasks in files of an artifact; a table with their columns even where there is none."""
    found: list[Verdict] = []
    for key in keys.column("key").to_pylist():
        found += [verdict for verdict in from_table(Verdict, read_table(store, key)) if verdict.task in tasks]
    return to_table(Verdict, found)


def select_group(group: pa.Table, config: SelectionConfig, left_out: Mapping[str, str], driver: Installed) -> pa.Table:
    """`select` on one problem's verdicts: an example of every chain, and columns with what became of it.

    `fate`; `source`, its thought and teacher, and `rank`, its place among those of its source that are selected; of its
    thought `bigrams` and `stratum`, and whether it `leads` the thought's chains, so that problems can be counted.

    Raises:
        ValueError: this machine has other versions than the `driver`, by which the artifact is addressed.
    """
    driver.check()
    fates = select(from_rows(Verdict, group.to_pylist()), config, left_out)
    columns: list[dict[str, Any]] = []
    examples: list[Example] = []
    for thought, pairs in groupby(fates, key=lambda pair: pair[0].thought):
        chains, taken = list(pairs), Counter[str]()
        looked_at = [verdict for verdict, _ in chains]
        bigrams = unique_bigrams(looked_at) if config.pick == "open_ended" else 0
        rate = pass_rate(looked_at)
        examples += [example(verdict, config.target, rate) for verdict in looked_at]
        about = {"sampled_thought": thought, "bigrams": bigrams, "stratum": stratum(rate)}
        for place, (verdict, fate) in enumerate(chains):
            rank = taken[verdict.model_id]
            taken[verdict.model_id] += fate == "selected"
            source = f"{thought}/{verdict.model_id}"
            columns.append({"fate": fate, "source": source, "rank": rank, "leads": place == 0, **about})
    made = to_table(Example, examples)
    told = pa.Table.from_pylist(columns, schema=TOLD)
    for name in TOLD.names:
        made = made.append_column(name, told.column(name))
    return made


TOLD = pa.schema(
    {
        "fate": pa.string(),
        "source": pa.string(),
        "rank": pa.int64(),
        "leads": pa.bool_(),
        "sampled_thought": pa.string(),
        "bigrams": pa.int64(),
        "stratum": pa.string(),
    }
)
"""The columns that `select_group` adds to those of an example."""


def count_supplies(batch: pa.Table) -> pa.Table:
    """The selected chains of some problems → ids and numbers, a row a source."""
    names = ["problem_id", "source", "split", "sampled_thought", "bigrams"]
    chosen = batch.filter(pc.field("fate") == "selected")
    offered = chosen.select([*names, "rank"]).group_by(names).aggregate([("rank", "count")])
    return offered.rename_columns(["problem_id", "source", "split", "thought", "bigrams", "chains"])


def write_examples(batch: pa.Table, writer: Writer, allowed: Mapping[Source, Limit] | None) -> pa.Table:
    """Write the selected examples of some problems as one file; the file and counts out.

    `allowed` are the limits that depend on the whole corpus: what is beyond them is `over_budget` or `over_total`.
    """
    counted: Counter[Kind] = Counter()
    kept: list[dict[str, Any]] = []
    for row in batch.to_pylist():
        told = {name: row.pop(name) for name in TOLD.names}
        fate = told["fate"]
        if fate == "selected" and allowed is not None:
            limit = allowed[Source(row["problem_id"], told["source"])]
            is_over = told["rank"] >= limit.by_pick, told["rank"] >= limit.by_total
            fate = "over_budget" if is_over[0] else "over_total" if is_over[1] else fate
        counted[Kind(row["split"], told["sampled_thought"], fate, told["stratum"], told["leads"])] += 1
        if fate == "selected":
            kept.append(row)
    examples = sorted(
        from_rows(Example, kept), key=lambda example: (example.problem_id, example.thought, example.index)
    )
    name = f"part-{digest([[e.problem_id, e.thought, e.index, e.target] for e in examples])[:12]}.parquet"
    return pa.Table.from_pylist([_part(writer.put_records(name, Example, examples), examples, counted)])


def _part(file: File, examples: Iterable[Example], counted: Mapping[Kind, int]) -> dict[str, Any]:
    """One file of a corpus, how many problems it teaches, and the counts of all chains that were looked at for it."""
    return {**asdict(file), "counts": counts.rows(counted), "problems": len({made.problem_id for made in examples})}
