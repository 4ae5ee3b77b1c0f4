"""A sweep against its trials one by one, each as a run of its own that starts from an empty store.

    python tests/benchmarks/bench_sweep.py [--rounds N]

Eight trials of the shipped models: four sample counts, filtered by gold answers and label-free. All train for as many
steps and answer the same problems. The sweep samples once for the largest count, and runs two trials at a time.
"""

import argparse
import itertools
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import table

ROOT = Path(__file__).resolve().parents[2]
COUNTS = (1, 2, 4, 8)
RULES = ("correct", "all")
RECIPE = """
name = "bench"
[[task]]
id = "arithmetic"
train = 200
dev = 20
test = 50
largest = 12
[[teacher]]
id = "tiny"
engine = "vllm"
model = "shipped:teacher"
dtype = "float32"
temperature = 1.3
max_new_tokens = 96
num_chains = 8
[[corpus]]
id = "chains"
tasks = ["arithmetic"]
teachers = ["tiny"]
thoughts = ["cot"]
[[student]]
id = "cot"
base = "shipped:student"
corpus = "chains"
engine = "hf"
training = { steps = 200, batch_examples = 16, learning_rate = 3e-3, max_example_tokens = 256, num_workers = 0 }
[evaluation]
tasks = ["arithmetic"]
max_new_tokens = 96
"""
SWEEP = f"""
[sweep]
student = "cot"
max_concurrent = 2
[sweep.space]
selection.num_chains = {list(COUNTS)}
selection.rule = {list(RULES)}
"""


def seconds(job: str, recipe: str, folder: Path, *overrides: str) -> float:
    """Time a job from an empty store, from its command to its end."""
    folder.mkdir()
    file = folder / "recipe.toml"
    file.write_text(recipe)
    command = [sys.executable, f"jobs/{job}.py", str(file), f"store={folder / 'store'}", *overrides]
    began = time.monotonic()
    with (folder / "log").open("w") as log:
        subprocess.run(command, cwd=ROOT, stdout=log, stderr=log, check=True)
    return time.monotonic() - began


def main() -> None:
    """Time both, in turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=table.FOLDER)
    arguments = parser.parse_args()
    alone: list[float] = []
    together: list[float] = []
    for number in range(arguments.rounds):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            study = f'sweep.study="sqlite:///{folder / "study.db"}"'
            together.append(seconds("sweep", RECIPE + SWEEP, folder / "sweep", study))
            print(f"round {number + 1}: sweep {together[-1]:.0f} s", flush=True)
            total = 0.0
            for count, rule in itertools.product(COUNTS, RULES):
                chosen = f'corpus.chains.selection={{num_chains={count}, rule="{rule}"}}'
                spent = seconds("distill", RECIPE, folder / f"{rule}-{count}", chosen)
                total += spent
                print(f"round {number + 1}: {rule}, {count} chains, alone {spent:.0f} s", flush=True)
            alone.append(total)
    name = f"sweep of {len(COUNTS) * len(RULES)} trials: one by one from scratch / sweep"
    table.write("sweep", [table.of_pairs(name, None, alone, together)], arguments.out)


if __name__ == "__main__":
    main()
