"""optuna-dashboard on a sweep's study, in a real browser, while the study grows."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from retort.sweep.study import merged, rebuild
from test_metrics import OPENER, ended, until
from test_report import chromium
from test_sweep_study import ROWS, config

DASHBOARD = Path(sys.executable).parent / "optuna-dashboard"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.mark.slow
def test_the_documented_command_shows_the_trials(browser: Browser, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    study = rebuild(url, "demo-sweep", config(), ROWS)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    command = [str(DASHBOARD), url, "--host", "127.0.0.1", "--port", str(port)]
    with (tmp_path / "log").open("w") as log, ended(subprocess.Popen(command, stdout=log, stderr=log, text=True)):
        page = browser.new_page()
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        until(lambda: OPENER.open(f"http://127.0.0.1:{port}/", timeout=5).status, 200)
        page.goto(f"http://127.0.0.1:{port}/dashboard")
        page.get_by_text("demo-sweep").first.wait_for()
        page.goto(f"http://127.0.0.1:{port}/dashboard/studies/{study._study_id}/trials")
        page.get_by_text("Trial 2").first.wait_for()
        assert page.get_by_text("Trial 3").count() == 0
        study.tell(study.ask(merged(config().space)), 0.9)
        page.reload()
        page.get_by_text("Trial 3").first.wait_for()
        page.goto(f"http://127.0.0.1:{port}/dashboard/studies/{study._study_id}")
        page.get_by_text("Hyperparameter Importance").first.wait_for()
        assert complaints == []
        page.close()
