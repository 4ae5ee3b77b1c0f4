"""Makes the models that ship with the package: `python -m retort.shipped.make OUT`, 25 minutes on two cores.

The teacher is a Llama that learned generated `arithmetic` stories in all thoughts, each under its own cue; the student
is a smaller one that has only read problem texts. Both share a byte-level BPE tokenizer, so that any text can be
encoded. README.md beside this file records what came out.
"""

import argparse
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from retort import prompts
from retort.records import Example
from retort.tasks import arithmetic
from retort.thoughts import cues
from retort.training.config import TrainingConfig
from retort.training.examples import tokenize
from retort.training.loop import fit
from retort.training.progress import StepMetrics

END = "<|end|>"
BATCH = 32
# Words take their leading space; digits and blanks stand alone, so that a number is the same tokens everywhere.
PIECES = Regex(r"\p{N}| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s")


def teacher_examples(count: int, seed: int) -> Iterator[Example]:
    """Training-split stories, each under one cue drawn at random."""
    rng = random.Random(seed)
    kinds = ("cot", "pot", "eot", "socratic", "sub_questions")
    for number, story in zip(range(count), arithmetic.stories("train", seed), strict=False):
        problem = story.problem("train", number)
        kind = rng.choices(kinds, weights=(10, 2, 2, 3, 2))[0]
        cue = getattr(cues, kind.upper())
        given = ["Steps:", *problem.steps] if kind == "sub_questions" else []
        target = {
            "cot": story.chain_of_thought(rng),
            "pot": story.program(),
            "eot": story.equations(),
            "socratic": story.socratic(),
            "sub_questions": story.socratic(),
        }[kind]
        yield Example(problem.id, "train", kind, 0, prompts.ask(prompts.body(problem), cue, given), target)


def student_examples(count: int, seed: int) -> Iterator[Example]:
    """Problem texts, each read twice, which teaches to copy and nothing else: no cue, no answer."""
    for number, story in zip(range(count), arithmetic.stories("train", seed), strict=False):
        target = f"{story.question}\nQuestion: {story.question}"
        yield Example(f"arithmetic/train/{number}", "train", "text", 0, "Question: ", target)


def make_tokenizer(texts: Iterator[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE with the words of the stories as single tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(PIECES, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=768, special_tokens=[END], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END)


def llama(tokenizer: Any, hidden: int, layers: int, seed: int) -> Any:
    """A random Llama with heads of 32, the smallest size that vLLM's CPU attention takes."""
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=hidden,
            intermediate_size=3 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=hidden // 32,
            max_position_embeddings=2048,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def train_model(model: Any, tokenizer: Any, examples: list[Example], config: TrainingConfig, out: Path) -> None:
    """Train, print the curve, save weights and tokenizer."""

    def show(row: StepMetrics) -> None:
        if row.step % 100 == 0:
            print(json.dumps(row.as_row()), flush=True)
        if row.step % 500 == 0:
            model.save_pretrained(out)

    tokenizer.save_pretrained(out)
    dev = tokenize(tokenizer, examples[-256:])
    print(f"{out.name}: {sum(parameter.numel() for parameter in model.parameters()):,} parameters", flush=True)
    fit(model, tokenize(tokenizer, examples[:-256]), dev, config, tokenizer.eos_token_id, torch.device("cpu"), show)
    model.save_pretrained(out)


def main() -> None:
    """Make tokenizer, student and teacher, in this order."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder for teacher/ and student/")
    parser.add_argument("--teacher-steps", type=int, default=3000)
    parser.add_argument("--student-steps", type=int, default=1000)
    args = parser.parse_args()
    texts = (example.prompt + example.target for example in teacher_examples(20_000, seed=1))
    tokenizer = make_tokenizer(texts)
    student = llama(tokenizer, hidden=96, layers=4, seed=2)
    texts = list(student_examples(BATCH * args.student_steps, seed=2))
    train_model(student, tokenizer, texts, training(args.student_steps), args.out / "student")
    teacher = llama(tokenizer, hidden=128, layers=4, seed=3)
    examples = list(teacher_examples(BATCH * args.teacher_steps + 256, seed=3))
    train_model(teacher, tokenizer, examples, training(args.teacher_steps), args.out / "teacher")


def training(steps: int) -> TrainingConfig:
    """What both models are trained with."""
    return TrainingConfig(
        steps=steps,
        batch_examples=BATCH,
        learning_rate=3e-3,
        warmup_steps=100,
        schedule="cosine",
        max_example_tokens=320,
        row_tokens=1280,
    )


if __name__ == "__main__":
    main()
