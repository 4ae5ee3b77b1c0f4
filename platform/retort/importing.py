"""Chains owned from elsewhere, into the pool of a teacher: the recipe then finds them, and samples only the rest.

Rows in: `owned.Row`. Rows out: `Chain`, under the prompts that the recipe would ask the teacher on that question. A
completion gets the first index of its prompt that is not durable. Its `source` says file, content and place
(`chains.jsonl@4c1f0a2b3c4d#17` is the 17th completion of a file), by which a second import knows what is there. Whoever
imports vouches that the completions are this teacher's, under its distribution, to these prompts: nothing can tell.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import time
from typing import NamedTuple

from retort import owned
from retort.config import Recipe, Teacher, expected
from retort.engines.interface import until_stop
from retort.engines.replay import question_key
from retort.planning import teacher_plans
from retort.records import Chain
from retort.run import prepare
from retort.store import Store
from retort.store.hashing import digest_file
from retort.store.imports import BATCH, alone_in
from retort.store.plan import PlannedPrompt, request_of
from retort.store.pool import PARTITIONS, Pool, answers, partition_of
from retort.tasks.source import existing_file

FLUSH_CHAINS = 10_000
"""Chains that wait to be written together: some tens of megabytes, in segments of several hundred."""


@dataclass
class Imported:
    """What became of a file's completions. Several prompts may ask one question: each then gets its completions."""

    pool: Pool
    completions: int = 0
    added: int = 0
    there: int = 0
    cut: int = 0
    """Of the added ones, those whose text went on after a stop string of the teacher."""
    unmatched: Counter[str] = field(default_factory=Counter[str])
    """Completions that no prompt asks for, by reason."""
    first: dict[str, str] = field(default_factory=dict[str, str])
    """Place of the first row with each reason."""

    def __str__(self) -> str:
        told = f"{self.completions} completions: {self.added} chains added to pool {self.pool.id}, "
        told += f"{self.there} there already" + (f", {self.cut} cut at a stop string" if self.cut else "")
        return told + "".join(
            f"; {count} not imported: {reason} (first: {self.first[reason]})"
            for reason, count in self.unmatched.items()
        )


class Asked(NamedTuple):
    """A prompt that the recipe asks, and the token budget of its chains."""

    prompt: PlannedPrompt
    max_new_tokens: int


class Prompts:
    """The prompts of a teacher, found by question or id as a file names them."""

    def __init__(self, pool: Pool, asked: Sequence[Asked]) -> None:
        self.pool = pool
        self.by_hash = {each.prompt.prompt_hash: each for each in asked}
        self._by_name: dict[tuple[str, str], list[Asked]] = defaultdict(list)
        for each in self.by_hash.values():
            problem = each.prompt.problem
            for name in {question_key(text) for text in (problem.question, problem.id, problem.id.split("/", 2)[2])}:
                self._by_name[name, each.prompt.thought].append(each)
        self._names = {name for name, _ in self._by_name}

    def find(self, name: str, thought: str) -> list[Asked] | str:
        """Those that ask a question (or the problem with that id), or why there is none."""
        key = question_key(name)
        found = self._by_name.get((key, thought), [])
        if len({question_key(each.prompt.problem.question) for each in found}) > 1:
            return "an id of several problems; expected the question, or task/split/id"
        if not found and key in self._names:
            thoughts = sorted({of for of_name, of in self._by_name if of_name == key})
            return f"the recipe does not ask this teacher for {thought!r}: {expected(thought, thoughts)}"
        return found or "the recipe does not ask this question"


class Present:
    """What a pool holds of some prompts: indices as the bits of a number, and completions of files by number.

    Bits, since a plan's prompts fit in memory, and its chains need not.
    """

    def __init__(self, prompts: Prompts, files: Sequence[str]) -> None:
        self._taken = dict.fromkeys(prompts.by_hash, 0)
        self._done: dict[str, set[tuple[str, int]]] = {file: set() for file in files}
        names = ("prompt_hash", "index", "finish_reason", "max_new_tokens", "source")
        for partition in PARTITIONS:
            for table in prompts.pool.tables(partition, list(names)):
                # Rows of the schema version before this one have no source.
                columns = [
                    table[name].to_pylist() if name in table.column_names else [""] * len(table) for name in names
                ]
                for prompt_hash, index, reason, budget, source in zip(*columns, strict=True):
                    asked = prompts.by_hash.get(prompt_hash)
                    if asked is not None:
                        is_done = self._note(asked.prompt.prompt_hash, source)
                        if is_done or answers(reason, budget, asked.max_new_tokens):
                            self._taken[prompt_hash] |= 1 << index

    def has(self, prompt_hash: str, file: str, number: int) -> bool:
        """Whether a completion of a file was imported before."""
        return (prompt_hash, number) in self._done[file]

    def take(self, prompt_hash: str) -> int:
        """The first index of a prompt that is free; from now on it is taken."""
        taken = self._taken[prompt_hash]
        index = (~taken & (taken + 1)).bit_length() - 1  # its lowest bit that is 0
        self._taken[prompt_hash] = taken | 1 << index
        return index

    def _note(self, prompt_hash: str, source: str) -> bool:
        """Keep a row that came from one of the files, and say whether it did. The name of a file may have changed."""
        file, _, number = source.rpartition("@")[2].partition("#")
        if file not in self._done or not number.isdecimal():
            return False
        self._done[file].add((prompt_hash, int(number)))
        return True


