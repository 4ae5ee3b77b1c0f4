"""Shows, verifies, compacts and exports the pools of a store; imports chains that were exported, or that you own."""

from retort.upkeep import main, pool_commands

if __name__ == "__main__":
    for line in main(__doc__, pool_commands):
        print(line, flush=True)
