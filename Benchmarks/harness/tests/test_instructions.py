"""What .ci/instructions reads and how it judges."""

import tempfile
import unittest
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[3] / ".ci/instructions"


def load_script():
    loader = SourceFileLoader("instructions", str(SCRIPT))
    module = module_from_spec(spec_from_loader("instructions", loader))
    loader.exec_module(module)
    return module


instructions = load_script()

CALLGRIND = """version: 1
events: Ir

fn=(1) main
1 10
cfn=(2) malloc
calls=3 0
1 300
cfn=(3) swift_retain
calls=5 0
1 50

fn=(3)
1 20
cfn=(2)
calls=4 0
1 400

fn=(2)
1 700

totals: 1480
"""


class Instructions(unittest.TestCase):
    def test_calls_of_allocators_are_counted_also_by_number(self):
        with tempfile.NamedTemporaryFile("w", suffix=".out") as file:
            file.write(CALLGRIND)
            file.flush()
            self.assertEqual(instructions.counts(file.name), (1_480, 7))

    def test_a_count_within_the_tolerance_passes(self):
        known = {"instructions": 1_000, "allocations": 2}
        self.assertEqual(instructions.judge({"instructions": 1_050, "allocations": 2}, known), [])

    def test_more_instructions_or_allocations_fail(self):
        known = {"instructions": 1_000, "allocations": 2}
        self.assertEqual(len(instructions.judge({"instructions": 1_051, "allocations": 2}, known)), 1)
        self.assertEqual(len(instructions.judge({"instructions": 900, "allocations": 3}, known)), 1)

    def test_a_new_piece_needs_a_threshold(self):
        self.assertEqual(len(instructions.judge({"instructions": 1, "allocations": 0}, None)), 1)

    def test_a_threshold_may_have_a_tolerance_of_its_own(self):
        known = {"instructions": 1_000, "allocations": 2, "tolerance": 0.15}
        self.assertEqual(instructions.judge({"instructions": 1_150, "allocations": 2}, known), [])
        self.assertEqual(len(instructions.judge({"instructions": 1_151, "allocations": 2}, known)), 1)
