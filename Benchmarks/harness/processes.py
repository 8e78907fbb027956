"""Processes and a temporary directory that are gone at the end, however the end comes."""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness.machine import cpu_seconds

READY_SECONDS_MAX = 60
STOP_SECONDS_MAX = 30
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


def end_with_parent():
    """Between fork and exec: the kernel ends the child should this program be killed without a chance to clean up."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Server:
    """One server process and where it listens."""

    def __init__(self, command, port, log, environment=None):
        self.port, self.log = port, Path(log)
        with open(log, "ab") as output:
            # A session of its own: Ctrl-C reaches this program alone, which then stops the servers in order.
            self.process = subprocess.Popen(
                [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True, preexec_fn=end_with_parent,
                env=os.environ | (environment or {}))
        self.pid = self.process.pid

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def cpu_seconds(self):
        return cpu_seconds(self.pid)

    def wait_until(self, is_ready, seconds=READY_SECONDS_MAX):
        """Asks again and again; an OSError counts as no. Ends the program where the answer stays no."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                if is_ready():
                    return
            except OSError:
                pass
            if self.process.poll() is not None or time.monotonic() > deadline:
                tail = self.log.read_text(encoding="utf-8", errors="replace")[-2_000:]
                sys.exit(f"{self.process.args[0]} did not become ready in {seconds} s; the end of its log:\n{tail}")
            time.sleep(0.02)

    def kill(self):
        """What no program can prepare for."""
        self.process.kill()
        self.process.wait()

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Session:
    """Used with `with`: starts servers, and at the end stops them in reverse order and removes their data."""

    def __init__(self, name):
        self.name, self.servers = name, []

    def __enter__(self):
        self.directory = Path(tempfile.mkdtemp(prefix=f"distribkv-{self.name}-"))
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda number, _: sys.exit(128 + number))
        return self

    def __exit__(self, *_):
        # A second Ctrl-C must not leave half of them behind.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for server in reversed(self.servers):
            if server.process.poll() is None:
                server.process.terminate()
        for server in reversed(self.servers):
            server.stop()
        shutil.rmtree(self.directory, ignore_errors=True)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def start(self, name, command, port, environment=None):
        server = Server(command, port, self.directory / f"{name}.log", environment)
        self.servers.append(server)
        return server

