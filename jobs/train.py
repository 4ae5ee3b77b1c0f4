"""Runs a recipe up to its students' checkpoints."""

from retort.command import main, up_to

if __name__ == "__main__":
    main(__doc__, up_to("train"))
