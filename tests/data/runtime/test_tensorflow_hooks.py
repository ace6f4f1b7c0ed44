"""The exit of a worker: C++ output is dropped, Python output is not."""

import subprocess
import sys

PROGRAM = """
import os, sys
from tenfold.data.runtime.tensorflow_hooks import silence_native_stderr
os.write(2, b"E before\\n")
silence_native_stderr()
os.write(2, b"E The tasks have crashed.\\n")
print("a Python line", file=sys.stderr)
raise ValueError("no")
"""


def test_only_native_output_is_silenced() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert "E before\n" in done.stderr
    assert "crashed" not in done.stderr
    assert "a Python line\n" in done.stderr
    assert "ValueError: no" in done.stderr
