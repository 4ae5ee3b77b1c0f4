"""Selection: which problems and which of their chains are learned from. Verdicts in, a corpus of examples out.

A problem may be left out (`rules.left_out`). Of the chains of the others a rule says which qualify (`rules.select`), a
pick puts these in order (`picks`), and budgets take the first of the order (`budgets`). `curate` does it with Ray Data.
"""

from retort.selection.config import SelectionConfig
from retort.selection.corpus import VERSION, curate, select_group
from retort.selection.examples import example, label
from retort.selection.rules import left_out, select

__all__ = ["VERSION", "SelectionConfig", "curate", "example", "label", "left_out", "select", "select_group"]
