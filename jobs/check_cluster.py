"""Says what a cluster file still lacks, whether a recipe finds room on it, and what an hour costs."""

from retort.cluster.check import cluster_commands
from retort.upkeep import main

if __name__ == "__main__":
    for line in main(__doc__, cluster_commands):
        print(line, flush=True)
