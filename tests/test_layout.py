"""The shape of the tree: who imports whom, what stays light to import, names and sizes of files.

The imports are read with `ast`, so that nothing is imported and an import inside a function counts too.
"""

import ast
import graphlib
import platform
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "platform" / "retort"

# A module imports from lower layers and, without cycles, from its own. A name stands for the modules below it too;
# the longest that fits decides.
LAYERS: list[set[str]] = [
    {"records", "answers", "prompts", "logs"},
    {"store", "cluster"},
    {"tasks", "thoughts", "solvers", "engines"},
    {"rollouts", "asking", "combining", "intervals", "questions", "overlap", "owned", "metrics"},
    {"judging", "verification", "journal", "instances"},
    {"sampling", "selection"},
    {"evaluation"},
    {"training", "sweep.config"},
    {"shipped"},
    {"config", "loading", "comparison"},
    {"run"},
    {"planning", "importing", "cluster.demands"},
    {"pipeline", "sweep", "report"},
    {"command", "upkeep", "publishing", "cluster.check"},
    {"status"},
]
LAYER_OF = {name: number for number, names in enumerate(LAYERS) for name in names}

# These take seconds to import; a wrong recipe must be refused before that. The modules that are PyTorch code import it
# at the top, and whoever uses one of them imports it inside a function.
HEAVY = {"ray", "torch", "transformers", "vllm"}
PYTORCH_CODE = {
    "training.attention",
    "training.fused",
    "training.keeping",
    "training.loop",
    "training.packing",
    "training.padding",
    "training.parallel",
    "training.scoring",
    "training.speed",
    "training.states",
    "shipped.make",
}
TUNE_CODE = {"sweep.tuning"}  # subclasses of what Ray Tune calls

DRAWERS = {"utils", "util", "common", "helpers", "helper", "misc", "base", "manager"}
# Written so that this file does not match.
FOREIGN = re.compile(rb"/(?:wor[k]|far[m])/|/opt/whee[l]s|py[p]i\.org|python[h]osted|registry\.np[m]js")


@dataclass(frozen=True)
class Import:
    """One import of a module of ours: where it stands, what it names, and whether importing the module runs it."""

    importer: str
    line: int
    target: str
    at_top: bool

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.target}"


def modules(package: Path) -> dict[str, Path]:
    """Names relative to the package ('' is the package itself) and their files."""
    files = sorted(package.rglob("*.py"))
    dotted = {file: ".".join(file.relative_to(package).with_suffix("").parts) for file in files}
    return {re.sub(r"(^|\.)__init__$", "", name): file for file, name in dotted.items()}


