"""From raw rounds to medians and ratios. A ratio is taken within each round, and only then summed up."""

import statistics


class Figure(tuple):
    """Median, least and most."""

    def __new__(cls, values):
        values = list(values)
        return super().__new__(cls, (statistics.median(values), min(values), max(values)))

    @property
    def median(self):
        return self[0]


def rows_of(raw, measure, name):
    """The rounds of one contestant in one measure, in order."""
    return [row for row in raw if row["measure"] == measure and row["contestant"] == name]


def rate(row):
    return row["requests"] / row["seconds"]


def server_cpu(row):
    """Of the server itself: the first of the processes."""
    return next(iter(row["cpu_us"].values()))


def all_cpu(row):
    return sum(row["cpu_us"].values())


def figure(rows, of):
    values = [of(row) for row in rows]
    return None if None in values else Figure(values)


def ratio(rows, base, of):
    """`of` each row to `of` the same round's row of `base`."""
    values = [(of(row), of(other)) for row, other in zip(rows, base)]
    if any(mine is None or not other for mine, other in values):
        return None
    return Figure(mine / other for mine, other in values)


# What is better by less than this is not called better.
NOISE = 1.05


def losses(raw, measures):
    """One line for each figure in which a contestant that is not ours is better than our own at its side."""
    for measure in measures:
        base = rows_of(raw, measure.name, measure.contestants[0])
        for name in measure.contestants[1:]:
            if name.startswith(("node", "router")):
                continue
            own = measure.contestants[1 if name.endswith("replica") else 0]
            base, rows = rows_of(raw, measure.name, own), rows_of(raw, measure.name, name)
            better = []
            for what, of, sign in [
                ("requests/s", rate, 1), ("CPU of the server", server_cpu, -1), ("CPU of all its processes", all_cpu, -1),
                ("p99", lambda row: row["p99_ms"], -1),
            ]:
                found = ratio(rows, base, of)
                if found and len(rows[0]["cpu_us"]) == 1 and of is all_cpu:
                    continue
                if found and (found.median > NOISE if sign > 0 else found.median < 1 / NOISE):
                    better.append(f"{what} {found.median:.2f} × ours")
            if better:
                yield f"{measure.title}: `{name}` against `{own}`: {', '.join(better)}"
