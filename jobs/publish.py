"""Writes a run's corpus or student as a folder with a card, and pushes it to a hub if asked."""

from retort.publishing import publish_commands
from retort.upkeep import main

if __name__ == "__main__":
    for line in main(__doc__, publish_commands):
        print(line, flush=True)
