"""What Benchmarks/compare holds the project to, each a ratio within one run."""

from dataclasses import dataclass
from typing import Callable

from harness.figures import Figure, all_cpu, rate, rows_of, server_cpu


@dataclass(frozen=True)
class Target:
    """`of(round)` is the ratio in one round; it is met at `limit` or better, which is below it unless `at_least`."""

    title: str
    limit: float
    of: Callable
    at_least: bool = False

    def is_met(self, value):
        return value >= self.limit if self.at_least else value <= self.limit


class Round:
    """One round of a run: `round(measure, contestant)` is its row."""

    def __init__(self, document, number):
        self.rounds, self.number = document["rounds"], number
        self.floor = document["floors"][number]

    def __call__(self, measure, contestant):
        return rows_of(self.rounds, measure, contestant)[self.number]


def http_and(operation, measure):
    """The floor of a request: HTTP's, and RocksDB's own work for it."""
    return lambda one: server_cpu(one(measure, "http floor")) + one.floor[operation]["cpu_us"]


TARGETS = [
    Target(
        "GET: CPU of the node, to `http floor` + RocksDB `get`", 1.20,
        lambda one: server_cpu(one("get-32", "node os + follower")) / http_and("get", "get-32")(one)),
    Target(
        "PUT: CPU of the leader with its follower attached, to `http floor` + RocksDB `put1`", 1.30,
        lambda one: server_cpu(one("put-32", "node os + follower")) / http_and("put1", "put-32")(one)),
    Target(
        "PUT with fsync, 64 connections: writes/s to `etcd gateway`", 8,
        lambda one: rate(one("put-always-64", "node always")) / rate(one("put-always-64", "etcd gateway")), True),
    Target(
        "PUT with fsync, 64 connections: writes/s to `redis always`", 1.6,
        lambda one: rate(one("put-always-64", "node always")) / rate(one("put-always-64", "redis always")), True),
    Target(
        "GET, 16 at once: requests/s to one at a time", 3,
        lambda one: rate(one("get-pipelined", "node os")) / rate(one("get-32", "node os")), True),
    Target(
        "GET, proxied: CPU of router and nodes to that of the node alone", 2.2,
        lambda one: all_cpu(one("get-32", "router proxy")) / server_cpu(one("get-32", "node os"))),
]


def target_rows(document):
    """For each target: title, limit as text, the figure, whether its median meets the limit."""
    rounds = [Round(document, number) for number in range(len(document["floors"]))]
    for target in TARGETS:
        figure = Figure(target.of(one) for one in rounds)
        yield target.title, f"{'≥' if target.at_least else '≤'} {target.limit:g}", figure, target.is_met(figure.median)
