"""Runs a recipe from its problems to its report."""

from retort.command import main, up_to

if __name__ == "__main__":
    main(__doc__, up_to("report"))
