"""OpenStack Swift as an S3 server: four processes and one folder, from pip alone.

The folder must be on a file system with extended attributes (ext4, tmpfs).
"""

import getpass
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from s3_servers.processes import SECRET_KEY, end, free_ports, make_bucket, spawn, wait_for

KINDS = ("account", "container", "object")
PIPELINE = "catch_errors gatekeeper healthcheck cache bulk s3api tempauth copy slo dlo proxy-server"

# Of one machine that other work keeps busy. A listing lacks an object for good if its update is not waited for.
PATIENCE = "node_timeout = 60\nconn_timeout = 10\n"

COMMON = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
devices = {folder}/node
mount_check = false
user = {user}
swift_dir = {folder}/etc
workers = 0
log_level = WARNING
disable_fallocate = true
container_update_timeout = 60
"""
STORAGE = """
[pipeline:main]
pipeline = {filters} {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
recon_cache_path = {folder}/cache
[filter:lock]
paste.filter_factory = s3_servers.swift_filters:lock_factory
"""
PROXY = """
[pipeline:main]
pipeline = {pipeline}
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
allow_account_management = true
error_suppression_limit = 1000000
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
s3_acl = no
min_segment_size = 1
max_multi_delete_objects = 1000
max_bucket_listing = 100
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = {secret} .admin
[filter:cache]
paste.filter_factory = s3_servers.swift_filters:cache_factory
"""
CLUSTER = """
[swift-hash]
swift_hash_path_prefix = retort
swift_hash_path_suffix = tests
[storage-policy:0]
name = one
default = yes
"""
RINGS = """
import sys
from swift.common.ring import RingBuilder
etc, *ports = sys.argv[1:]
for kind, port in zip(("account", "container", "object"), ports):
    ring = RingBuilder(1, 1, 0)
    ring.add_dev({"id": 0, "region": 1, "zone": 1, "weight": 1.0, "ip": "127.0.0.1", "port": int(port), "device": "d1"})
    ring.rebalance()
    ring.get_ring().save(f"{etc}/{kind}.ring.gz")
"""


class Swift:
    """A server on a folder; a new object on the same folder would take other ports, so start this one again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []
        self.proxy_port, *self.storage_ports = free_ports(4)
        for name in ("etc", "cache", "node/d1"):
            (folder / name).mkdir(parents=True)
        (folder / "etc" / "swift.conf").write_text(CLUSTER)
        (folder / "etc" / "proxy.conf").write_text(self._proxy())
        for kind, port in zip(KINDS, self.storage_ports, strict=True):
            filters = "lock" if kind == "object" else ""
            text = self._common(port) + PATIENCE + STORAGE.format(folder=folder, kind=kind, filters=filters)
            (folder / "etc" / f"{kind}.conf").write_text(text)
        ports = map(str, self.storage_ports)
        subprocess.run([sys.executable, "-c", RINGS, str(folder / "etc"), *ports], check=True)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.proxy_port}"

    def start(self) -> None:
        tests = Path(__file__).parents[1]
        self.processes = [
            spawn(
                [str(Path(sys.executable).parent / f"swift-{kind}-server"), str(self.folder / "etc" / f"{kind}.conf")],
                self.folder / f"{kind}.log",
                {**os.environ, "PYTHONPATH": str(tests)},
            )
            for kind in ("proxy", *KINDS)
        ]
        wait_for([*self.storage_ports, self.proxy_port], self.processes)
        make_bucket(self.endpoint)

    def stop(self) -> None:
        end(self.processes, signal.SIGTERM)

    def kill(self) -> None:
        """The proxy first, the rest a moment later.

        Swift lists an object a little after it has it, and killed in between would never list it. S3 does not lose
        what it has, so the storage servers finish what the dead proxy asked of them.
        """
        proxy, *storage = self.processes
        end([proxy], signal.SIGKILL)
        time.sleep(0.5)
        end(storage, signal.SIGKILL)

    def _common(self, port: int) -> str:
        return COMMON.format(port=port, folder=self.folder, user=getpass.getuser())

    def _proxy(self) -> str:
        plain = ("catch_errors", "gatekeeper", "healthcheck", "bulk", "copy", "slo", "dlo")
        filters = "".join(f"[filter:{name}]\nuse = egg:swift#{name}\n" for name in plain)
        app = PROXY.format(pipeline=PIPELINE, secret=SECRET_KEY).replace("[filter:s3api]", f"{PATIENCE}[filter:s3api]")
        return self._common(self.proxy_port) + app + filters
