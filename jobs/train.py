"""Runs a recipe up to its students' checkpoints."""

from retort.command import main

if __name__ == "__main__":
    main(__doc__, until="train")
