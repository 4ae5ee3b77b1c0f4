"""The Grafana board: a real Prometheus answers each of its queries from the metrics that the package has.

What is scraped is written here, from the real metric objects: `test_metrics` shows that a real Ray serves them so.
"""

import json
import re
import socket
import subprocess
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from retort.metrics import SamplerMetrics, SweepMetrics, TrainingMetrics
from test_metrics import CONFIG, OPENER, PROMETHEUS, ended, until

BOARD: dict[str, Any] = json.loads((Path(__file__).parent.parent / "cluster/grafana/retort.json").read_text())
PANELS: list[dict[str, Any]] = BOARD["panels"]
TARGETS: list[dict[str, Any]] = [target for panel in PANELS for target in panel.get("targets", ())]
VARIABLES: dict[str, dict[str, Any]] = {each["name"]: each for each in BOARD["templating"]["list"]}
KINDS = {"row", "stat", "timeseries", "bargauge"}
LABELS = {
    "model": ("tiny", "large"),
    "student": ("cot", "label-only"),
    "sweep": ("small",),
    "trial": ("3fa94c", "a001b2"),
    "state": ("running", "finished", "stopped", "failed"),
}
"""The values of each label; a series has each value of its labels in turn."""


def metrics() -> dict[str, tuple[str, ...]]:
    """Every metric of the package, by the name that Prometheus sees, with its labels."""
    sampler, sweep, training = SamplerMetrics("tiny"), SweepMetrics("small"), TrainingMetrics("cot", steps=8)
    training.close()
    counters = [*sampler._counters.values(), *training._counters.values()]
    made = [*counters, *sampler._gauges.values(), *sweep._gauges.values(), *training._gauges.values()]
    return {f"ray_{each.info['name']}": tuple(each.info["tag_keys"]) for each in made}


def nodes() -> dict[str, tuple[str, ...]]:
    """The same for what Ray says of its nodes."""
    from ray.dashboard.modules.reporter.reporter_agent import METRICS_GAUGES

    return {f"ray_{name}": tuple(gauge.view.columns) for name, gauge in METRICS_GAUGES.items()}


def exposition(served: dict[str, tuple[str, ...]], scrapes: int) -> str:
    """What a node serves at a scrape: counters grow, the second value of a label has gauges half as high."""
    lines: list[str] = []
    for name, labels in served.items():
        lines.append(f"# TYPE {name} {'counter' if name.endswith('_total') else 'gauge'}")
        for number in range(max((len(LABELS.get(label, ("x",))) for label in labels), default=1)):
            known = {label: LABELS.get(label, ("x",)) for label in labels}
            pairs = ",".join(f'{label}="{values[number % len(values)]}"' for label, values in known.items())
            value = 20 * scrapes if name.endswith("_total") else 0.5 / (number + 1)
            lines.append(f"{name}{{{pairs}}} {value / 2 if 'accepted' in name else value}")
    return "\n".join(lines) + "\n"


class Node(ThreadingHTTPServer):
    """What Ray's agent is to Prometheus, on a machine with a GPU."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.scrapes = 0
        asked = re.findall(r"ray_node_\w+", json.dumps(TARGETS))
        self.served = metrics() | {name: labels for name, labels in nodes().items() if name in asked}


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Node)
        self.server.scrapes += 1
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(exposition(self.server.served, self.server.scrapes).encode())

    def log_message(self, format: str, *args: Any) -> None:
        del format, args


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Prometheus that scrapes twice a second what a node would serve."""
    assert Path(PROMETHEUS).exists(), f"{PROMETHEUS} is missing: apt-get install prometheus, or set RETORT_PROMETHEUS"
    folder = tmp_path_factory.mktemp("prometheus")
    with ExitStack() as stack:
        node = stack.enter_context(Node())
        threading.Thread(target=node.serve_forever, daemon=True).start()
        stack.callback(node.shutdown)
        (folder / "prometheus.yml").write_text(CONFIG.format(target=f"127.0.0.1:{node.server_port}"))
        with socket.create_server(("127.0.0.1", 0)) as taken:
            listen = f"127.0.0.1:{taken.getsockname()[1]}"
        command = [PROMETHEUS, "--config.file=prometheus.yml", "--storage.tsdb.path=data"]
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(
                [*command, f"--web.listen-address={listen}"], cwd=folder, stdout=log, stderr=log, text=True
            )
            stack.enter_context(ended(process))
        until(lambda: bool(ask(f"http://{listen}", "ray_retort_chains_total")), True)
        until(lambda: node.scrapes > 2, True)
        yield f"http://{listen}"


