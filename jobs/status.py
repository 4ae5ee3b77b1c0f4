"""Tells what runs on a store, what was done, what it cost, and what failed and why."""

from retort.status import status_commands
from retort.upkeep import main

if __name__ == "__main__":
    for line in main(__doc__, status_commands):
        print(line, flush=True)
