"""Runs a recipe from its problems to its report."""

from retort.command import main

if __name__ == "__main__":
    main(__doc__, until="report")
