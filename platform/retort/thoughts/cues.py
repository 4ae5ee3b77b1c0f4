"""The line that asks for each thought. `cot`, `pot` and `eot` are ETD's own, byte for byte (the apostrophes differ)."""

ANSWER = "Answer with the result only."
COT = "Let's think step by step."
POT = "Let’s break down the code step by step"
EOT = "System of linear equations: (Do not simplify)"
SOCRATIC = "Let's ask and answer sub-questions."
SUB_QUESTIONS = "Let's ask a sub-question for each step."
