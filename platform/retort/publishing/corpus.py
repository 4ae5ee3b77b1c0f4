"""A corpus as a folder of Parquet for `datasets.load_dataset`, with a dataset card.

Rows in: `Example`. Rows out, in `data/train.parquet` and `data/validation.parquet`:

    {"problem_id": "arithmetic/train/00017", "task": "arithmetic", "split": "train", "thought": "cot", "index": 3,
     "prompt": "Question: …\\nLet's think step by step.\\n", "target": "27 + 11 = 38. … The answer is 45."}
"""

import contextlib
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from retort.config import expected
from retort.publishing.cards import card, code, fenced, licence_fields, table
from retort.publishing.folder import new_folder
from retort.publishing.provenance import TAGS, behind_corpus, language, licences, lineage, teaching
from retort.records import Example
from retort.report.contents import Contents
from retort.report.formatting import count
from retort.tasks.source import HUB_SPLITS

COLUMNS = {
    "problem_id": "the problem, as task/split/number",
    "task": "the task that it is of",
    "split": "train, or validation for choosing checkpoints",
    "thought": "the format of the target",
    "index": "number of the chain among those of its problem and thought",
    "prompt": "what a student is asked, to the last line end",
    "target": "what it learns to write after that",
}
SCHEMA = pa.schema([pa.field(name, pa.int64() if name == "index" else pa.string(), nullable=False) for name in COLUMNS])
SIZES = {"n<1K": 1e3, "1K<n<10K": 1e4, "10K<n<100K": 1e5, "100K<n<1M": 1e6, "1M<n<10M": 1e7, "10M<n<100M": 1e8}
"""The hub's words for numbers of rows, each with its bound."""
ROWS_AT_ONCE = 10_000


class Group(NamedTuple):
    """What rows are counted by."""

    split: str
    task: str
    thought: str


def publish_corpus(contents: Contents, name: str, folder: Path, licence: str | None) -> str:
    """Write a corpus of a run to a new folder; what it holds, in a line.

    Raises:
        ValueError: no such corpus in the run; something in the folder's place; a damaged artifact.
    """
    found = contents.stage("corpus").get(name)
    if found is None:
        raise ValueError(f"run {contents.run.id} has no corpus {name!r}: {expected(name, contents.stage('corpus'))}")
    with new_folder(folder) as made:
        (made / "data").mkdir()
        counts, shown = write_rows(found.records(Example), made / "data")
        text = corpus_card(contents, name, counts, shown, licence)
        (made / "README.md").write_text(text, encoding="utf-8")
    return f"{count(counts.total())} examples of corpus {name}"


def write_rows(examples: Iterable[Example], data: Path) -> tuple[Counter[Group], dict[str, Example]]:
    """Write examples to a file a split; how many there are of each group, and the first of each thought."""
    counts: Counter[Group] = Counter()
    shown: dict[str, Example] = {}
    remaining = iter(examples)
    with contextlib.ExitStack() as stack:
        writers: dict[str, pq.ParquetWriter] = {}
        while part := list(itertools.islice(remaining, ROWS_AT_ONCE)):
            shown = {example.thought: example for example in reversed(part)} | shown
            rows = list(map(_row, part))
            counts.update(Group(row["split"], row["task"], row["thought"]) for row in rows)
            for split in dict.fromkeys(row["split"] for row in rows):
                if split not in writers:
                    file = pq.ParquetWriter(
                        data / f"{split}.parquet", SCHEMA, compression="zstd", write_page_checksum=True
                    )
                    writers[split] = stack.enter_context(file)
                chosen = [row for row in rows if row["split"] == split]
                writers[split].write_table(pa.Table.from_pylist(chosen, schema=SCHEMA))
    return counts, shown


def _row(example: Example) -> dict[str, Any]:
    row = {name: getattr(example, name) for name in COLUMNS if name != "task"}
    return row | {"task": example.problem_id.partition("/")[0], "split": HUB_SPLITS[example.split]}


def corpus_card(
    contents: Contents, name: str, counts: Counter[Group], shown: dict[str, Example], licence: str | None
) -> str:
    """The dataset card of a corpus."""
    recipe, tasks = contents.recipe["name"], contents.corpora[name]["tasks"]
    splits = [split for split in HUB_SPLITS.values() if any(group.split == split for group in counts)]
    fields = {
        "pretty_name": f"{recipe}: {name}",
        **licence_fields(licence),
        "language": language(contents, tasks),
        "tags": TAGS,
        "task_categories": ["text-generation"],
        "size_categories": [next((word for word, most in SIZES.items() if counts.total() < most), "100M<n<1B")],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": f"data/{split}.parquet"} for split in splits],
            }
        ],
    }
    blocks = [
        f"# Corpus {code(name)} of {code(recipe)}",
        f"{count(counts.total())} examples to fine-tune a small language model on: each the prompt of a problem and a "
        f"completion that reasons to its answer. Made with retort, which samples chains from a teacher, verifies and "
        f"selects them.",
        fenced('from datasets import load_dataset\n\ncorpus = load_dataset(".")  # this folder, or its name', "python"),
        *_rows(counts, shown),
        "## How it was made",
        *teaching(contents, name),
        *licences(contents, name, (f"corpus {code(name)}", licence)),
        *lineage(contents, behind_corpus(contents, name)),
    ]
    return card(fields, blocks)


def _rows(counts: Counter[Group], shown: dict[str, Example]) -> Iterator[str]:
    """What the rows are: columns, counts and an example of each thought."""
    yield "## Rows"
    yield table(
        ["column", "type", "is"], ([code(name), str(SCHEMA.field(name).type), COLUMNS[name]] for name in COLUMNS)
    )
    yield table(
        ["split", "task", "thought", "examples"],
        ([code(each) for each in group] + [count(number)] for group, number in sorted(counts.items())),
    )
    for thought, example in sorted(shown.items()):
        yield f"An example of {code(thought)}, {code(example.problem_id)}: the prompt, and its target."
        yield fenced(example.prompt)
        yield fenced(example.target)
