"""Drains this machine's Ray node when the cloud announces that it takes the spot machine away.

    python spot_notice.py aws|gcp HEAD_IP:6379

The metadata server is asked every two seconds. EC2 announces 120 seconds before, Compute Engine 30. Ray then places
nothing more here, and trainings save their state. Standard library only, and the `ray` beside this Python.
METADATA_SERVICE (`http://host:port`) stands for another metadata server.
"""

import json
import logging
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

logger = logging.getLogger("spot_notice")
PAUSE_S = 2.0
GCP_NOTICE_S = 30
# The metadata server is on the machine's own link: never by way of a proxy that the environment names.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
SERVICES = {"aws": "http://169.254.169.254", "gcp": "http://metadata.google.internal"}


def ask(path: str, headers: dict[str, str], method: str = "GET") -> str | None:
    """The metadata server's answer; None where it has none (404), or cannot be reached now."""
    base = os.environ.get("METADATA_SERVICE") or SERVICES[sys.argv[1]]
    request = urllib.request.Request(base + path, headers=headers, method=method)
    try:
        with OPENER.open(request, timeout=5) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as error:
        if error.code != 404:
            logger.warning("%s: %s", path, error)
    except OSError as error:
        logger.warning("%s: %s", path, error)
    return None


def aws_remaining_s() -> int | None:
    """Seconds until EC2 takes the machine away; None without a notice."""
    token = ask("/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"}, "PUT")
    notice = token and ask("/latest/meta-data/spot/instance-action", {"X-aws-ec2-metadata-token": token})
    if not notice:
        return None
    until = datetime.fromisoformat(json.loads(notice)["time"]) - datetime.now(UTC)
    return max(1, int(until.total_seconds()))


def gcp_remaining_s() -> int | None:
    """Seconds that Compute Engine leaves the machine at least; None without a notice."""
    said = ask("/computeMetadata/v1/instance/preempted", {"Metadata-Flavor": "Google"})
    return GCP_NOTICE_S - int(PAUSE_S) if said == "TRUE" else None


NOTICES: dict[str, Callable[[], int | None]] = {"aws": aws_remaining_s, "gcp": gcp_remaining_s}


def node_id(address: str) -> str | None:
    """The id of this machine's node of the cluster at `address`, from its raylet's command line; None without one."""
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = process.read_bytes().decode(errors="replace").split("\0")
        except OSError:  # it has ended, or is another user's
            continue
        if words[0].endswith("/raylet") and f"--gcs-address={address}" in words:
            return next(word.removeprefix("--node_id=") for word in words if word.startswith("--node_id="))
    return None


def drain(cloud: str, address: str, remaining_s: int) -> bool:
    """Tell the cluster that this node ends in `remaining_s` seconds. False: it was not told."""
    node = node_id(address)
    if node is None:
        logger.warning("no node of the cluster at %s runs on this machine", address)
        return False
    command = [str(Path(sys.executable).parent / "ray"), "drain-node", "--address", address, "--node-id", node]
    command += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", f"spot notice of {cloud}"]
    command += ["--deadline-remaining-seconds", str(remaining_s)]
    told = subprocess.run(command, check=False).returncode == 0
    logger.info("%s s left: node %s %s", remaining_s, node, "drained" if told else "could not be drained")
    return told


def main() -> None:
    """Wait for a notice, drain, and end."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if len(sys.argv) != 3 or sys.argv[1] not in NOTICES:
        raise SystemExit(f"expected: spot_notice.py {'|'.join(NOTICES)} HEAD_IP:PORT")
    cloud, address = sys.argv[1:]
    while True:
        remaining_s = NOTICES[cloud]()
        if remaining_s is not None and drain(cloud, address, remaining_s):
            return
        time.sleep(PAUSE_S)


if __name__ == "__main__":
    main()
