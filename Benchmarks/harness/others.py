"""What this project is compared with: redis-server, etcd, and an HTTP server that does nothing."""

import base64
import http.client
import json
import socket
import sys

from harness.distribkv import VALUE, ask, key
from harness.machine import free_ports

PIPELINED = 1_000
# Operations in one transaction of etcd when it is filled; its default limit is 128.
TRANSACTION = 128
# etcd keeps every version of a key until it is compacted, and stops writing at 2 GB unless told otherwise.
ETCD_QUOTA_BYTES = 8 << 30


def redis_key(number):
    """What redis-benchmark -r makes of key:__rand_int__."""
    return f"key:{number:012d}"


def redis_command(connection, *words):
    """One command; the first line of the answer, and for a bulk string the string."""
    connection.sendall(encoded(*words))
    answer = connection.recv(1 << 16)
    while not answer.endswith(b"\r\n"):
        answer += connection.recv(1 << 16)
    return answer.decode()


def encoded(*words):
    parts = [f"${len(word)}\r\n{word}\r\n" for word in words]
    return f"*{len(words)}\r\n{''.join(parts)}".encode()


class Redis:
    """A redis-server with an append-only file and, where asked for, one replica with the same settings."""

    def __init__(self, session, name, fsync, replica=False):
        self.session, self.name, self.fsync = session, name, fsync
        ports = free_ports(2)
        self.primary = self.start("primary", ports[0])
        self.replica = None
        if replica:
            self.replica = self.start("replica", ports[1], "--replicaof", "127.0.0.1", str(ports[0]))
            self.replica.wait_until(lambda: "master_link_status:up" in self.ask(self.replica, "INFO", "replication"))

    def start(self, role, port, *more):
        directory = self.session.directory / f"{self.name}-{role}"
        directory.mkdir()
        server = self.session.start(
            f"{self.name}-{role}",
            ["redis-server", "--port", port, "--bind", "127.0.0.1", "--dir", directory, "--save", "", "--daemonize", "no",
             "--appendonly", "yes", "--appendfsync", self.fsync, *more], port)
        server.wait_until(lambda: "PONG" in self.ask(server, "PING"))
        return server

    def ask(self, server, *words):
        with socket.create_connection(("127.0.0.1", server.port), 5) as connection:
            return redis_command(connection, *words)

    def load(self, count):
        with socket.create_connection(("127.0.0.1", self.primary.port), 60) as connection:
            for start in range(0, count, PIPELINED):
                numbers = range(start, min(start + PIPELINED, count))
                connection.sendall(b"".join(encoded("SET", redis_key(number), VALUE) for number in numbers))
                expected, answer = 5 * len(numbers), b""
                while len(answer) < expected:
                    answer += connection.recv(1 << 16)
                if answer != b"+OK\r\n" * len(numbers):
                    sys.exit(f"redis-server refused to be filled: {answer[:200]!r}")


class Etcd:
    """A cluster of one member; etcd always syncs its log before it answers a write."""

    def __init__(self, session, name="etcd"):
        client, peer = free_ports(2)
        self.server = session.start(
            name,
            ["etcd", "--name", "only", "--data-dir", session.directory / name, "--log-level", "error",
             "--listen-client-urls", f"http://127.0.0.1:{client}", "--advertise-client-urls", f"http://127.0.0.1:{client}",
             "--listen-peer-urls", f"http://127.0.0.1:{peer}", "--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}",
             "--initial-cluster", f"only=http://127.0.0.1:{peer}", "--quota-backend-bytes", ETCD_QUOTA_BYTES], client)
        self.server.wait_until(lambda: ask(client, "GET", "/health")[0] == 200)

    def load(self, count):
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        value = base64.b64encode(VALUE.encode()).decode()
        for start in range(0, count, TRANSACTION):
            puts = [{"request_put": {"key": base64.b64encode(key(number).encode()).decode(), "value": value}}
                    for number in range(start, min(start + TRANSACTION, count))]
            connection.request("POST", "/v3/kv/txn", json.dumps({"success": puts}))
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 200:
                sys.exit(f"etcd refused to be filled: {answer.status} {body[:200]!r}")
        connection.close()

    def puts(self):
        """How many puts the member has done."""
        for line in ask(self.server.port, "GET", "/metrics")[2].splitlines():
            if line.startswith(b"etcd_mvcc_put_total "):
                return int(float(line.split()[1]))
        sys.exit("etcd does not count its puts in /metrics")


class HTTPFloor:
    """Benchmarks/floors/http_floor.c."""

    def __init__(self, session, program):
        (port,) = free_ports(1)
        self.server = session.start("http-floor", [program, port], port)
        self.server.wait_until(lambda: ask(port, "GET", "/")[0] == 200)