def import_owned(
    recipe: Recipe, store: Store, teacher_id: str, paths: Sequence[str]
) -> Iterator[tuple[Path, Imported]]:
    """Add the completions of files to the pool of a teacher, file by file.

    Raises:
        ValueError: no such teacher, or the recipe asks nothing of it; a file that cannot be read or holds a malformed
            row, with its place and field; a pool that is being sampled.
    """
    teachers = {teacher.id: teacher for teacher in recipe.teacher}
    if teacher_id not in teachers:
        raise ValueError(f"recipe {recipe.name} has no teacher {teacher_id!r}: {expected(teacher_id, teachers)}")
    teacher = teachers[teacher_id]
    files = [Path(existing_file(path)) for path in paths]
    for file in files:
        for _ in owned.read(file):  # a malformed row is found before anything is written
            pass
    prompts = asked_prompts(recipe, store, teacher)
    contents = [digest_file(file)[:12] for file in files]
    prompts.pool.describe()
    with alone_in(prompts.pool, PARTITIONS):
        present = Present(prompts, contents)
        for file, content in zip(files, contents, strict=True):
            yield file, _import_file(file, content, prompts, present, teacher.stop)


def asked_prompts(recipe: Recipe, store: Store, teacher: Teacher) -> Prompts:
    """What a recipe asks of a teacher under the teacher's own distribution. Raises ValueError where that is nothing."""
    pool = teacher.model.pool(store, teacher.distribution)
    plans = [plan for plan, _ in teacher_plans(prepare(recipe, store), teacher, with_references=True).values()]
    # Chains of another distribution, such as the greedy one of a test, are another pool's.
    asked = [Asked(prompt, plan.max_new_tokens) for plan in plans if plan.pool.id == pool.id for prompt in plan.prompts]
    if not asked:
        raise ValueError(
            f"recipe {recipe.name} asks nothing of teacher {teacher.id!r}; expected a corpus of its chains"
        )
    return Prompts(pool, asked)


def _import_file(path: Path, content: str, prompts: Prompts, present: Present, stop: Sequence[str]) -> Imported:
    done = Imported(prompts.pool)
    waiting: dict[str, list[Chain]] = defaultdict(list)
    for row in owned.read(path):
        done.completions += len(row.completions)
        found = prompts.find(row.name, row.thought)
        if isinstance(found, str):
            done.unmatched[found] += len(row.completions)
            done.first.setdefault(found, row.place)
            continue
        for asked in found:
            prompt_hash = asked.prompt.prompt_hash
            for completion in row.completions:
                if present.has(prompt_hash, content, completion.number):
                    done.there += 1
                    continue
                source = f"{path.name}@{content}#{completion.number}"
                chain, is_cut = _chain(asked, present.take(prompt_hash), completion, source, stop)
                waiting[partition_of(prompt_hash)].append(chain)
                done.added, done.cut = done.added + 1, done.cut + is_cut
        if sum(map(len, waiting.values())) >= FLUSH_CHAINS:
            _flush(prompts.pool, waiting)
    _flush(prompts.pool, waiting)
    return done


def _flush(pool: Pool, waiting: dict[str, list[Chain]]) -> None:
    for partition in sorted(waiting):
        pool.append(BATCH, waiting.pop(partition))


def _chain(
    asked: Asked, index: int, completion: owned.Completion, source: str, stop: Sequence[str]
) -> tuple[Chain, bool]:
    """A completion as a chain of a prompt, and whether it was cut at a stop string, as its model would have been."""
    request = request_of(asked.prompt, index, completion.max_new_tokens or asked.max_new_tokens)
    text, ended_by = until_stop(completion.text, stop)
    is_cut = ended_by is not None
    chain = Chain(
        prompt_hash=request.prompt_hash,
        index=index,
        prompt=request.prompt,
        text=text,
        finish_reason="stop" if is_cut else completion.finish_reason,
        num_prompt_tokens=completion.num_prompt_tokens,
        num_tokens=0 if is_cut else completion.num_tokens,
        max_new_tokens=request.max_new_tokens,
        seed=request.seed,
        problem_id=request.problem_id,
        thought=request.thought,
        finished_at_s=time(),
        source=source,
    )
    return chain, is_cut
