"""The sides of the training benchmarks, each in a process of its own that trains the same student from the same start.

    python tests/benchmarks/training_sides.py SIDE JOB

ours   `training.loop.fit`, each prompt computed once for all its chains that are in a step
plain  the same without sharing prompts
trl    TRL's SFTTrainer, the same examples in the same steps

Sides go step by step: a side takes its first step and says what it took, as one line of JSON; from then on it waits for
a line on its standard input before each next one. The loss of a step is the mean over its target tokens on each side.

TRL is set to what was fastest on two cores. Examples come tokenised and labelled, in rows packed best fit decreasing as
SFTTrainer packs them itself; they are handed over packed, step by step, so that a step has the examples that it has on
our sides. Attention is SDPA, the only one that trains on a CPU and keeps packed examples apart: by a mask over the
whole row. So a micro-batch is one row (TRL joins several to one long row, whose mask is larger) and a step accumulates
its rows, which are of 768 tokens: rows of 512 or 1024 took up to 7 % longer, of 256 or 2048 up to 17 %. AdamW is fused;
nothing is logged, saved, evaluated or computed twice. `torch.compile` gained either side less than 5 % and is off.
Padded batches of examples sorted by length, without packing, took 5 to 7 % less with 8 chains as long as their prompt.
On a CPU TRL scores every position, those of prompts too, and counts entropy and accuracy; no setting turns that off.
"""

import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from typing import Any, Literal, NamedTuple

from retort.training.config import TrainingConfig
from retort.training.drawing import draw_steps
from retort.training.examples import TokenizedExample

PAD, FIRST = 0, 2
"""The ids of padding, and of the first token that texts are made of."""
JITTER = 0.25
"""How far lengths stray from those of the job, to either side."""
RULE_TOKENS, NOISE = 64, 0.1
"""Of texts that can be learnt: their own vocabulary, and the share of tokens that do not follow from the one before."""


class Shape(NamedTuple):
    """A Llama's."""

    hidden_size: int
    num_hidden_layers: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int


STUDENTS = {
    "tiny": Shape(64, 2, 128, 2, 1, 256),
    "20M": Shape(512, 4, 2048, 8, 8, 6144),
    "0.5B": Shape(896, 24, 4864, 14, 2, 151_936),
    "1B": Shape(2048, 16, 8192, 32, 8, 128_256),
    "1.5B": Shape(1536, 28, 8960, 12, 2, 151_936),
}
"""The larger ones have the shapes of Qwen2.5-0.5B, Llama-3.2-1B and Qwen2.5-1.5B, all with random weights."""


class Step(NamedTuple):
    """What a side says of a step."""

    seconds: float
    cpu_seconds: float
    """Of all its threads, which others on the machine lengthen less."""
    loss: float
    mfu: float | None
    """As `training.speed` has it; None where nobody counts."""
    memory_bytes: int
    """The most in use so far, above what was when the student was loaded."""


@dataclass(frozen=True)
class Job:
    """What is trained on what. `num_groups` prompts with `num_chains` chains each make a step."""

    num_chains: int
    prompt_tokens: int
    chain_tokens: int
    num_groups: int
    steps: int
    student: str = "20M"
    is_learnable: bool = False
    learning_rate: float = 1e-4
    row_tokens: int = 768
    trl_row_tokens: int = 768
    device: str = "cpu"
    dtype: Literal["float32", "bfloat16"] = "float32"
    activation_checkpointing: bool = False
    compile: bool = False
    trl_attention: str = "sdpa"

    @property
    def config(self) -> TrainingConfig:
        """How we train; TRL's settings follow from it."""
        return TrainingConfig(
            steps=self.steps,
            batch_examples=self.num_groups * self.num_chains,
            group_chains=self.num_chains,
            learning_rate=self.learning_rate,
            max_example_tokens=self.row_tokens,
            row_tokens=self.row_tokens,
            dtype=self.dtype,
            activation_checkpointing=self.activation_checkpointing,
            compile=self.compile,
        )

    def examples(self) -> list[TokenizedExample]:
        """As many as all steps draw, each once."""
        draw = random.Random(0)
        write = _following(draw) if self.is_learnable else _any(draw, STUDENTS[self.student].vocab_size)

        def length(mean: int) -> int:
            return draw.randint(round(mean * (1 - JITTER)), round(mean * (1 + JITTER)))

        found: list[TokenizedExample] = []
        for number in range(self.steps * self.num_groups):
            prompt = write(length(self.prompt_tokens), FIRST)
            targets = [write(length(self.chain_tokens), prompt[-1]) for _ in range(self.num_chains)]
            found += [TokenizedExample(f"{number:06d}", "cot", prompt, target) for target in targets]
        return found

    def drawn(self) -> list[list[TokenizedExample]]:
        """The examples of each step, as `fit` draws them."""
        return list(islice(draw_steps(self.examples(), self.config), self.steps))


Writer = Callable[[int, int], tuple[int, ...]]
"""Writes so many tokens behind a token."""


def _any(draw: random.Random, vocabulary: int) -> Writer:
    """Random tokens: there is nothing to learn."""
    return lambda count, _: tuple(draw.choices(range(FIRST, vocabulary), k=count))


def _following(draw: random.Random) -> Writer:
    """Tokens that mostly follow from the one before."""
    tokens = range(FIRST, FIRST + RULE_TOKENS)
    follows = dict(zip(tokens, draw.sample(tokens, RULE_TOKENS), strict=True))

    def write(count: int, before: int) -> tuple[int, ...]:
        made = [before]
        for _ in range(count):
            made.append(draw.choice(tokens) if draw.random() < NOISE else follows[made[-1]])
        return tuple(made[1:])

    return write


