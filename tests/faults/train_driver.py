"""A driver that trains under Ray: `python train_driver.py STORE CONFIG [machines]`; CONFIG is JSON.

With `machines` it starts a cluster of a head that trains nothing and of two machines of one core; what it reads from
its standard input, a word a line, befalls the second: `remove` (SIGKILL), `drain` (it goes in 20 seconds), `add`.
"""

import json
import logging
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster

from faults.training_process import training
from retort.store import open_store
from retort.training.trainer import train

PREEMPTED = [
    "--reason",
    "DRAIN_NODE_REASON_PREEMPTION",
    "--reason-message",
    "spot",
    "--deadline-remaining-seconds",
    "20",
]


RAY = str(Path(sys.executable).parent / "ray")
added: list["subprocess.Popen[bytes]"] = []


def start_machines() -> str:
    """Start the cluster and obey; its address."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    spot: list[Any] = [cluster.add_node(num_cpus=1)]

    def obey() -> None:
        for line in sys.stdin:
            match line.strip():
                case "remove":
                    cluster.remove_node(spot.pop(), allow_graceful=False)
                case "add":
                    # `Cluster` starts machines in the main thread alone, which is training.
                    joining = ["start", "--block", "--address", str(cluster.address), "--num-cpus", "1"]
                    added.append(subprocess.Popen([RAY, *joining]))
                case "drain":
                    machine = ["--address", str(cluster.address), "--node-id", str(spot[0].node_id)]
                    subprocess.run([RAY, "drain-node", *machine, *PREEMPTED], check=True)
                case other:
                    raise ValueError(other)

    threading.Thread(target=obey, daemon=True).start()
    return str(cluster.address)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    address = start_machines() if "machines" in sys.argv else "local"
    ray.init(address, logging_level=logging.WARNING)
    store = open_store(sys.argv[1])
    changed = json.loads(sys.argv[2])
    if isinstance(changed["num_workers"], list):
        changed["num_workers"] = tuple(changed["num_workers"])
    train(store, training(store, **changed))
    for machine in added:
        machine.terminate()
        machine.wait()
