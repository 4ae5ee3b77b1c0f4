"""Publishing: a run's corpus or student as a folder that others open without retort, with a card that says what it is.

corpus   README.md, data/train.parquet, data/validation.parquet    datasets.load_dataset(FOLDER)
student  README.md, and the files of the checkpoint                AutoModelForCausalLM.from_pretrained(FOLDER)
"""

from retort.publishing.command import publish_commands

__all__ = ["publish_commands"]
