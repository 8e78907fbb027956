"""Ports, processor time and a description of the machine. Linux only: it reads /proc."""

import os
import platform
import socket
import subprocess
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def free_ports(count):
    """Ports of the loopback that nobody listens on now, each a different one."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def cpu_seconds(pid):
    """User and system time of all threads of a process and of its children that have ended (redis rewrites its log in one)."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    return sum(int(field) for field in fields[11:15]) / TICKS


def memory_bytes(pid, field="VmRSS"):
    """Resident memory of a process; VmHWM is the most that it was."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) << 10
    return 0


def first_line(*command):
    """The first line that a program writes, such as its version; where it does not run, why."""
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        return str(error)
    return (run.stdout or run.stderr).strip().split("\n")[0]


def describe(directory):
    """The hardware and what runs on it, as it goes into a report. `directory` is where the data will be."""
    processor = next(
        (line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
         if line.startswith("model name")), platform.machine())
    memory = int(Path("/proc/meminfo").read_text(encoding="ascii").split()[1]) << 10
    system = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    kind = first_line("stat", "--file-system", "--format=%T", str(directory))
    return {
        "cpu": processor, "cores": os.cpu_count(), "memory_gib": round(memory / (1 << 30)), "system": system,
        "kernel": platform.release(), "file_system": kind,
    }
