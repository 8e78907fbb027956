"""Load clients. Each call runs one of them against one server and says what it saw."""

import csv
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LUA = Path(__file__).resolve().parent.parent / "lua"
UNITS_MS = {"us": 0.001, "ms": 1.0, "s": 1_000.0, "m": 60_000.0}
# Of redis-benchmark's runs, which are counted in requests: what the first is sized by.
FIRST_GUESS_RATE = 20_000
# etcdctl's own check ends after a minute by itself; it is only ever run for a part of that.
ETCD_CHECK_LOAD = "xl"
ETCD_CHECK_CLIENTS = 1_000
ETCD_CHECK_START_SECONDS_MAX = 30


class Outcome(dict):
    """requests, seconds, errors, p50_ms, p99_ms (None where the client does not say)."""

    @property
    def rate(self):
        return self["requests"] / self["seconds"]


def milliseconds(text):
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text).groups()
    return float(number) * UNITS_MS[unit]


def percentile(text, which):
    # At the start of a line: the line of averages ends with a percentage as well. Seconds are followed by a space.
    return milliseconds(re.search(rf"^ +{which}% +(\S+) *$", text, re.M)[1])


def parse_wrk(text):
    """What `wrk --latency` printed."""
    count = re.search(r"(\d+) requests in ([\d.]+(?:us|ms|s|m))", text)
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    broken = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    return Outcome(
        requests=int(count[1]), seconds=milliseconds(count[2]) / 1_000,
        errors=(int(refused[1]) if refused else 0) + sum(map(int, broken.groups()) if broken else ()),
        p50_ms=percentile(text, 50), p99_ms=percentile(text, 99))


def parse_redis_benchmark(text, requests):
    """What `redis-benchmark --csv` printed of its one test."""
    row = next(csv.DictReader(text.splitlines()))
    return Outcome(
        requests=requests, seconds=requests / float(row["rps"]), errors=0, p50_ms=float(row["p50_latency_ms"]),
        p99_ms=float(row["p99_latency_ms"]))


def run(command, environment=None, accepted=(0,)):
    finished = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False, env=os.environ | (environment or {}))
    if finished.returncode not in accepted:
        sys.exit(f"{' '.join(map(str, command))} failed: {finished.stdout}{finished.stderr}")
    return finished.stdout


def wrk(script, port, seconds, connections, **environment):
    """One thread of wrk with a script of Benchmarks/lua, whose settings are the environment."""
    settings = {name: str(value) for name, value in environment.items()}
    return parse_wrk(run(
        ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", LUA / script, f"http://127.0.0.1:{port}"],
        settings))


class RedisBenchmark:
    """redis-benchmark, whose runs are given in requests: each is sized by the rate of the one before."""

    def __init__(self, port, keys):
        self.port, self.keys, self.rates = port, keys, {}

    def __call__(self, operation, seconds, connections, depth):
        kind = (operation, connections, depth)
        if kind not in self.rates:
            self.rates[kind] = self.once(operation, FIRST_GUESS_RATE // 4, connections, depth).rate
        outcome = self.once(operation, max(1_000, int(self.rates[kind] * seconds)), connections, depth)
        self.rates[kind] = outcome.rate
        return outcome

    def once(self, operation, requests, connections, depth):
        requests = requests // depth * depth
        return parse_redis_benchmark(run(
            ["redis-benchmark", "-p", self.port, "-c", connections, "-n", requests, "-r", self.keys, "-d", 100, "-P", depth,
             "-t", {"put": "set", "get": "get"}[operation], "--csv"]), requests)


class KVBench:
    """`kv bench` through a router whose redirects it follows, which wrk cannot. Its keys are its own: it loads them first."""

    def __init__(self, kv, address, records):
        self.command = [
            kv, "bench", "--router", address, "--records", records, "--value-size", 100, "--keys", "uniform", "--via", "router"]
        run([*self.command, "--phase", "load"])

    def __call__(self, operation, seconds, connections, depth):
        report = report_of([
            *self.command, "--phase", "run", "--workload", operation, "--connections", connections, "--pipeline", depth,
            "--duration", f"{seconds}s", "--warm-up", "0s"])
        of = report["operations"][{"get": "read", "put": "update"}[operation]]
        return Outcome(
            requests=of["count"], seconds=report["duration_s"], errors=of["errors"], p50_ms=of["p50_us"] / 1_000,
            p99_ms=of["p99_us"] / 1_000)


def report_of(command, accepted=(0,)):
    """What a command of `kv bench` writes as JSON."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        run([*command, "--json", file.name], accepted=accepted)
        return json.loads(Path(file.name).read_text(encoding="utf-8"))


def replication_lag(kv, address, rate, seconds):
    """p99 in milliseconds from the leader's answer until its only follower has the write, at a fixed rate of writes."""
    # 3: on a machine that does other things as well, not every write may have been sent in time. Lag is lag all the same.
    report = report_of([
        kv, "bench", "replication", "--router", address, "--rate", int(rate), "--duration", f"{seconds}s"], accepted=(0, 3))
    (follower,) = report["followers"].values()
    return follower["lag"]["p99_us"] / 1_000


def etcd_check(etcd, seconds):
    """`etcdctl check perf` for a while, counted by the member itself: it speaks etcd's native protocol."""
    # A prefix of its own: it refuses one under which there are keys, and it is not left the time to delete them.
    checker = subprocess.Popen(
        ["etcdctl", "--endpoints", etcd.server.address, "check", "perf", f"--load={ETCD_CHECK_LOAD}",
         f"--prefix=/check-{time.monotonic_ns()}/"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, env=os.environ | {"ETCDCTL_API": "3"})
    try:
        idle, deadline = etcd.puts(), time.monotonic() + ETCD_CHECK_START_SECONDS_MAX
        # Its thousand clients connect first.
        while etcd.puts() < idle + ETCD_CHECK_CLIENTS:
            if time.monotonic() > deadline:
                sys.exit("etcdctl check perf did not begin to put")
            time.sleep(0.1)
        puts, before, cpu = etcd.puts(), time.monotonic(), etcd.server.cpu_seconds()
        time.sleep(seconds)
        outcome = Outcome(
            requests=etcd.puts() - puts, seconds=time.monotonic() - before, errors=0, p50_ms=None, p99_ms=None)
        outcome["cpu_us"] = {"etcd": (etcd.server.cpu_seconds() - cpu) / max(1, outcome["requests"]) * 1e6}
        return outcome
    finally:
        checker.kill()
        checker.wait()


def rocksdb_floor(program, directory, keys, operations, synced_batches):
    """Benchmarks/floors/rocksdb_floor.c: by operation, microseconds of time and of CPU for a key."""
    lines = run([program, directory, keys, operations, synced_batches]).split("\n")
    return {name: {"us": float(us), "cpu_us": float(cpu)} for name, us, cpu in (line.split() for line in lines if line)}