def walk(node: ast.AST, at_top: bool = True) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Import statements below a node, and whether each runs when the module is imported."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, at_top
        elif isinstance(child, ast.If) and ast.unparse(child.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
            yield from walk(ast.Module(child.body, []), at_top=False)
            yield from walk(ast.Module(child.orelse, []), at_top)
        else:
            is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from walk(child, at_top and not is_function)


def imports(package: Path) -> Iterator[Import]:
    """Every import in the package; targets in the package are full names of modules, others as they are written."""
    known = {".".join(filter(None, [package.name, name])) for name in modules(package)}
    for name, file in modules(package).items():
        full_name = ".".join(filter(None, [package.name, name]))
        parents = full_name.split(".") if file.name == "__init__.py" else full_name.split(".")[:-1]
        for statement, at_top in walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(statement, ast.Import):
                targets = [alias.name for alias in statement.names]
            else:
                above = parents[: len(parents) - statement.level + 1] if statement.level else []
                source = ".".join([*above, *filter(None, [statement.module])])
                members = [f"{source}.{alias.name}" for alias in statement.names]
                targets = [member if member in known else source for member in members]
            for target in dict.fromkeys(targets):
                yield Import(name, statement.lineno, target, at_top)


def layer(module: str) -> int | None:
    """Of a module's name relative to the package; None where nobody placed it."""
    parts = module.split(".")
    fitting = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((LAYER_OF[name] for name in fitting if name in LAYER_OF), None)


def violations(package: Path) -> list[str]:
    """What is wrong with the imports of a package that is laid out as ours."""
    found = [f"{name} is in no layer: place it in LAYERS" for name in modules(package) if name and layer(name) is None]
    graph: dict[str, set[str]] = {name: set() for name in modules(package)}
    for entry in imports(package):
        root, _, target = entry.target.partition(".")
        if root in {"jobs", "tests"}:
            found.append(f"{entry}: the package does not know its callers")
        heavy = PYTORCH_CODE | TUNE_CODE
        is_heavy = root in HEAVY or (root == package.name and target in heavy)
        if entry.at_top and entry.importer not in heavy and is_heavy:
            found.append(f"{entry} at the top: import it inside the function that needs it")
        if root != package.name or not target:
            continue
        graph[entry.importer].add(target)
        upper, lower = layer(entry.importer) if entry.importer else 0, layer(target)
        if upper is not None and lower is not None and lower > upper:
            found.append(f"{entry}, which is in a higher layer")
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        found.append(f"modules import each other in a circle: {' → '.join(error.args[1])}")
    return found


def own_files() -> Iterator[Path]:
    """The files of the tree, without what tools put there."""
    pending = [ROOT]
    while pending:
        for path in pending.pop().iterdir():
            is_made = path.name in {"build", "dist", "__pycache__"} or path.suffix == ".egg-info"
            if path.is_dir():
                if not is_made and (path.name == ".ci" or not path.name.startswith(".")):
                    pending.append(path)
            elif path.suffix != ".pyc":
                yield path


def test_imports_point_downwards_and_heavy_ones_wait():
    assert len(list(imports(PACKAGE))) > 20, "the checker reads no imports"
    assert violations(PACKAGE) == []


@pytest.mark.parametrize(
    ("file", "text", "complaint"),
    [
        ("store/pool.py", "from retort.tasks import gsm8k", "store.pool:1 imports retort.tasks.gsm8k, which is in a"),
        ("store/pool.py", "from ..tasks import gsm8k", "store.pool:1 imports retort.tasks.gsm8k, which is in a"),
        ("store/__init__.py", "from .. import tasks", "store:1 imports retort.tasks, which is in a"),
        ("store/pool.py", "def f():\n    import retort.config", "store.pool:2 imports retort.config, which is in a"),
        (
            "training/loop.py",
            "def f():\n    import retort.shipped",
            "training.loop:2 imports retort.shipped, which is in a",
        ),
        ("pipeline.py", "if True:\n    import torch.nn as nn", "pipeline:2 imports torch.nn at the top"),
        ("pipeline.py", "class A:\n    from ray import data", "pipeline:2 imports ray at the top"),
        (
            "training/trainer.py",
            "from retort.training import loop",
            "training.trainer:1 imports retort.training.loop at",
        ),
        ("report/__init__.py", "def f():\n    import jobs.distill", "report:2 imports jobs.distill: the package"),
        ("tasks/gsm8k.py", "from retort.tasks import TASKS", "modules import each other in a circle"),
        ("novelty.py", "", "novelty is in no layer"),
    ],
)
def test_a_planted_wrong_import_is_found(tmp_path: Path, file: str, text: str, complaint: str):
    package = tmp_path / "retort"
    right = {
        "tasks/__init__.py": "from retort.tasks import gsm8k\nTASKS = {}",
        "tasks/gsm8k.py": "from retort.records import Problem",
        "training/loop.py": "import torch\nfrom retort.evaluation import vote",
        "pipeline.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import ray\ndef f():\n    import vllm",
    }
    for name in [
        "__init__.py",
        "records.py",
        "config.py",
        "evaluation.py",
        "shipped/__init__.py",
        "store/__init__.py",
        *right,
    ]:
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(right.get(name, ""))
    assert violations(package) == []

    wrong = package / file
    wrong.parent.mkdir(parents=True, exist_ok=True)
    wrong.write_text(text)

    (found,) = violations(package)
    assert found.startswith(complaint)


def test_platform_is_still_pythons_own_module():
    assert not (ROOT / "platform" / "__init__.py").exists()
    assert Path(platform.__file__).is_relative_to(sysconfig.get_path("stdlib"))
    command = [sys.executable, "-c", "import platform; print(platform.system())"]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip() == "Linux"


def test_reading_a_recipe_loads_nothing_heavy():
    program = f"import sys, retort.config; print(sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_no_file_is_a_drawer():
    names = {path for folder in ("platform", "jobs", "tests") for path in (ROOT / folder).rglob("*.py")}
    assert [str(path) for path in names if {path.stem, path.parent.name} & DRAWERS] == []


def test_modules_and_jobs_stay_short():
    limits = {PACKAGE: 350, ROOT / "jobs": 40}
    lengths = {
        path: (len(path.read_text(encoding="utf-8").splitlines()), limit)
        for folder, limit in limits.items()
        for path in folder.rglob("*.py")
    }
    assert {str(path): length for path, (length, limit) in lengths.items() if length > limit} == {}


def test_no_file_names_a_machine_path_or_a_registry():
    assert FOREIGN.search(b"/wor" + b"k/x")
    assert FOREIGN.search(b"https://py" + b"pi.org/simple")
    files = list(own_files())
    assert {ROOT / "Makefile", ROOT / ".ci" / "run", PACKAGE / "records.py"} <= set(files)
    assert [str(path) for path in files if FOREIGN.search(path.read_bytes())] == []
