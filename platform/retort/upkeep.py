"""The command lines of `jobs/pool.py` and `jobs/store.py`: what a store holds, whether it is whole, what may go.

Each command yields the lines to print. Wrong input ends with exit status 2 and one line; what is wrong with a pool ends
with 1, when all of it is told.
"""

import argparse
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import get_args

from retort import importing, loading, logs
from retort.store import Store, compaction, exports, gc, imports, integrity, inventory, open_store
from retort.store.inventory import megabytes
from retort.store.pool import Pool, open_pool

Commands = Callable[[argparse.ArgumentParser, list[str] | None], Iterator[str]]


def main(description: str | None, commands: Commands) -> Iterator[str]:
    """The lines of the command that the process was started with.

    Raises:
        SystemExit: with status 2 for wrong input, 1 for a problem that was found, 130 for Ctrl-C.
    """
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` is no error
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    try:
        logs.configure(logs.asked_for())
        yield from commands(parser, None)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except (ValueError, OSError) as error:
        logs.refuse(error)
        raise SystemExit(2) from None


def pool_commands(parser: argparse.ArgumentParser, arguments: list[str] | None) -> Iterator[str]:
    """`jobs/pool.py`."""
    given = _pool_parser(parser).parse_args(arguments)
    if given.command == "import":
        yield from _import(given.recipe, given.teacher, given.inputs)
        return
    store = existing(given.store)
    match given.command:
        case "show":
            yield from inventory.undescribed(store) if given.pool is None else []
            yield from inventory.show(store, given.pool)
        case "verify":
            yield from _verify(store, given.pool, given.set_aside)
        case "compact":
            for pool in inventory.chosen(store, given.pool):
                before = inventory.footprint(pool)
                compaction.compact(pool)
                yield f"pool {pool.id}: {before} before, {inventory.footprint(pool)} now"
        case _:
            done = exports.export(open_pool(store, given.pool), given.out, given.format, given.all)
            yield f"{given.out}: {done.rows} rows; {done.left_out} that no plan reads left out"


def existing(uri: str) -> Store:
    """The store at a URI. A mistyped folder is not an empty store."""
    store = open_store(_absolute(uri))
    if store.is_local and not Path(store.directory("")).is_dir():
        raise ValueError(f"store {uri!r}: no such folder; expected the store that a recipe names, or was run with")
    return store


def _absolute(uri: str) -> str:
    """A store as a shell names it: a path may be relative to where the command is given."""
    return uri if "://" in uri else str(Path.cwd() / uri)


def _pool_parser(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, told in (
        ("show", "what pools hold: chains by thought, task and finish reason, tokens, bytes"),
        ("verify", "read every segment whole and compute every key anew; exit status 1 if anything is wrong"),
        ("compact", "merge small segments into large ones; nothing else need stop meanwhile"),
    ):
        command = commands.add_parser(name, help=told, description=told)
        command.add_argument("store", metavar="STORE", help="path or s3:// address of the store")
        command.add_argument("pool", metavar="POOL", nargs="?", help="id of a pool; all of them where it is left out")
        if name == "verify":
            command.add_argument("--set-aside", action="store_true", help="take damaged segments out of the pool")
    told = "write the chains of a pool to files that other programs read, and `import` too"
    command = commands.add_parser("export", help=told, description=told)
    command.add_argument("store", metavar="STORE")
    command.add_argument("pool", metavar="POOL")
    command.add_argument("out", metavar="OUT", type=Path, help="a new file or, for `datasets`, a new directory")
    told = "`datasets` is a directory for datasets.load_dataset(OUT)"
    command.add_argument("--format", choices=get_args(exports.Format), default="parquet", help=told)
    command.add_argument("--all", action="store_true", help="rows that no plan reads too")
    command = commands.add_parser(
        "import",
        help="add exported chains to their pool, or chains that you own to that of a teacher",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=_IMPORT,
        usage="%(prog)s STORE FILE… | --recipe RECIPE --teacher ID FILE… [KEY=VALUE …]",
    )
    command.add_argument("inputs", nargs="+", metavar="STORE FILE… | FILE… [KEY=VALUE …]")
    command.add_argument("--recipe", help="path of the recipe (TOML), whose store is used")
    command.add_argument("--teacher", metavar="ID", help="teacher of the recipe whose chains they are")
    return parser


_IMPORT = """Add chains to a pool. Importing a file twice changes nothing.

  import STORE FILE…
      What `export` wrote: the same rows under the same keys, in the pool that they are of.

  import --recipe RECIPE --teacher ID FILE… [KEY=VALUE …]
      Chains that you own: JSON lines, one JSON list (either gzipped) or Parquet, with rows as the engine `replay`
      reads them: {"question": … (or "id"), "thought": "cot", "completions": [ … ]}. A row may have finish_reason
      (stop or length), num_tokens, num_prompt_tokens and max_new_tokens, one for all completions or a list of one
      each; otherwise they count as ended by themselves, of unknown length, under the teacher's budget. They go under
      the prompts that the recipe would ask, and the recipe then samples only what is missing. You vouch that
      they come from this model under this distribution: nothing here can tell, and they are never told apart again
      but by their `source`."""


def _verify(store: Store, pool_id: str | None, set_aside: bool) -> Iterator[str]:
    lost = inventory.undescribed(store) if pool_id is None else []
    yield from lost
    is_whole = not lost
    for pool in inventory.chosen(store, pool_id):
        for finding in integrity.verify(pool, set_aside):
            is_whole = is_whole and not finding.is_problem
            yield finding.text
    if not is_whole:
        raise SystemExit(1)


def _import(recipe_path: str | None, teacher: str | None, inputs: list[str]) -> Iterator[str]:
    if (recipe_path is None) != (teacher is None):
        raise ValueError("import: expected --recipe and --teacher together, or neither")
    if recipe_path is None or teacher is None:
        if len(inputs) < 2:
            raise ValueError(f"import: got {inputs[0]!r} alone; expected STORE FILE…, or --recipe and --teacher")
        store = open_store(_absolute(inputs[0]))
        for file, done in imports.import_files(store, list(map(Path, inputs[1:]))):
            yield f"{file}: {done}"
        return
    overrides = [text for text in inputs if "=" in text and not Path(text).exists()]
    files = [text for text in inputs if text not in overrides]
    if not files:
        raise ValueError("import: expected a file")
    recipe = loading.load(recipe_path, overrides)
    is_of_use = True
    for file, done in importing.import_owned(recipe, open_store(recipe.store), teacher, files):
        yield f"{file}: {done}"
        is_of_use = is_of_use and bool(done.added or done.there)
    if not is_of_use:
        raise SystemExit(1)


_GC = """Refused while anything runs, samples or imports on the store, and for two minutes after its last sign of life
if it died on another machine."""


def store_commands(parser: argparse.ArgumentParser, arguments: list[str] | None) -> Iterator[str]:
    """`jobs/store.py`."""
    given = _store_parser(parser).parse_args(arguments)
    store = existing(given.store)
    if given.command == "runs":
        entries = gc.runs(store)
        made = [time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.created_at_s)) for entry in entries]
        rows = [
            (entry.id, entry.name, when, entry.artifacts, entry.lost, megabytes(entry.size))
            for entry, when in zip(entries, made, strict=True)
        ]
        yield from inventory.table(["run", "recipe", "made", "artifacts", "of these lost", "size"], rows)
        return
    yield from _gc(store, given)


def _gc(store: Store, given: argparse.Namespace) -> Iterator[str]:
    if not given.keep and not given.pool:
        raise ValueError("gc: expected --keep RUN…, or --pool POOL… to clean pools alone")
    if given.older_than < 0:
        raise ValueError(f"gc: --older-than {given.older_than:g}; expected days, at least 0")
    pools = [open_pool(store, pool_id) for pool_id in given.pool]
    with gc.alone_on(store) as now_s:
        yield from _clean(store, pools, given, now_s)


def _clean(store: Store, pools: Sequence[Pool], given: argparse.Namespace, now_s: float) -> Iterator[str]:
    going = gc.garbage(store, given.keep, given.older_than) if given.keep else []
    going += [each for pool in pools for each in gc.set_aside(pool, given.older_than)]
    going += gc.leftovers(store, now_s - given.older_than * gc.DAY_S)
    for each in going:
        if not given.dry_run:
            gc.remove(store, each)
        yield f"{each.prefix}  {megabytes(each.size)}  {each.why}"
    said = "would go" if given.dry_run else "gone"
    num_objects, size = sum(len(each.objects) for each in going), sum(each.size for each in going)
    young = f"; what is younger than {given.older_than:g} days stays (--older-than)" if given.older_than else ""
    yield f"{said}: {len(going)} artifacts, attempts or single objects, {num_objects} objects, {megabytes(size)}{young}"
    for pool in pools:
        done = gc.drop_never_read(pool, given.dry_run)
        sizes = megabytes(done.before) + ("" if given.dry_run else f", now {megabytes(done.after)}")
        yield f"{said}: {done.rows} rows of pool {pool.id} that no plan reads, in segments of {sizes}"


def _store_parser(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    told = "the runs of a store, and what each takes"
    command = commands.add_parser("runs", help=told, description=told)
    command.add_argument("store", metavar="STORE", help="path or s3:// address of the store")
    told = "delete the artifacts and checkpoints that no kept run names, and attempts that never ended; pools stay"
    command = commands.add_parser("gc", help=told, description=f"{told}. {_GC}")
    command.add_argument("store", metavar="STORE", help="path or s3:// address of the store")
    told = "runs that stay whole, with their reports: ids, as `runs` lists them, or addresses"
    command.add_argument("--keep", metavar="RUN", nargs="+", default=[], help=told)
    told = "pools that lose rows which no plan reads any more, and segments that were set aside"
    command.add_argument("--pool", metavar="POOL", nargs="+", default=[], help=told)
    told = "what is younger stays: a run may be under way (default 1)"
    command.add_argument("--older-than", metavar="DAYS", type=float, default=1.0, help=told)
    command.add_argument("--dry-run", action="store_true", help="print what would go, and delete nothing")
    return parser
