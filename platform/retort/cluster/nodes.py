"""Node types: which machines a cluster may start, from the file that it was launched with.

Read are files of `ray up` (aws.yaml, gcp.yaml, local.yaml, or the copy that it leaves on the head) and KubeRay's
RayCluster and RayJob manifests.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter

FILL_IN = "FILL_IN"
"""Stands in a cluster file wherever its user has something to say."""
KINDS = ("CPU", "GPU")
UNBOUNDED = 2**31 - 1
"""What KubeRay takes for `maxReplicas` where it is not given."""
DECIMAL = {"m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
UNITS = {**DECIMAL, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50}


@dataclass(frozen=True)
class NodeType:
    """Machines of one kind, with what each offers Ray. `most` bounds how many there are at a time."""

    name: str
    resources: Mapping[str, float]
    least: int
    most: int
    instance: str = ""
    """What the cloud calls it; empty where the file does not say."""
    is_spot: bool = False
    is_head: bool = False

    @property
    def gpus(self) -> float:
        """GPUs of one machine."""
        return self.resources.get("GPU", 0)

    def fits(self, bundle: Mapping[str, float]) -> int:
        """How many times one machine holds a bundle of resources."""
        asked = {kind: amount for kind, amount in bundle.items() if amount > 0}
        if not asked:
            return 0
        return min(math.floor(self.resources.get(kind, 0) / amount + 1e-9) for kind, amount in asked.items())


@dataclass(frozen=True)
class Launch:
    """What a cluster was, or is to be, launched with."""

    source: Path
    provider: str
    """`aws`, `gcp`, `fake_multinode`, …; `kuberay`."""
    region: str
    types: tuple[NodeType, ...]
    most_workers: int | None
    """Machines of all types at a time, the head apart; None bounds each type alone."""
    unfilled: tuple[str, ...]
    """Dotted names of fields that are still to be filled in."""


LAUNCH = TypeAdapter(Launch)
"""To and from JSON."""


def read_launch(path: Path) -> Launch:
    """The node types of a cluster file.

    Raises:
        ValueError: it is no cluster file, or a field of it is no number.
    """
    try:
        documents = [document for document in yaml.safe_load_all(path.read_text()) if document]
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"cluster file {path}: {' '.join(str(error).split())}") from error
    try:
        for document in documents:
            if isinstance(document, dict) and "available_node_types" in document:
                return _of_launcher(path, document)
            if isinstance(document, dict) and document.get("kind") in ("RayCluster", "RayJob"):
                return _of_kuberay(path, document)
    except (KeyError, TypeError, AttributeError, IndexError, yaml.YAMLError) as error:
        raise ValueError(
            f"cluster file {path}: {type(error).__name__}: {error}; expected fields as `ray up` or KubeRay reads them"
        ) from error
    raise ValueError(
        f"cluster file {path}: expected a file of `ray up` (available_node_types), or a manifest with a RayCluster"
    )


def _of_launcher(path: Path, document: Mapping[str, Any]) -> Launch:
    provider, rows, head = document.get("provider") or {}, document["available_node_types"], document["head_node_type"]
    if head not in rows:
        raise ValueError(f"cluster file {path}: head_node_type = {head!r}; expected one of {', '.join(rows)}")
    if not provider.get("type"):
        raise ValueError(f"cluster file {path}: provider has no type; expected aws, gcp or another that `ray up` knows")
    limit = _count(path, "max_workers", document.get("max_workers", 2))
    types: list[NodeType] = []
    for name, row in rows.items():
        config, is_head = row.get("node_config") or {}, name == head
        least = 1 if is_head else _count(path, f"{name}.min_workers", row.get("min_workers", 0))
        most = 1 if is_head else min(_count(path, f"{name}.max_workers", row.get("max_workers", limit)), limit)
        instance = str(config.get("InstanceType") or config.get("machineType") or "").rsplit("/", 1)[-1]
        if row.get("resources") is None:
            raise ValueError(f"cluster file {path}: {name} has no resources; expected what a machine of it offers Ray")
        resources = _numbers(path, name, row["resources"])
        types.append(_bounded(path, NodeType(name, resources, least, most, instance, _is_spot(config), is_head)))
    if (least := sum(kind.least for kind in types if not kind.is_head)) > limit:
        raise ValueError(f"cluster file {path}: max_workers = {limit}; expected at least {least}, all min_workers")
    return Launch(
        path, str(provider["type"]), str(provider.get("region", "")), tuple(types), limit, tuple(_unfilled(document))
    )


def _count(path: Path, field: str, value: Any) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"cluster file {path}: {field} = {value!r}; expected a number of machines")
    return value


def _bounded(path: Path, kind: NodeType) -> NodeType:
    if kind.least > kind.most:
        raise ValueError(
            f"cluster file {path}: {kind.name}: at least {kind.least} machines, at most {kind.most}; expected the "
            f"second to be larger"
        )
    return kind


def _is_spot(config: Mapping[str, Any]) -> bool:
    """Whether a cloud is asked for a machine that it may take back."""
    market, scheduling = config.get("InstanceMarketOptions") or {}, config.get("scheduling") or {}
    is_spot = market.get("MarketType") == "spot" or scheduling.get("provisioningModel") == "SPOT"
    return is_spot or bool(scheduling.get("preemptible"))


def _of_kuberay(path: Path, document: Mapping[str, Any]) -> Launch:
    spec = document["spec"]
    if document["kind"] == "RayJob":
        spec = spec.get("rayClusterSpec")
        if spec is None:
            raise ValueError(f"cluster file {path}: this RayJob joins another cluster; expected that one's manifest")
    groups = [_group(path, row["groupName"], row) for row in spec.get("workerGroupSpecs", ())]
    types = (_group(path, "head", spec["headGroupSpec"], is_head=True), *groups)
    unfilled = [*_unfilled(document), *(place for other in _beside(path) for place in _unfilled_of(other))]
    return Launch(path, "kuberay", "", types, None, tuple(unfilled))


def _beside(path: Path) -> list[Path]:
    """The manifests that Kustomize applies with a cluster's."""
    listed = path.with_name("kustomization.yaml")
    files = yaml.safe_load(listed.read_text()).get("resources") or () if listed.is_file() else ()
    return [other for file in files if (other := path.parent / file).is_file() and other.resolve() != path.resolve()]


