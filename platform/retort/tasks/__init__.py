"""Tasks: data sets with the meaning of their answers. One file a task, one line in the dict.

A task's module holds `Config` (its fields of a `[[task]]`) and `load(config)`, which gives its problems in order.
"""

from retort.tasks import arithmetic, gsm8k, jsonl, multiarith, svamp

TASKS = {"arithmetic": arithmetic, "gsm8k": gsm8k, "svamp": svamp, "multiarith": multiarith, "jsonl": jsonl}
