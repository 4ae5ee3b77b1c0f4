"""Thoughts: formats of reasoning. One file a thought, one line in the dict.

A thought's module holds `CUE`, the line that asks for it; `answer_in(text, problem, last_number)`, the final answer in
a completion as it is written there, or None; and `gold(problem)`, the target that gold labels alone give, or None.
"""

from retort.thoughts import answer, cot

THOUGHTS = {"answer": answer, "cot": cot}
