"""Runs the trials of a recipe's [sweep] table, then the recipe, to one report; what was done before is found."""

from retort.command import SWEEP, main

if __name__ == "__main__":
    main(__doc__, SWEEP)
