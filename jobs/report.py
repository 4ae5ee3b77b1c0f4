"""Makes the page of a recipe; earlier stages are found, or run.

report.py RECIPE [KEY=VALUE …]    the report of a recipe's run
report.py RUN RUN…                one page that compares runs, named by the addresses that jobs print
"""

import sys

from retort import command, upkeep
from retort.report.versus import names_runs, versus_commands

if __name__ == "__main__":
    if names_runs(sys.argv[1:]):
        for line in upkeep.main(__doc__, versus_commands):
            print(line, flush=True)
    else:
        command.main(__doc__, command.up_to("report"))
