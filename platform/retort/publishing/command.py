"""The command line of `jobs/publish.py`: a corpus or a student of a run as a folder, and perhaps on the hub.

Yields the lines to print; `upkeep.main` runs it.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import platformdirs

from retort.publishing import hub
from retort.publishing.corpus import publish_corpus
from retort.publishing.student import publish_student
from retort.report.contents import Contents, open_run
from retort.store import gc, open_store

_ARTIFACTS = "/artifacts/"


def publish_commands(parser: argparse.ArgumentParser, arguments: list[str] | None) -> Iterator[str]:
    """`jobs/publish.py`."""
    given = _parser(parser).parse_args(arguments)
    if given.push is not None:
        hub.check(given.push)
    contents = _open(given.run, given.store)
    is_corpus = given.command == "corpus"
    publish = publish_corpus if is_corpus else publish_student
    told = publish(contents, given.name, given.folder, given.licence)
    yield f"{given.folder}: {told}"
    if given.licence is None:
        yield "licence: not stated; the card lists what to check, --licence states one"
    if given.push is not None:
        yield hub.push(given.folder, given.push, "dataset" if is_corpus else "model")


def _open(name: str, store_uri: str) -> Contents:
    """The run of an address, which says in which store it is, or of an id in a store."""
    address, mark, settings = name.partition("?")
    root, is_address, _ = address.rpartition(_ARTIFACTS)
    uri = f"{root}{mark}{settings}" if is_address else store_uri
    store = open_store(uri if "://" in uri else str(Path(uri).absolute()))
    return open_run(store, gc.find_run(store, name))


def _parser(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command, told, name in (
        ("corpus", "a corpus as Parquet for datasets.load_dataset(FOLDER), with a dataset card", "id of the corpus"),
        (
            "student",
            "a student for transformers and `vllm serve FOLDER`, with a model card",
            "name of its run, such as cot or cot@1, or of one of a pair: pair/solve",
        ),
    ):
        added = commands.add_parser(command, help=told, description=told)
        added.add_argument("run", metavar="RUN", help="address of a run or its report, as jobs print it, or an id")
        added.add_argument("name", metavar="NAME", help=name)
        added.add_argument("folder", metavar="FOLDER", type=Path, help="a new folder")
        store = platformdirs.user_data_dir("retort")
        added.add_argument("--store", default=store, help="the store of an id: a path or s3:// address (%(default)s)")
        added.add_argument("--licence", metavar="TEXT", help="the licence that you give it, such as apache-2.0")
        told = "push it to this repository of the Hugging Face hub, as a private one if it is new"
        added.add_argument("--push", metavar="OWNER/NAME", help=told)
    return parser
