"""What all sides of a sampling benchmark are asked, and how their outcome is measured.

The model is a Llama of 20 million random parameters over bytes, without an end token, so that lengths are what we say:
`fixed`, or `heavy`, where each chain ends by itself after a number of tokens drawn from a lognormal distribution by the
seed of its request. A side leaves segments of the same Parquet rows in a store of its own, each synced. What it took is
read off these files and a mark that it makes when it hands its loaded engine the first request, not off its word.
"""

import contextlib
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pyarrow.parquet as pq
from table import FOLDER

from retort.engines import vllm
from retort.engines.interface import Completion, SamplingDistribution
from retort.prompts import Messages
from retort.records import Chain, FinishReason, Problem, Request
from retort.sampling import plan
from retort.store.plan import Plan, distinct, request_of
from retort.store.pool import Pool

Lengths = Literal["fixed", "heavy"]
Key = tuple[str, int]

DISTRIBUTION = SamplingDistribution(temperature=1.0)
CHAINS_PER_PROBLEM = 8
MAX_NEW_TOKENS: dict[str, int] = {"fixed": 32, "heavy": 256}
MEDIAN_TOKENS, SIGMA = 16, 1.0
"""Of heavy lengths: 26 tokens on average, one chain in 360 is cut off at 16 times the median."""


@dataclass(frozen=True)
class Workload:
    """So many chains of made-up problems; another seed makes other problems."""

    lengths: Lengths
    num_chains: int
    seed: int

    def plan(self, pool: Pool) -> Plan:
        """The chains, as a plan of a pool."""
        count = -(-self.num_chains // CHAINS_PER_PROBLEM)
        budget = MAX_NEW_TOKENS[self.lengths]
        return plan(problems(count, self.seed), "cot", pool, CHAINS_PER_PROBLEM, budget, lambda each, _: each.question)

    def requests(self, pool: Pool) -> list[Request]:
        """The chains, as requests in the order of their plan."""
        return requests_of(self.plan(pool))


def requests_of(planned: Plan) -> list[Request]:
    """All chains of a plan."""
    prompts = [prompt for partition in planned.partitions.values() for prompt in distinct(partition)]
    return [request_of(each, index, planned.max_new_tokens) for each in prompts for index in range(each.num_chains)]


def problems(count: int, seed: int) -> list[Problem]:
    """Small sums, all different."""
    draw = random.Random(seed)
    made: list[Problem] = []
    for number in range(count):
        one, two = draw.randint(10, 99), draw.randint(10, 99)
        question = f"{seed}.{number}: what is {one} + {two}?"
        made.append(
            Problem(f"sums/train/{seed}-{number:06d}", "sums", "train", question, "number", answer=str(one + two))
        )
    return made


def ending(request: Request, lengths: Lengths) -> tuple[int, FinishReason]:
    """How many tokens the chain of a request has, and why it ends there."""
    tokens = request.max_new_tokens
    if lengths == "heavy":
        tokens = 1 + int(MEDIAN_TOKENS * random.Random(request.seed).lognormvariate(0, SIGMA))
    return (tokens, "stop") if tokens < request.max_new_tokens else (request.max_new_tokens, "length")


class Config(vllm.Config):
    """Settings of the real engine, and where it leaves its mark."""

    lengths: Lengths = "fixed"
    mark: str = ""


class Engine(vllm.Engine):
    """The real engine under our sampler. Its chains end where they are to end."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._settings = config
        self._is_asked = False

    async def complete(
        self, prompt: str | Messages, request: Request, distribution: SamplingDistribution
    ) -> Completion:
        if not self._is_asked:
            self._is_asked = True
            mark(Path(self._settings.mark))
        tokens, reason = ending(request, self._settings.lengths)
        completion = await super().complete(prompt, replace(request, max_new_tokens=tokens), distribution)
        return completion._replace(finish_reason=reason)


def mark(path: Path) -> None:
    """Say that the first request is handed over now."""
    with contextlib.suppress(FileExistsError):
        path.touch(exist_ok=False)


def engine_config(lengths: Lengths, folder: Path, model: Path, max_num_seqs: int = 256) -> Config:
    """The settings of every side's engine."""
    where = str(mark_of(folder))
    return Config(model=str(model), dtype="bfloat16", max_num_seqs=max_num_seqs, lengths=lengths, mark=where)


def mark_of(folder: Path) -> Path:
    """The mark of a side that writes to a folder."""
    return folder / "first"


def durable_s(folder: Path, work: Workload, requests: Sequence[Request]) -> list[float]:
    """Seconds from the first request to the moment when each chain was durable, in order.

    Raises:
        ValueError: a side did not do the work: a chain is missing, comes twice, or has not its length.
    """
    wanted = {(request.prompt_hash, request.index): ending(request, work.lengths)[0] for request in requests}
    began = mark_of(folder).stat().st_ctime
    found: Counter[Key] = Counter()
    seconds: list[float] = []
    for path, keys in segments(folder):
        for key, tokens in keys:
            found[key] += 1
            if wanted.get(key) != tokens:
                raise ValueError(f"{path}: chain {key} has {tokens} tokens; expected {wanted.get(key)}")
        # The name of a segment is the last that is written, after its bytes are synced.
        seconds += [path.stat().st_ctime - began] * len(keys)
    if found.keys() != wanted.keys() or max(found.values()) > 1:
        raise ValueError(f"{folder}: {found.total()} chains, {len(found)} of them distinct; expected {len(wanted)}")
    return sorted(seconds)


def segments(folder: Path) -> Iterator[tuple[Path, list[tuple[Key, int]]]]:
    """Every segment that a side left, with the keys and token counts of its chains."""
    for path in sorted(folder.rglob("*.parquet")):
        rows = pq.read_table(path, columns=["prompt_hash", "index", "num_tokens"]).to_pylist()
        yield path, [((row["prompt_hash"], row["index"]), row["num_tokens"]) for row in rows]


def chain_of(request: Request, text: str, num_prompt_tokens: int, num_tokens: int, finished_at_s: float) -> Chain:
    """The row that every side writes."""
    return Chain(
        prompt_hash=request.prompt_hash,
        index=request.index,
        prompt=request.prompt,
        text=text,
        finish_reason="stop" if num_tokens < request.max_new_tokens else "length",
        num_prompt_tokens=num_prompt_tokens,
        num_tokens=num_tokens,
        max_new_tokens=request.max_new_tokens,
        seed=request.seed,
        problem_id=request.problem_id,
        thought=request.thought,
        finished_at_s=finished_at_s,
    )


def llama(hidden_size: int = 512, num_layers: int = 6, folder: Path = FOLDER) -> Path:
    """The model: 20 million parameters (512 x 6), or fewer; made once."""
    path = folder / f"llama-{hidden_size}x{num_layers}"
    if not (path / "config.json").is_file():
        _make(path, hidden_size, num_layers)
    return path


def _make(path: Path, hidden_size: int, num_layers: int) -> None:
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={char: number for number, char in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(path)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(alphabet),
        hidden_size=hidden_size,
        intermediate_size=3 * hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=hidden_size // 64,
        num_key_value_heads=hidden_size // 64,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        eos_token_id=None,
        bos_token_id=None,
        pad_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(path)
