"""Runs a recipe up to its corpora of selected examples."""

from retort.command import main

if __name__ == "__main__":
    main(__doc__, until="curate")
