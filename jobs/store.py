"""Lists the runs of a store, and deletes what no kept run needs."""

from retort.upkeep import main, store_commands

if __name__ == "__main__":
    for line in main(__doc__, store_commands):
        print(line, flush=True)
