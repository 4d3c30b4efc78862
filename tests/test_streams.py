"""The process's own streams, in processes: what is asked of Python holds for them too."""

import subprocess
import sys

import pytest
from tiny import process_env

# The second words pass by the stream: they come first where that one waits.
WRITES = """
import os, sys
from anigan_jax import streams
streams.prepare()
print("stream")
os.write(1, b"direct ")
"""


@pytest.mark.parametrize(
    ("flags", "environment", "at_once"),
    [
        ((), {}, False),
        (("-u",), {}, True),
        ((), {"PYTHONUNBUFFERED": "1"}, True),
        # It starts itself anew there.
        (("-u", "-X", "utf8=0"), {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0"}, True),
    ],
)
def test_output_to_a_pipe_waits_unless_it_is_asked_not_to(flags, environment, at_once):
    kept = {k: v for k, v in process_env().items() if k != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        [sys.executable, *flags, "-c", WRITES],
        env={**kept, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ("stream\ndirect " if at_once else "direct stream\n")
