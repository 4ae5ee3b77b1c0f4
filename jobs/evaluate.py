"""Runs a recipe up to the scores of its models."""

from retort.command import main, up_to

if __name__ == "__main__":
    main(__doc__, up_to("evaluate"))
