"""A recipe with a sweep that takes seconds: a recorded teacher, students of a few steps that transformers samples."""

from pathlib import Path

from recordings import COUNTS, recipe, write_recording

NUM_CHAINS = 4
NUM_PROBLEMS = COUNTS["train"] + COUNTS["dev"]
STUDENT = """
[[student]]
id = "cot"
base = "shipped:student"
corpus = "chains"
engine = "hf"
training = { steps = 6, batch_examples = 4, learning_rate = 1e-3, dev_every = 2, num_workers = 0 }
[evaluation]
tasks = ["arithmetic"]
max_new_tokens = 8
"""
GRID = """
[sweep]
student = "cot"
max_concurrent = 2
[sweep.space]
selection.num_chains = [1, 4]
selection.rule = ["correct", "all"]
"""


def write_sweep(folder: Path, sweep: str = GRID, store: Path | None = None, wrong_share: float = 0.25) -> Path:
    """The recipe of a sweep in a folder, with its recording beside it."""
    recording = write_recording(folder / "rec.jsonl", NUM_CHAINS, wrong_share)
    path = folder / "sweep.toml"
    study = f'study = "sqlite:///{folder / "study.db"}"\n'
    path.write_text(
        recipe(recording, str(store or folder / "store"), NUM_CHAINS, student=STUDENT)
        + sweep.replace("[sweep]\n", f"[sweep]\n{study}")
    )
    return path
