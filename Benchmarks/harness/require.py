"""What must be on the machine: packages, by compose/lib.sh; this project's programs and the floors, built."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
BENCHMARKS = ROOT / "Benchmarks"
PROGRAMS = ("storage-node", "router", "replicator", "kv")
# Debian starts these when their packages are installed.
SERVICES = {"redis-server": "redis-server", "etcd-server": "etcd"}


def shell(script, *arguments):
    """Runs a piece of bash that knows what compose/lib.sh knows."""
    code = f'set -euo pipefail; source "{ROOT}/compose/lib.sh"; {script}'
    if subprocess.run(["bash", "-c", code, "Benchmarks", *arguments], check=False).returncode != 0:
        sys.exit(1)


def is_installed(package):
    status = subprocess.run(
        ["dpkg-query", "-W", "-f=${db:Status-Status}", package], capture_output=True, text=True, check=False)
    return status.stdout == "installed"


def packages(*names):
    """Installs those that are missing. A service that comes with one of them does not stay behind running."""
    new = [name for name in names if not is_installed(name)]
    if not new:
        return
    shell('require_packages "$@"', *new)
    for name in new:
        if name in SERVICES:
            shell('as_root=(); if ((EUID != 0)); then as_root=(sudo -n); fi; '
                  'if [[ -d /run/systemd/system ]]; then ${as_root[@]+"${as_root[@]}"} systemctl disable --now "$1"; '
                  'else ${as_root[@]+"${as_root[@]}"} service "$1" stop; fi >/dev/null 2>&1 || true', SERVICES[name])


def programs(folder=None):
    """The folder of this project's programs: the one given, or that of a release build, which is made now."""
    if folder is None:
        products = " ".join(f"--product {name}" for name in PROGRAMS)
        for product in products.split("--product ")[1:]:
            shell('require_packages "${PACKAGES[@]}"; require_swift; release_options; '
                  f'build "{product.strip()} (release)" -c release "${{RELEASE_OPTIONS[@]}}" --product {product.strip()}')
        folder = ROOT / ".build/release"
    folder = Path(folder).resolve()
    for name in PROGRAMS:
        if not (folder / name).exists():
            sys.exit(f"there is no {folder / name}: leave out --bin to build it")
    return folder


def floor(name, into):
    """Builds one program of Benchmarks/floors."""
    target = Path(into) / name
    compile_floor(name, target, ["-lrocksdb"] if name.startswith("rocksdb") else [])
    return target


def rocksdb_floors(into):
    """Builds the floor of RocksDB as everybody links it and, where the system has its archive, as nodes do; by name."""
    found = {"": floor("rocksdb_floor", into)}
    linked = Path(into) / "rocksdb_floor_linked_in"
    if compile_floor("rocksdb_floor", linked, ["-l:librocksdb.a", *ROCKSDB_NEEDS], check=False):
        found[", linked in"] = linked
    return found


# What compose/release-options gives the linker beside the archive.
ROCKSDB_NEEDS = ["-lsnappy", "-llz4", "-lzstd", "-lz", "-lbz2", "-lstdc++", "-lm", "-lpthread"]


def compile_floor(name, target, libraries, check=True):
    run = subprocess.run(
        ["cc", "-O2", "-Wall", "-o", target, BENCHMARKS / f"floors/{name}.c", *libraries], check=check, capture_output=not check)
    return run.returncode == 0
