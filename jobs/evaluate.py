"""Runs a recipe up to the scores of its models."""

from retort.command import main

if __name__ == "__main__":
    main(__doc__, until="evaluate")
