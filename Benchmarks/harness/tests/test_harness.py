"""python3 -m unittest discover -s Benchmarks -t Benchmarks: what needs no server and no package."""

import unittest

from harness import figures, load, report
from harness.measures import Measure, all_measures
from harness.targets import TARGETS, target_rows

WRK = """Running 2s test @ http://127.0.0.1:9007
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   612.14us  218.00us   9.50ms   93.99%
    Req/Sec    51.78k     2.65k   55.54k    75.00%
  Latency Distribution
     50%  590.00us
     75%  671.00us
     90%  755.00us
     99%    1.09ms
  103009 requests in 2.00s, 17.59MB read
  Socket errors: connect 0, read 1, write 2, timeout 3
  Non-2xx or 3xx responses: 7
Requests/sec:  51486.16
"""
REDIS = '''"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms"
"SET","67476.38","0.280","0.072","0.239","0.487","0.551","4.679"
'''
MEASURE = Measure("put", "PUT", "put", 32, ["node", "redis"])


def row(contestant, number, requests, cpu, p99=1.0):
    return {"measure": "put", "contestant": contestant, "round": number, "requests": requests, "seconds": 2.0, "errors": 0,
            "p50_ms": 0.5, "p99_ms": p99, "cpu_us": {contestant: cpu}}


class Parsing(unittest.TestCase):
    def test_wrk(self):
        outcome = load.parse_wrk(WRK)
        self.assertEqual(outcome, {"requests": 103_009, "seconds": 2.0, "errors": 13, "p50_ms": 0.59, "p99_ms": 1.09})

    def test_wrk_pads_what_is_in_seconds(self):
        self.assertEqual(load.parse_wrk(WRK.replace("99%    1.09ms", "99%    1.09s "))["p99_ms"], 1_090)

    def test_redis_benchmark(self):
        outcome = load.parse_redis_benchmark(REDIS, 1_000)
        self.assertAlmostEqual(outcome.rate, 67_476.38)
        self.assertEqual((outcome["p50_ms"], outcome["p99_ms"]), (0.239, 0.551))

    def test_durations(self):
        self.assertEqual([load.milliseconds(text) for text in ("250.00us", "1.50ms", "2.00s", "1.00m")], [0.25, 1.5, 2_000, 60_000])


class Figures(unittest.TestCase):
    def test_ratio_is_taken_within_a_round(self):
        node = [row("node", number, requests, 10.0) for number, requests in enumerate([100, 200, 400])]
        redis = [row("redis", number, requests, 5.0) for number, requests in enumerate([200, 200, 200])]
        self.assertEqual(figures.ratio(redis, node, figures.rate), (1.0, 0.5, 2.0))
        self.assertEqual(figures.ratio(redis, node, figures.server_cpu), (0.5, 0.5, 0.5))

    def test_what_is_lost_is_named_and_what_is_won_is_not(self):
        raw = [row("node", 0, 100, 10.0), row("redis", 0, 150, 20.0)]
        self.assertEqual(list(figures.losses(raw, [MEASURE])), ["PUT: `redis` against `node`: requests/s 1.50 × ours"])

    def test_a_client_without_percentiles_has_none(self):
        raw = [row("node", 0, 100, 10.0), row("redis", 0, 100, 10.0, None)]
        self.assertEqual(list(figures.losses(raw, [MEASURE])), [])
        self.assertIn("| redis | 50 | 1.00 | 0.50 | – |", report.measure_table(raw, MEASURE))


class Targets(unittest.TestCase):
    def document(self, node_cpu):
        """One round in which everything is the same, but for the CPU of nodes."""
        rounds = []
        for measure in all_measures():
            for name in measure.contestants + measure.floors:
                rounds.append(row(name, 0, 100, node_cpu if name.startswith("node") else 10.0) | {"measure": measure.name})
        return {"rounds": rounds, "floors": [{name: {"cpu_us": 5.0} for name in ("get", "put1")}]}

    def test_a_target_is_met_at_its_limit(self):
        rows = list(target_rows(self.document(18.0)))
        self.assertEqual(len(rows), len(TARGETS))
        self.assertEqual((rows[0][1], rows[0][2].median, rows[0][3]), ("≤ 1.2", 1.2, True))

    def test_a_target_is_missed_beyond_its_limit(self):
        rows = list(target_rows(self.document(18.1)))
        self.assertFalse(rows[0][3])
        # As many writes as etcd are not eight times as many.
        self.assertEqual((rows[2][1], rows[2][3]), ("≥ 8", False))


class Section(unittest.TestCase):
    def test_it_replaces_its_own_text_and_no_other(self):
        once = report.replace_section("# Title\n\nby hand\n", "compare", "first")
        twice = report.replace_section(once + "\n## More by hand\n", "compare", "second")
        self.assertNotIn("first", twice)
        self.assertEqual(twice, once.replace("first", "second") + "\n## More by hand\n")

    def test_a_section_without_an_end_is_refused(self):
        broken = report.replace_section("", "compare", "x").replace("<!-- compare: end -->", "")
        with self.assertRaises(ValueError):
            report.replace_section(broken, "compare", "y")


if __name__ == "__main__":
    unittest.main()