class Turns:
    """Ends a step, says what it took, and waits to be told to take the next."""

    def __init__(self, job: Job, answers: Any) -> None:
        import torch

        from retort.training import speed

        self._device, self._answers, self._left = torch.device(job.device), answers, job.steps
        speed.forget_peak_memory(self._device)
        self._loaded = self._used()
        self._begin()

    def _begin(self) -> None:
        self._began, self._cpu_began = time.perf_counter(), time.process_time()

    def _used(self) -> int:
        import psutil
        import torch

        if self._device.type == "cuda":
            return torch.cuda.memory_allocated(self._device)
        return psutil.Process().memory_info().rss

    def end_step(self, loss: float, mfu: float | None = None) -> None:
        """A step is over; comes back when the next is to begin."""
        import torch

        from retort.training.speed import peak_memory

        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        took = time.perf_counter() - self._began, time.process_time() - self._cpu_began
        step = Step(*took, loss, mfu, peak_memory(self._device) - self._loaded)
        print(json.dumps(step._asdict()), file=self._answers, flush=True)
        self._left -= 1
        if self._left and not sys.stdin.readline():
            sys.exit("nobody asks for the next step")
        self._begin()


def student(job: Job) -> Any:
    """The model, the same wherever it is made."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        **STUDENTS[job.student]._asdict(),
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=PAD,
    )
    model: Any = LlamaForCausalLM(config)
    return model.to(job.device)


def ours(job: Job, answers: Any, share_prompts: bool = True) -> None:
    """What we built, without Ray."""
    import torch

    from retort.training.loop import fit

    model, examples = student(job), job.examples()
    config = job.config.model_copy(update={"share_prompts": share_prompts})
    turns = Turns(job, answers)
    fit(model, examples, [], config, PAD, torch.device(job.device), lambda row: turns.end_step(row.loss, row.mfu))


def plain(job: Job, answers: Any) -> None:
    """The same, each prompt computed for each of its chains."""
    ours(job, answers, share_prompts=False)


def trl(job: Job, answers: Any) -> None:
    """TRL's trainer."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl.trainer.sft_trainer import SFTTrainer

    model = student(job)
    model.set_attn_implementation(job.trl_attention)
    steps = [packed(step, job.trl_row_tokens) for step in job.drawn()]
    most = max(map(len, steps))
    rows = Dataset.from_list([row for step in steps for row in evened(step, most)])
    turns = Turns(job, answers)

    class Turning(TrainerCallback):
        total = 0.0

        def on_step_end(self, *_: Any, **__: Any) -> None:
            before, self.total = self.total, trainer._tr_loss.item()
            turns.end_step(self.total - before)

    arguments = settings(job, most)
    trainer = SFTTrainer(model, arguments, train_dataset=rows, processing_class=tokenizer(), callbacks=[Turning()])
    trainer.train()


def settings(job: Job, num_rows: int) -> Any:
    """TRL's settings, where a step has so many rows."""
    from trl.trainer.sft_config import SFTConfig

    config, is_gpu = job.config, job.device == "cuda"
    return SFTConfig(
        output_dir=tempfile.gettempdir(),
        max_steps=config.steps,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=num_rows,
        packing=True,
        packing_strategy="bfd",
        max_length=job.trl_row_tokens,
        dataset_kwargs={"skip_prepare_dataset": True},
        train_sampling_strategy="sequential",
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.schedule,
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        adam_epsilon=config.adam_epsilon,
        max_grad_norm=config.max_grad_norm,
        optim="adamw_torch_fused",
        gradient_checkpointing=job.activation_checkpointing,
        torch_compile=job.compile,
        use_liger_kernel=is_gpu and find_spec("liger_kernel") is not None,
        bf16=job.dtype == "bfloat16",
        use_cpu=not is_gpu,
        dataloader_pin_memory=is_gpu,
        logging_strategy="no",
        save_strategy="no",
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


def packed(examples: Sequence[TokenizedExample], row_tokens: int) -> list[dict[str, Any]]:
    """The rows of a step as TRL packs them; prompts have no labels."""
    from datasets import Dataset
    from trl.data_utils import pack_dataset

    columns = {
        "input_ids": [[*each.prompt_ids, *each.target_ids] for each in examples],
        "labels": [[-100] * len(each.prompt_ids) + [*each.target_ids] for each in examples],
    }
    return pack_dataset(Dataset.from_dict(columns), row_tokens, "bfd").to_list()


def evened(rows: Sequence[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """As many rows as every step has, because Trainer accumulates as many in each: those of most examples are cut."""
    made = list(rows)
    while len(made) < count:
        row = max(made, key=lambda row: len(row["seq_lengths"]))
        made.remove(row)
        half = len(row["seq_lengths"]) // 2
        tokens = sum(row["seq_lengths"][:half])
        for part, lengths in ((slice(tokens), slice(half)), (slice(tokens, None), slice(half, None))):
            ids = {name: row[name][part] for name in ("input_ids", "labels")}
            made.append({**ids, "seq_lengths": row["seq_lengths"][lengths]})
    return made


def tokenizer() -> Any:
    """One that TRL asks for its padding, and for nothing else."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel({"[PAD]": PAD, "[UNK]": 1}, "[UNK]"))
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]")


SIDES: dict[str, Callable[[Job, Any], None]] = {"ours": ours, "plain": plain, "trl": trl}


def main(arguments: Sequence[str]) -> None:
    """Run one side."""
    import torch

    side, job = arguments[0], Job(**json.loads(arguments[1]))
    if job.device == "cpu":
        torch.set_num_threads(len(os.sched_getaffinity(0)))
    # What libraries print goes where warnings go: answers are alone on standard output.
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        SIDES[side](job, answers)


if __name__ == "__main__":
    main(sys.argv[1:])
