"""Runs a recipe up to its teachers' chains and their verdicts."""

from retort.command import main

if __name__ == "__main__":
    main(__doc__, until="sample")
