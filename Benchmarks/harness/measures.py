"""What Benchmarks/compare measures: each table of its report is one measure."""

from dataclasses import dataclass, field

OS = ["node os", "node os + follower"]
ROUTED = ["router redirect", "router redirect, followed", "router proxy"]
ALWAYS = ["node always", "node always + follower"]
EVERYSEC = ["redis everysec", "redis everysec + replica"]
SYNCED = ["redis always", "redis always + replica"]


@dataclass(frozen=True)
class Measure:
    """The first contestant is what the ratios are to; `floors` are no contestants and win nothing."""

    name: str
    title: str
    operation: str
    connections: int
    contestants: list
    depth: int = 1
    floors: list = field(default_factory=list)


def all_measures():
    yield get(32)
    # Right behind what it is compared with.
    yield Measure("get-pipelined", "GET, 32 connections, 16 requests sent at once", "get", 32, OS[:1] + EVERYSEC[:1], 16)
    yield get(64)
    for connections in (32, 64):
        yield Measure(
            f"put-{connections}", f"PUT without fsync before the answer, {connections} connections", "put", connections,
            OS + ROUTED + EVERYSEC, floors=["http floor"])
    for connections in (32, 64):
        yield Measure(
            f"put-always-{connections}", f"PUT with fsync before the answer, {connections} connections", "put",
            connections, ALWAYS + SYNCED + ["etcd gateway"] + (["etcd native"] if connections == 64 else []))


def get(connections):
    return Measure(
        f"get-{connections}", f"GET, {connections} connections", "get", connections,
        OS + ROUTED + EVERYSEC[:1] + ["etcd gateway"], floors=["http floor"])
