"""Who takes part in Benchmarks/compare, and how each is asked to do the same thing."""

from harness import load
from harness.distribkv import Cluster, write_records
from harness.others import Etcd, HTTPFloor, Redis

# etcd is filled through its gateway, which takes about 20,000 keys a second; its reads look at as many keys as it has.
ETCD_KEYS_MAX = 100_000


class Contestant:
    """A name, the processes whose CPU counts, by role, the first of which is the server itself, and what asks it.

    `ask(operation, seconds, connections, depth)` returns a load.Outcome.
    """

    def __init__(self, name, processes, ask):
        self.name, self.processes, self.ask = name, processes, ask

    def measure(self, operation, seconds, connections, depth):
        before = {role: server.cpu_seconds() for role, server in self.processes.items()}
        outcome = self.ask(operation, seconds, connections, depth)
        # A client that sees its own start and end has taken the times itself.
        if "cpu_us" not in outcome:
            outcome["cpu_us"] = {
                role: (server.cpu_seconds() - before[role]) / max(1, outcome["requests"]) * 1e6
                for role, server in self.processes.items()}
        return outcome


def over_http(port, keys, script="kv.lua", query=""):
    def ask(operation, seconds, connections, depth):
        return load.wrk(script, port, seconds, connections, OPERATION=operation, KEYS=keys, DEPTH=depth, QUERY=query)

    return ask


def nodes(session, programs, records, keys, durability, with_routers):
    """A node alone, and one with a follower; routers before the latter."""
    alone = Cluster(session, programs, f"alone-{durability}", durability)
    pair = Cluster(
        session, programs, f"pair-{durability}", durability, followers=1,
        routers=("redirect", "proxy") if with_routers else ())
    for cluster in (alone, pair):
        cluster.load(records)
    rest = {"follower": pair.followers[0], "replicator": pair.replicator}
    yield Contestant(f"node {durability}", {"node": alone.leader}, over_http(alone.leader.port, keys))
    yield Contestant(
        f"node {durability} + follower", {"node": pair.leader, **rest}, over_http(pair.leader.port, keys))
    if with_routers:
        router = pair.routers["redirect"]
        # A tenth of the keys more, so that the others still find the same.
        yield Contestant(
            "router redirect, followed", {"router": router, "node": pair.leader, **rest},
            load.KVBench(programs / "kv", router.address, max(1, keys // 10)))
    for mode, router in pair.routers.items():
        yield Contestant(
            f"router {mode}", {"router": router, "node": pair.leader, **rest}, over_http(router.port, keys))


def redis(session, keys, fsync):
    alone = Redis(session, f"redis-{fsync}", fsync)
    pair = Redis(session, f"redis-{fsync}-pair", fsync, replica=True)
    for server in (alone, pair):
        server.load(keys)
    yield Contestant(f"redis {fsync}", {"redis": alone.primary}, load.RedisBenchmark(alone.primary.port, keys))
    yield Contestant(
        f"redis {fsync} + replica", {"redis": pair.primary, "replica": pair.replica},
        load.RedisBenchmark(pair.primary.port, keys))


def etcd(session, keys):
    keys = min(keys, ETCD_KEYS_MAX)
    member = Etcd(session)
    member.load(keys)
    yield Contestant("etcd gateway", {"etcd": member.server}, over_http(member.server.port, keys, "etcd.lua"))
    yield Contestant("etcd native", {"etcd": member.server}, lambda _, seconds, *__: load.etcd_check(member, seconds))


def everyone(session, programs, http_floor, keys, say):
    """Starts and fills all of them; by name."""
    records = session.directory / "records.tsv"
    write_records(records, keys)
    found = {}
    for what, some in [
        ("nodes, durability os", nodes(session, programs, records, keys, "os", True)),
        ("nodes, durability always", nodes(session, programs, records, keys, "always", False)),
        ("redis-server, everysec", redis(session, keys, "everysec")),
        ("redis-server, always", redis(session, keys, "always")),
        ("etcd", etcd(session, keys)),
    ]:
        say(f"starting and filling {what}")
        found |= {each.name: each for each in some}
    floor = HTTPFloor(session, http_floor)
    found["http floor"] = Contestant("http floor", {"floor": floor.server}, over_http(floor.server.port, keys))
    records.unlink()
    return found
