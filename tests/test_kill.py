"""Runs that are killed end with the bytes of runs that are not."""

import json
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).with_name("killed_runs.py")


def test_runs_killed_at_random_instants_end_with_the_same_bytes(tmp_path):
    done = subprocess.run(
        [sys.executable, PROGRAM, tmp_path, "--kills", "20"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout.splitlines()[-1])
    assert outcome["kills"] == 20 and outcome["different"] == []
    # The instants that matter most.
    assert outcome["while_writing"] >= 3
