"""Names for the addresses in a call stack."""

import bisect
import subprocess
from pathlib import Path


class Symbols:
    """Of one program, as it is mapped in a running process."""

    def __init__(self, pid):
        self.program = str(Path(f"/proc/{pid}/exe").resolve())
        lines = Path(f"/proc/{pid}/maps").read_text(encoding="ascii").splitlines()
        mine = [line.split()[0].split("-") for line in lines if line.endswith(self.program)]
        self.base, self.end = int(mine[0][0], 16), int(mine[-1][1], 16)
        listed = subprocess.run(
            ["nm", "--defined-only", "--numeric-sort", self.program], capture_output=True, text=True, check=True).stdout
        functions = [line.split(" ", 2) for line in listed.splitlines() if line[17:18] in "tTwW"]
        self.starts = [int(start, 16) for start, _, _ in functions]
        self.names = [name for _, _, name in functions]
        # A program that is not relocated has its first function above where it is mapped.
        self.offset = 0 if self.starts and self.starts[0] > self.base else self.base

    def name(self, address):
        """The mangled name of the function at a return address; None outside of the program."""
        if not self.base <= address < self.end:
            return None
        # The call stands before the address that it returns to.
        place = bisect.bisect_right(self.starts, address - 1 - self.offset) - 1
        return self.names[place] if place >= 0 else None


def demangled(names):
    """Readable names by mangled ones, each cut to what says where it is."""
    names = sorted(names)
    run = subprocess.run(
        ["swift", "demangle", "--compact", "--simplified"], input="\n".join(names), capture_output=True, text=True, check=True)
    run = subprocess.run(["c++filt", "-p"], input=run.stdout, capture_output=True, text=True, check=True)
    return dict(zip(names, run.stdout.splitlines()))
