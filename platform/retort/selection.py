"""Selection: the rule that picks the chains to learn from.

Rows in: `Verdict` (or `Problem`, where gold labels are learned). Rows out: `Example`.

    {"problem_id": "arithmetic/train/00017", "split": "train", "thought": "cot", "index": 3,
     "prompt": "Question: …\\nLet's think step by step.\\n", "target": "27 + 11 = 38. … The answer is 45."}
"""

import io
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, ClassVar, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from retort import prompts
from retort.combining import same, vote
from retort.records import Example, Problem, Verdict, as_row, from_rows, from_table, to_table
from retort.store import Store
from retort.store.artifacts import Address, Artifact, File, Writer, find
from retort.store.hashing import digest
from retort.thoughts import THOUGHTS, cues
from retort.thoughts.socratic import concludes, is_in_layout

logger = logging.getLogger(__name__)
VERSION = 2
FILES = 8
"""Files of a corpus; a problem's chains meet in one of them."""


class SelectionConfig(BaseModel):
    """Which chains of a problem become examples."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    rule: Literal["correct", "all", "majority"] = "correct"
    """`correct`: chains whose answer equals the gold one. Label-free: `all`, no filter but for chains cut off;
    `majority`, chains whose answer is the teacher's most frequent one on that problem and thought."""
    target: Literal["chain", "answer"] = "chain"
    """What is learned of a selected chain: all of it, or its answer alone (a teacher's label), as `answer`."""
    chains_per_problem: int | None = Field(default=None, ge=1)
    """At most so many a problem and thought, the first by index; None keeps all."""


def select(verdicts: Iterable[Verdict], config: SelectionConfig) -> list[tuple[Verdict, str]]:
    """The verdicts of one problem, each with what became of it: `selected`, `over_budget`, or the reason against it.

    Under `majority` the reason against a chain that was outvoted is `minority`. A Socratic chain that cannot be taken
    apart is `not_in_layout`, one whose last solution says another answer than the chain `not_concluded`.
    """
    by_source: dict[tuple[str, str], list[Verdict]] = defaultdict(list)
    for verdict in sorted(verdicts, key=lambda verdict: (verdict.model_id, verdict.thought, verdict.index)):
        by_source[verdict.model_id, verdict.thought].append(verdict)
    fates: list[tuple[Verdict, str]] = []
    for chains in by_source.values():
        elected = vote([chain.answer for chain in chains])
        taken = 0
        for chain in chains:
            fate = _fate(chain, config, elected)
            if fate == "selected" and config.chains_per_problem is not None and taken >= config.chains_per_problem:
                fate = "over_budget"
            taken += fate == "selected"
            fates.append((chain, fate))
    return fates


def _fate(chain: Verdict, config: SelectionConfig, elected: str | None) -> str:
    """What the rule says of a chain, without its budget."""
    match config.rule:
        case "correct":
            is_wanted, against = chain.reason == "correct", chain.reason
        case "all":
            is_wanted, against = chain.reason != "truncated", chain.reason
        case "majority":
            is_wanted = chain.answer is not None and same(chain.answer, elected)
            against = chain.reason if chain.answer is None else "minority"
    if is_wanted and config.target == "answer" and chain.answer is None:
        return chain.reason
    if is_wanted and chain.thought == "socratic" and config.target == "chain" and not is_in_layout(chain.text):
        return "not_in_layout"
    if is_wanted and chain.thought == "socratic" and config.target == "chain" and not concludes(chain.text):
        return "not_concluded"
    return "selected" if is_wanted else against


def example(verdict: Verdict, target: Literal["chain", "answer"]) -> Example:
    """What is learned of a chain."""
    if target == "chain":
        prompt, thought, text = verdict.prompt, verdict.thought, verdict.text.strip()
    else:
        body = prompts.asked_in(verdict.prompt, THOUGHTS[verdict.thought].CUE)
        prompt, thought, text = prompts.ask(body, cues.ANSWER), "answer", verdict.answer or ""
    return Example(verdict.problem_id, verdict.split, thought, verdict.index, prompt, text)


def label(problem: Problem, thought: str) -> Example | None:
    """What gold labels alone teach of a problem; None where they teach nothing."""
    target = THOUGHTS[thought].gold(problem)
    if target is None:
        return None
    return Example(problem.id, problem.split, thought, 0, prompts.render(problem, THOUGHTS[thought].CUE), target)


