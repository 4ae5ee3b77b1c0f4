"""Hostile programs: each ends as an outcome within its limit, harms nothing, and the next program runs right.

The canaries are shown to be alive: outside the sandbox the same programs, on the same canaries, do their harm.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from attacks.canaries import Canaries
from attacks.driver import crowd
from attacks.table import ATTACKS, said
from retort.solvers import Outcome
from retort.solvers.zygote import RUN_REASONS, Limits, Sandbox

TESTS = Path(__file__).parent
SANE = ("ans = 6 * 7", Outcome("42", None))
HARMFUL = [name for name, attack in ATTACKS.items() if attack.touches]


@pytest.fixture(scope="module")
def sandboxes() -> Iterator[dict[float, Sandbox]]:
    """One for each limit of the table; their owner has many descriptors open."""
    descriptors = crowd()
    made = {
        timeout_s: Sandbox(Limits(timeout_s=timeout_s, memory_mib=256))
        for timeout_s in {attack.timeout_s for attack in ATTACKS.values()}
    }
    yield made
    for sandbox in made.values():
        sandbox.close()
    for descriptor in descriptors:
        os.close(descriptor)


@pytest.fixture
def canaries(tmp_path: Path) -> Iterator[Canaries]:
    made = Canaries(tmp_path / "canaries")
    yield made
    made.close()


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_ends_as_an_outcome_and_harms_nothing(
    name: str, sandboxes: dict[float, Sandbox], canaries: Canaries
) -> None:
    attack = ATTACKS[name]
    sandbox = sandboxes[attack.timeout_s]
    sandbox.run("import sympy" if "sympy" in attack.program else "")  # starts what is started on first need
    began = time.monotonic()
    outcome = sandbox.run(canaries.aim(attack.program))
    took_s = time.monotonic() - began
    assert said(outcome) in attack.outcomes
    assert outcome.reason is None or outcome.reason in RUN_REASONS
    assert took_s < attack.timeout_s + 1.5
    assert canaries.harm(said(outcome)) == []
    assert sandbox.run(SANE[0]) == SANE[1]


@pytest.mark.parametrize("name", HARMFUL)
def test_outside_the_sandbox_the_same_attack_does_harm(name: str, canaries: Canaries) -> None:
    program = canaries.aim(ATTACKS[name].program)
    shown = "print(globals().get('ans'))"
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\n{shown}"], capture_output=True, text=True, timeout=60, check=False
    )
    assert canaries.harm(done.stdout) != [], done.stderr


def test_the_table_has_enough_attacks_that_do_harm() -> None:
    assert len(ATTACKS) >= 60
    assert len(HARMFUL) >= 10


@pytest.mark.parametrize("user", ["as this user", "as a normal user"])
def test_without_namespaces_no_attack_succeeds_either(user: str, canaries: Canaries) -> None:
    programs = {name: (canaries.aim(attack.program), attack.timeout_s) for name, attack in ATTACKS.items()}
    # Our Python may lie where only root may look: the capability lets a normal user find it, and nothing else.
    to_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    to_nobody += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    is_nobody = user == "as a normal user" and os.geteuid() == 0
    done = subprocess.run(
        [*(to_nobody if is_nobody else []), sys.executable, "-m", "attacks.driver"],
        input=json.dumps(programs | {"a sane one": (SANE[0], 20)}),
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    layers, outcomes = json.loads(done.stdout)
    assert layers == [["seccomp", "rlimits"]]
    assert outcomes.pop("a sane one") == "= 42"
    wrong = {name: outcome for name, outcome in outcomes.items() if outcome not in ATTACKS[name].outcomes}
    assert wrong == {}
    assert canaries.harm(done.stdout) == []
