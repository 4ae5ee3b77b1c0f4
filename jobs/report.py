"""Makes the page of a recipe; earlier stages are found, or run."""

from retort.command import main

if __name__ == "__main__":
    main(__doc__, until="report")