def read_verdicts(keys: pa.Table, store: Store, tasks: tuple[str, ...]) -> pa.Table:
    """The verdicts on some tasks in files of an artifact; a table with their columns even where there is none."""
    found: list[Verdict] = []
    for key in keys.column("key").to_pylist():
        table = pq.read_table(io.BytesIO(store.get(key)), use_threads=False)
        found += [verdict for verdict in from_table(Verdict, table) if verdict.task in tasks]
    return to_table(Verdict, found)


def select_group(group: pa.Table, config: SelectionConfig) -> pa.Table:
    """`select` on one problem's verdicts: its examples, and a column `fate` with what became of every chain."""
    fates = select(from_rows(Verdict, group.to_pylist()), config)
    examples = [example(verdict, config.target) for verdict, _ in fates]
    return to_table(Example, examples).append_column("fate", pa.array([fate for _, fate in fates]))


def write_examples(batch: pa.Table, writer: Writer) -> pa.Table:
    """Write the selected examples of some problems as one file; the file and the counts of fates out."""
    rows = batch.to_pylist()
    fates = Counter((row["split"], row.pop("fate")) for row in batch.to_pylist())
    kept = [row for row in rows if row.pop("fate") == "selected"]
    examples = sorted(
        from_rows(Example, kept), key=lambda example: (example.problem_id, example.thought, example.index)
    )
    name = f"part-{digest([[e.problem_id, e.thought, e.index, e.target] for e in examples])[:12]}.parquet"
    file = writer.put_records(name, Example, examples)
    counts = [{"split": split, "fate": fate, "count": count} for (split, fate), count in sorted(fates.items())]
    return pa.Table.from_pylist([{**asdict(file), "counts": counts, "problems": len({e.problem_id for e in examples})}])


def curate(
    store: Store,
    verdicts: Sequence[Artifact],
    problems: Sequence[Problem],
    tasks: Sequence[str],
    thoughts: Sequence[str],
    config: SelectionConfig,
) -> Artifact:
    """The corpus of examples: chains on `tasks` that the rule picks, or what gold labels teach of `problems`.

    Raises:
        ValueError: nothing was selected for training.
    """
    labels = [made for problem in problems for thought in thoughts if (made := label(problem, thought)) is not None]
    inputs = {
        "verdicts": sorted(artifact.id for artifact in verdicts),
        "labels": digest([as_row(made) for made in labels]) if labels else None,
        "tasks": sorted(tasks),
    }
    where = Address("corpus", VERSION, config.model_dump(mode="json"), inputs)
    found = find(store, where)
    if found is not None:
        return found
    if verdicts and not any(artifact.stats["rows"] for artifact in verdicts):
        raise ValueError("no chain to select from: the teachers gave none; does the recording hold these questions?")
    writer = Writer(store, where)
    files = [writer.put_records("labels.parquet", Example, labels)] if labels else []
    fates = Counter(f"{made.split}/selected" for made in labels)
    taught = len({made.problem_id for made in labels})
    for part in _select(store, verdicts, tasks, config, writer) if verdicts else []:
        files.append(File(part["name"], part["key"], part["size"]))
        fates.update({f"{count['split']}/{count['fate']}": count["count"] for count in part["counts"]})
        taught += part["problems"]
    if not fates["train/selected"]:
        raise ValueError(
            f"corpus is empty: expected at least one chain that rule {config.rule!r} keeps, got {dict(fates)}"
        )
    stats = {"rows_in": fates.total(), "fates": dict(sorted(fates.items())), "problems": taught}
    logger.info("selection: %d chains in, %d problems taught: %s", fates.total(), taught, stats["fates"])
    return writer.commit(files, stats)


def _select(
    store: Store, verdicts: Sequence[Artifact], tasks: Sequence[str], config: SelectionConfig, writer: Writer
) -> list[dict[str, Any]]:
    import ray

    keys = [{"key": file["key"]} for artifact in verdicts for file in artifact.manifest["files"]]
    files = ray.data.from_items(keys, override_num_blocks=min(len(keys), FILES))
    read = partial(read_verdicts, store=store, tasks=tuple(tasks))
    rows = files.map_batches(read, batch_size=1, batch_format="pyarrow")
    groups = rows.groupby("problem_id", num_partitions=FILES)
    chosen = groups.map_groups(partial(select_group, config=config), batch_format="pyarrow")
    written = chosen.map_batches(partial(write_examples, writer=writer), batch_size=None, batch_format="pyarrow")
    return written.take_all()
