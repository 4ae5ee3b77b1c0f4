"""Ceph's object gateway as an S3 server: one monitor, one OSD on a sparse file, one gateway, all in one folder.

Needs Debian's packages ceph-mon, ceph-osd and radosgw. Inside, the cluster asks nobody for credentials: loopback only.
"""

import os
import shutil
import signal
import subprocess
import uuid
from pathlib import Path

from s3_servers.processes import ACCESS_KEY, SECRET_KEY, end, free_ports, make_bucket, spawn, wait_for

PROGRAMS = ("ceph-mon", "ceph-osd", "radosgw", "ceph", "radosgw-admin", "ceph-authtool", "monmaptool")
POOLS = (
    ".rgw.root",
    *(f"default.rgw.{name}" for name in ("log", "control", "meta", "buckets.index", "buckets.data", "buckets.non-ec")),
)

# The intervals of paxos and tcp_nodelay are for speed; the `crush update` and `class` settings for starts that work.
CONFIGURATION = """
[global]
fsid = {fsid}
mon host = [v1:127.0.0.1:{mon_port}]
mon initial members = a
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
ms bind ipv4 = true
ms bind msgr2 = false
ms bind port min = {first_port}
ms bind port max = {last_port}
run dir = {folder}/run
admin socket = {folder}/run/$name.asok
log file = {folder}/log/$name.log
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd pool default pg autoscale mode = off
mon allow pool size one = true
mon max pg per osd = 1000
mon data avail crit = 1
mon data avail warn = 2
osd crush chooseleaf type = 0
osd crush update on start = false
osd class update on start = false
paxos propose interval = 0.01
paxos min wait = 0.01
[mon.a]
mon data = {folder}/mon
[osd.0]
osd data = {folder}/osd
osd objectstore = bluestore
bluestore block size = 8589934592
bluestore cache autotune = false
bluestore cache size = 67108864
osd memory target = 939524096
osd class load list = *
osd class default list = *
osd op num shards = 2
osd op num threads per shard = 1
[client.rgw]
rgw data = {folder}/rgw
rgw frontends = beast endpoint=127.0.0.1:{port} tcp_nodelay=1
rgw thread pool size = 32
rgw dynamic resharding = false
rgw override bucket index max shards = 1
"""


class Ceph:
    """A server on a folder, to be started again after `stop` or `kill`."""

    def __init__(self, folder: Path) -> None:
        missing = [name for name in PROGRAMS if shutil.which(name) is None]
        if missing:
            raise RuntimeError(f"no {missing}: install Debian's packages ceph-mon, ceph-osd and radosgw")
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []
        self.is_new = True
        self.port, self.mon_port, first_port = free_ports(3)
        self.fsid = str(uuid.uuid4())
        for name in ("run", "log", "mon", "osd", "rgw"):
            (folder / name).mkdir(parents=True)
        self.environment = {**os.environ, "CEPH_CONF": str(folder / "ceph.conf")}
        settings = {"folder": folder, "fsid": self.fsid, "port": self.port, "mon_port": self.mon_port}
        ports = {"first_port": first_port, "last_port": first_port + 30}
        (folder / "ceph.conf").write_text(CONFIGURATION.format(**settings, **ports))

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        if self.is_new:
            self._make_monitor()
        self.processes = []
        self._spawn("ceph-mon", "-i", "a")
        if self.is_new:
            osd = str(uuid.uuid4())
            self._run("ceph", "osd", "new", osd)
            self._run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        self._spawn("ceph-osd", "-i", "0")
        if self.is_new:
            self._run("ceph", "osd", "crush", "add", "osd.0", "1.0", "root=default", "host=local")
            for pool in POOLS:
                self._run("ceph", "osd", "pool", "create", pool, "4", "--autoscale-mode=off")
            keys = (f"--access-key={ACCESS_KEY}", f"--secret={SECRET_KEY}")
            self._run("radosgw-admin", "-n", "client.rgw", "user", "create", "--uid=t", "--display-name=t", *keys)
        self._spawn("radosgw", "-n", "client.rgw")
        wait_for([self.port], self.processes)
        make_bucket(self.endpoint)
        self.is_new = False

    def stop(self) -> None:
        end(self.processes[::-1], signal.SIGTERM)

    def kill(self) -> None:
        end(self.processes, signal.SIGKILL)

    def _make_monitor(self) -> None:
        keyring, monmap = str(self.folder / "keyring"), str(self.folder / "monmap")
        self._run("ceph-authtool", "--create-keyring", keyring, "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
        where = f"[v1:127.0.0.1:{self.mon_port}]"
        self._run("monmaptool", "--create", "--addv", "a", where, "--fsid", self.fsid, monmap)
        self._run("ceph-mon", "-i", "a", "--mkfs", "--monmap", monmap, "--keyring", keyring)

    def _spawn(self, program: str, *arguments: str) -> None:
        log = self.folder / "log" / f"{program}.out"
        self.processes.append(spawn([program, *arguments, "-f"], log, self.environment))

    def _run(self, *command: str) -> None:
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=90)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()[-500:]}")
