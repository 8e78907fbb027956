"""Clusters of this project's own programs."""

import http.client
import itertools
import json
import math
import subprocess
import sys

from harness.machine import free_ports

VALUE = "".join(chr(ord("a") + place * 7 % 26) for place in range(100))


def key(number):
    """What Benchmarks/lua/kv.lua asks for."""
    return f"key-{number:08d}"


def ask(port, method, target, body=None, timeout=60):
    """One request over a connection of its own: status, headers, body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request(method, target, body)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def write_records(path, count):
    """A file for `kv import` with `count` keys, in no order of keys, so that it is no best case."""
    # A step without a divisor in common with the count reaches every number once.
    step = next(step for step in itertools.count(7_368_787) if math.gcd(step, count) == 1)
    with open(path, "w", encoding="ascii") as file:
        for place in range(count):
            file.write(f"{key(place * step % count)}\t{VALUE}\n")


def sharding(shards, durability, router_mode="redirect", extra=""):
    """A sharding.toml; `shards` lists (address of the leader, addresses of its followers)."""
    text = f'[storage]\ndurability = "{durability}"\n[router]\nmode = "{router_mode}"\n{extra}'
    for number, (leader, followers) in enumerate(shards):
        replicas = ", ".join(f'"{follower}"' for follower in followers)
        text += (f'\n[[shards]]\nname = "shard-{number}"\nidx = {number}\naddress = "{leader}"\n'
                 f"replicas = [{replicas}]\n")
    return text


def wait_until_ready(server):
    server.wait_until(lambda: ask(server.port, "GET", "/readyz")[0] == 200)


class Cluster:
    """One shard: a leader, its followers and, where there are some, a replicator; routers where they are asked for.

    `leader`, `followers`, `replicator` and `routers` (by mode) are servers of the session.
    """

    def __init__(self, session, programs, name, durability="os", followers=0, routers=(), extra="", environment=None):
        self.session, self.programs, self.name, self.environment = session, programs, name, environment
        self.directory = session.directory / name
        self.directory.mkdir()
        ports = free_ports(2 + followers + len(routers))
        addresses = [f"127.0.0.1:{port}" for port in ports]
        shards = [(addresses[0], addresses[1 : 1 + followers])]
        for mode in {"redirect", *routers}:
            self.configuration(mode).write_text(sharding(shards, durability, mode, extra), encoding="utf-8")
        self.leader = self.start_node(0, ports[0])
        self.followers = [self.start_node(1 + place, port) for place, port in enumerate(ports[1 : 1 + followers])]
        self.replicator = self.start("replicator", "replicator", ports[1 + followers]) if followers else None
        self.routers = {}
        for mode, port in zip(routers, ports[2 + followers :]):
            self.routers[mode] = self.start(f"router-{mode}", "router", port, mode=mode)
        for server in self.all():
            wait_until_ready(server)

    def configuration(self, mode):
        return self.directory / f"{mode}.toml"

    def start(self, name, program, port, *arguments, mode="redirect"):
        return self.session.start(
            f"{self.name}-{name}",
            [self.programs / program, "--config", self.configuration(mode), "--listen", f"127.0.0.1:{port}", *arguments],
            port, self.environment)

    def start_node(self, number, port):
        return self.start(f"node-{number}", "storage-node", port, "--data-dir", self.directory / f"data-{number}")

    def start_again(self, number):
        """Starts the node of that number, which has ended, on its data and at its address; 0 is the leader."""
        if number == 0:
            self.leader = self.start_node(0, self.leader.port)
            return self.leader
        self.followers[number - 1] = self.start_node(number, self.followers[number - 1].port)
        return self.followers[number - 1]

    def lsn(self, node):
        """How many batches of the shard's log a node has."""
        status, _, body = ask(node.port, "GET", "/replication/shard-0/position")
        if status != 200:
            raise OSError(f"the position was answered {status}: {body!r}")
        return json.loads(body)["lsn"]

    def all(self):
        return [self.leader, *self.followers, *([self.replicator] if self.replicator else []), *self.routers.values()]

    def load(self, records):
        """Imports a file of records and waits until every follower has all of it."""
        run = subprocess.run(
            [self.programs / "kv", "--router", self.leader.address, "import", records], capture_output=True, text=True,
            check=False)
        if run.returncode != 0:
            sys.exit(f"kv import failed: {run.stdout}{run.stderr}")
        if self.followers:
            self.wait_for_followers()

    def wait_for_followers(self, seconds=60):
        status, _, body = ask(
            self.leader.port, "PUT", f"/kv/{key(0)}?ack=all&timeout={seconds}s", VALUE, timeout=seconds + 5)
        if status != 204:
            sys.exit(f"the followers of {self.name} did not catch up: {status} {body!r}")