def get(url: str, path: str, **fields: str) -> Any:
    with OPENER.open(f"{url}/api/v1/{path}?{urllib.parse.urlencode(fields)}", timeout=10) as answer:
        return json.load(answer)["data"]


def ask(url: str, query: str, **chosen: str) -> list[tuple[dict[str, str], float]]:
    """Labels and value of each series that a query of the board finds; variables take all, or what is chosen."""
    filled = query.replace("$__rate_interval", "5s")
    for name in VARIABLES:
        filled = filled.replace(f"${name}", chosen.get(name, ".*"))
    assert "$" not in filled
    found = get(url, "query", query=filled)["result"]
    return [(one["metric"], float(one["value"][1])) for one in found]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target["expr"])
def test_each_query_has_an_answer_with_the_labels_that_its_legend_names(
    target: dict[str, Any], prometheus: str
) -> None:
    until(lambda: bool(ask(prometheus, target["expr"])), True)
    found = ask(prometheus, target["expr"])
    named = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
    assert all(value > 0 for _, value in found)
    assert all(set(labels) - {"__name__"} == named for labels, _ in found), "a legend tells all series apart"
    assert named or len(found) == 1


def test_the_board_shows_all_that_the_package_measures_and_nothing_that_it_does_not() -> None:
    assert set(re.findall(r"ray_retort_\w+", json.dumps(TARGETS))) == set(metrics())
    assert set(re.findall(r"ray_node_\w+", json.dumps(TARGETS))) <= set(nodes())


def test_figures_are_what_their_titles_say(prometheus: str) -> None:
    shown = {panel["title"]: panel["targets"][0]["expr"] for panel in PANELS if panel["type"] == "stat"}
    assert ask(prometheus, shown["Accepted"]) == [({}, 0.5)]
    assert ask(prometheus, shown["Best value"]) == [({"sweep": "small"}, 0.5)]
    assert ask(prometheus, shown["Engines busy"]) == [({}, 0.375)]
    assert ask(prometheus, shown["Done"]) == [({"student": "cot"}, 1.0), ({"student": "label-only"}, 1.0)]
    assert ask(prometheus, shown["Dev accuracy"], student="label-only") == [({"student": "label-only"}, 0.25)]
    # 40 more in each of two scrapes a second, of each of two models.
    until(lambda: round(ask(prometheus, shown["Chains a second"])[0][1] / 10), 8)


def test_variables_list_what_there_is_and_choose_among_it(prometheus: str) -> None:
    for name, expected in (
        ("model", {"tiny", "large"}),
        ("student", {"cot", "label-only"}),
        ("sweep", {"small"}),
    ):
        match = re.fullmatch(r"label_values\((\w+), (\w+)\)", VARIABLES[name]["query"]["query"])
        assert match is not None
        assert set(get(prometheus, f"label/{match[2]}/values", **{"match[]": match[1]})) == expected
    chosen = [target["expr"] for target in TARGETS if "$model" in target["expr"]]
    assert len(chosen) > 10
    for expr in chosen:
        assert ask(prometheus, expr, model="tiny|none")
        assert ask(prometheus, expr, model="none") == []
    of_students = [target["expr"] for target in TARGETS if "ray_retort_training" in target["expr"]]
    assert len(of_students) > 12
    for expr in of_students:
        (found,) = ask(prometheus, expr, student="label-only")
        assert found[0] == {"student": "label-only"}


def test_the_board_can_be_imported_where_any_prometheus_is_its_source() -> None:
    assert (BOARD["id"], BOARD["uid"]) == (None, None), "Grafana gives both"
    assert VARIABLES["datasource"]["type"] == "datasource"
    shown = [panel for panel in PANELS if panel["type"] != "row"]
    source = {"type": "prometheus", "uid": "${datasource}"}
    variables = [VARIABLES[name] for name in VARIABLES if name != "datasource"]
    assert all(each["datasource"] == source for each in (*shown, *TARGETS, *variables))
    assert {panel["type"] for panel in PANELS} == KINDS
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    assert [panel["title"] for panel in PANELS if panel["type"] == "row"] == ["Sampling", "Training", "Sweep", "Nodes"]


def test_panels_fill_the_grid_and_none_lies_on_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    assert taken == {(x, y) for x in range(24) for y in range(1 + max(y for _, y in taken))}
