"""Thoughts: formats of reasoning. One file a thought, one line in the dict.

A thought's module holds `CUE`, the line that asks for it; `read(text, problem, last_number, sandbox)`, the final answer
of a completion or the reason why it has none; and `gold(problem)`, the target that gold annotations alone give, or
None.
"""

from retort.thoughts import answer, cot, eot, pot, socratic

THOUGHTS = {"answer": answer, "cot": cot, "pot": pot, "eot": eot, "socratic": socratic}