def _unfilled_of(path: Path) -> Iterator[str]:
    """What is empty in a manifest that is applied with a cluster's."""
    for document in yaml.safe_load_all(path.read_text()):
        name = f"{path.name}: {document['kind']}" if isinstance(document, dict) and "kind" in document else path.name
        yield from (f"{name}.{place}" for place in _unfilled(document))


def _group(path: Path, name: str, row: Mapping[str, Any], is_head: bool = False) -> NodeType:
    """What a pod of a group offers, as Ray's autoscaler reads it: by its `resources`, its start parameters, or by what
    its container may have, in whole numbers.
    """
    pod, hosts = row["template"]["spec"], row.get("numOfHosts", 1)
    least = 1 if is_head else _count(path, f"{name}.minReplicas", row.get("minReplicas", 0)) * hosts
    most = 1 if is_head else _count(path, f"{name}.maxReplicas", row.get("maxReplicas", UNBOUNDED)) * hosts
    has = pod["containers"][0].get("resources") or {}
    limits = {**(has.get("requests") or {}), **(has.get("limits") or {})}
    told, started = dict[str, Any](), row.get("rayStartParams") or {}
    gpus = next((amount for name, amount in limits.items() if name.endswith("gpu") and str(amount) != "0"), None)
    for kind, amount, parameter in (("CPU", limits.get("cpu"), "num-cpus"), ("GPU", gpus, "num-gpus")):
        if (amount := started.get(parameter, amount)) is not None:
            told[kind] = amount
    if own := dict(row.get("resources") or {}):
        told |= own
    else:
        # Quoted for the shell that starts Ray: '"{\"verifier\": 16}"'.
        told |= json.loads(str(started.get("resources", "{}")).strip("'\"").replace("\\", ""))
    resources = {kind: float(math.ceil(amount)) for kind, amount in _numbers(path, name, told).items()}
    is_spot = any("spot" in f"{key}={value}".lower() for key, value in (pod.get("nodeSelector") or {}).items())
    return _bounded(path, NodeType(name, resources, least, most, "", is_spot, is_head))


def _numbers(path: Path, name: str, resources: Mapping[str, Any]) -> dict[str, float]:
    found: dict[str, float] = {}
    for kind, amount in resources.items():
        text = str(amount)
        digits = text.rstrip("".join({letter for unit in UNITS for letter in unit}))
        unit = text[len(digits) :]
        try:
            found[kind] = float(digits) * UNITS[unit]
            if not 0 <= found[kind] < math.inf:
                raise ValueError
        except (ValueError, KeyError):
            raise ValueError(
                f"cluster file {path}: {name}: {kind} = {amount!r}; expected a number of at least 0"
            ) from None
    return found


def _unfilled(value: Any, where: str = "") -> Iterator[str]:
    """Where a user has not filled something in."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _unfilled(inner, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _unfilled(inner, f"{where}[{number}]")
    elif isinstance(value, str) and FILL_IN in value:
        yield where


def told(resources: Mapping[str, float]) -> str:
    """Resources in words, but for memory, which nothing here asks for: `4 CPU, 1 GPU, L4`."""
    kinds = [*KINDS, *sorted(set(resources) - {*KINDS})]
    words = [
        f"{resources[kind]:g} {kind}"
        for kind in kinds
        if resources.get(kind, 0) > 0 and ":" not in kind and not kind.endswith("memory")
    ]
    named = [kind.partition(":")[2] for kind in kinds if kind.startswith("accelerator_type:") and resources.get(kind)]
    return ", ".join([*words, *named]) or "nothing"
