"""Tasks: data sets with the meaning of their answers. One file a task, one line in the dict.

A task's module holds `Config` (its fields of a `[[task]]`), `load(config)`, which gives its problems in order, and
`LICENCE`, what is known of that of its data, with the source.
"""

from retort.tasks import (
    arithmetic,
    asdiv,
    commonsense_qa,
    gsm8k,
    imdb_contrast,
    jsonl,
    multiarith,
    openbookqa,
    quarel,
    strategyqa,
    svamp,
)

TASKS = {
    "arithmetic": arithmetic,
    "gsm8k": gsm8k,
    "svamp": svamp,
    "asdiv": asdiv,
    "multiarith": multiarith,
    "strategyqa": strategyqa,
    "commonsense_qa": commonsense_qa,
    "openbookqa": openbookqa,
    "quarel": quarel,
    "imdb_contrast": imdb_contrast,
    "jsonl": jsonl,
}
