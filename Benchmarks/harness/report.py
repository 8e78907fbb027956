"""The section of docs/benchmarks.md that Benchmarks/compare writes, and the file of raw results."""

import json
import os
from pathlib import Path

from harness.figures import all_cpu, figure, losses, rate, ratio, rows_of, server_cpu
from harness.targets import target_rows

HEAD = ["server", "requests/s", "to the first", "p50 ms", "p99 ms", "CPU of the server, µs", "to the first", "CPU of all, µs"]


def write_json(path, document):
    """One round a line, so that a difference can be read."""
    rest = {name: value for name, value in document.items() if name != "rounds"}
    rounds = ",\n".join("  " + json.dumps(row) for row in document["rounds"])
    text = json.dumps(rest, indent=1, ensure_ascii=False)
    Path(path).write_text(f'{text[:-2]},\n "rounds": [\n{rounds}\n ]\n}}\n', encoding="utf-8")


def replace_section(text, name, content):
    """`text` with what stands between the marks of the section replaced; where there are none, added to the end."""
    begin, end = f"<!-- {name}: begin; written by Benchmarks/{name}, do not edit -->", f"<!-- {name}: end -->"
    section = f"{begin}\n\n{content.strip()}\n\n{end}"
    before, found, rest = text.partition(begin)
    if not found:
        return f"{text.rstrip()}\n\n{section}\n"
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"the section {name} begins and does not end")
    return before + section + after


def write_section(path, name, content):
    path = Path(path)
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    # Beside it first: a run that is stopped here must not leave half a page.
    beside = path.with_suffix(".md.new")
    beside.write_text(replace_section(text, name, content), encoding="utf-8")
    os.replace(beside, path)


def spread(value, form):
    """Median, and the least and most in brackets."""
    if value is None:
        return "–"
    middle, least, most = (format(part, form) for part in value)
    return middle if least == most else f"{middle} ({least} – {most})"


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def measure_table(raw, measure):
    base = rows_of(raw, measure.name, measure.contestants[0])
    rows = []
    for name in measure.contestants + measure.floors:
        mine = rows_of(raw, measure.name, name)
        rows.append([
            name, spread(figure(mine, rate), ",.0f"), spread(ratio(mine, base, rate), ".2f"),
            spread(figure(mine, lambda row: row["p50_ms"]), ".2f"), spread(figure(mine, lambda row: row["p99_ms"]), ".2f"),
            spread(figure(mine, server_cpu), ".1f"), spread(ratio(mine, base, server_cpu), ".2f"),
            spread(figure(mine, all_cpu), ".1f") if len(mine[0]["cpu_us"]) > 1 else "",
        ])
    return table(HEAD, rows)


def floor_table(floors):
    rows = [[name, spread(figure(floors, lambda row: row[name]["us"]), ".2f"),
             spread(figure(floors, lambda row: row[name]["cpu_us"]), ".2f")] for name in floors[0]]
    return table(["RocksDB from C, one thread", "µs a key", "CPU, µs a key"], rows)


NOTES = """
- A ratio is taken within each round, then the median of the rounds, with the least and the most in brackets. Servers are
  asked in turn, so that what else the machine does hits all of them.
- CPU is user and system time from `/proc` of all threads of a process, over the requests answered. "All" adds what the
  server needs beside it: follower and replicator, replica, the node behind a router.
- Clients: wrk with one thread for HTTP, redis-benchmark for Redis. Both are closed loops: p50 and p99 are of what was sent, at
  the most that a server takes. wrk formats a key a request in Lua and redis-benchmark in C, and client and server share
  the processors, so requests/s favours Redis; CPU does not depend on it.
- `router redirect` answers 307 and no more: wrk does not follow. `… followed` is `kv bench --via router`, which does, over
  keys of its own (a tenth as many); there and at `router proxy` "all" is what the whole request costs.
- Replicas follow without being waited for, here and at Redis. Our follower gets what the replicator reads from the
  leader's log and pushes; Redis's replica has the primary's stream, and appends to a file of its own with the same setting.
- `redis everysec` syncs its file every second on a thread of its own; `node os` leaves that to the operating system.
  `always` is one fsync for all writes that wait at that moment, in both. etcd syncs always, has one member, and is
  asked through its JSON gateway; its reads are `serializable`, of at most 100,000 keys.
- `etcd native` is `etcdctl check perf`: 1,000 clients over gRPC, keys of 256 bytes and values of 1,024, at most 15,000 puts a second.
- `http floor` parses nothing and writes one answer. RocksDB's figures: `put1` one put a write on an empty database,
  `put32` 32 puts a write, `sync…` with fsync, `loaded1` puts into a database that has all keys, `get` look-ups there. "Linked in" is RocksDB's archive in the program, as
  nodes have it, instead of the shared library; targets are held to the shared one.
""".strip()


def target_table(rows):
    return table(["figure", "target", "median (least – most)", ""], [
        [title, limit, spread(figure, ".2f"), "met" if is_met else "**missed**"] for title, limit, figure, is_met in rows])


def compare_section(document, measures):
    settings, machine, versions = document["settings"], document["machine"], document["versions"]
    raw = document["rounds"]
    lines = [
        "## Side by side", "",
        f"Written by `Benchmarks/compare{' --quick' if settings['quick'] else ''}` on {document['started'][:10]}; every round is in "
        f"[{document['raw']}]({document['raw']}). {settings['rounds']} rounds of {settings['seconds']} s each, "
        f"{settings['keys']:,} keys of 12 bytes (16 at Redis) with values of 100 bytes.", "",
        f"- **Machine:** {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}, kernel "
        f"{machine['kernel']}, data on {machine['file_system']}. Load average {document['load_before']:.1f} before the run and "
        f"{document['load_after']:.1f} after it (the servers and clients themselves make about 2).",
        "- **Versions:** " + ", ".join(f"{name} {version}" for name, version in versions.items()) + ".",
        NOTES, "", "### Where something else is ahead of us", "",
    ]
    found = list(losses(raw, measures))
    lines += [f"- {line}" for line in found] or ["In nothing, in this run."]
    lines += ["", "### Targets", "", target_table(target_rows(document))]
    for measure in measures:
        lines += ["", f"### {measure.title}", "", measure_table(raw, measure)]
    refused = sum(row["errors"] for row in raw)
    lines += ["", f"Requests that failed: {refused:,}.", "", "### Floors", "", floor_table(document["floors"])]
    return "\n".join(lines)
