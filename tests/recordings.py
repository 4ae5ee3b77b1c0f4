"""Recordings of the arithmetic task for the replay engine, written by the tests that play them back."""

import itertools
import json
import random
from pathlib import Path

from retort.tasks import arithmetic

COUNTS = {"train": 40, "dev": 8, "test": 10}
SHIPPED = 'engine = "vllm"\nmodel = "shipped:teacher"\ndtype = "float32"\nmax_num_seqs = 32'


def write_recording(path: Path, num_chains: int, wrong_share: float = 0.25, seed: int = 0) -> Path:
    """Gold chains of the first stories of every split, some with a wrong answer at the end."""
    rng = random.Random(seed)
    with path.open("w") as file:
        for split, count in COUNTS.items():
            for story in itertools.islice(arithmetic.stories(split, 0), count):  # type: ignore[arg-type]
                completions = [_completion(story, rng, wrong_share) for _ in range(num_chains)]
                file.write(
                    json.dumps({"question": story.question, "thought": "cot", "completions": completions}) + "\n"
                )
    return path


def _completion(story: arithmetic.Story, rng: random.Random, wrong_share: float) -> str:
    text = story.chain_of_thought(rng)
    if rng.random() < wrong_share:
        text = text.replace(f"The answer is {story.answer}.", f"The answer is {story.answer + 1}.")
    return text


def recipe(recording: Path | None, store: str, num_chains: int, **extra: str) -> str:
    """A recipe, as TOML, that samples a teacher `rec` for one corpus of chains, and has one of labels.

    The teacher is the recording, or the shipped one on the real engine where there is none.
    """
    engine = SHIPPED if recording is None else f'engine = "replay"\npaths = ["{recording}"]'
    return f"""
name = "test"
store = "{store}"
[[task]]
id = "arithmetic"
train = {COUNTS["train"]}
dev = {COUNTS["dev"]}
test = {COUNTS["test"]}
[[teacher]]
id = "rec"
{engine}
temperature = 1.0
max_new_tokens = 96
num_chains = {num_chains}
[[corpus]]
id = "chains"
tasks = ["arithmetic"]
teachers = ["rec"]
thoughts = ["cot"]
[[corpus]]
id = "labels"
tasks = ["arithmetic"]
thoughts = ["answer"]
""" + "\n".join(extra.values())
