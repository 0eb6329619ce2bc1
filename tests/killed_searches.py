"""Kills a search with SIGKILL at random instants, and lets it finish.

    python tests/killed_searches.py DIRECTORY KILLS

Prints, as JSON, which trials that had finished were touched again, how many there are,
and whether all ended with the numbers of a search that was never stopped. A program of
its own, because what it kills it forks before TensorFlow has started its threads.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from keras_alexnet import TrainConfig
from keras_alexnet.tuning import Range, SearchSpace, search

SPACE = SearchSpace({"learning_rate.value": Range(0.005, 0.05, log=True)})
CONFIG = TrainConfig(
    architecture="alexnet_mini",
    image_size=16,
    resize_size=16,
    horizontal_flip=False,
    epochs=3,
    global_batch_size=256,
    learning_rate="cosine(0.02, warmup=0.1)",
    checkpoint_steps=3,
)


def in_child(run_dir):
    """Starts or continues the search in a new process; returns its number."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        search(CONFIG, SPACE, run_dir=run_dir, trials=2)
        code = 0
    finally:
        os._exit(code)


def finish(pid):
    _, status = os.waitpid(pid, 0)
    if status:
        sys.exit(f"The search ended with status {status}.")


def kill(pid, run_dir, begin, seconds):
    """Kills a search when a trial has been under way for a while."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        owners = run_dir.glob("trials/*/.lock-owner.json")
        if any(owner.stat().st_mtime > begin for owner in owners):
            break
        time.sleep(0.05)
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def histories(run_dir):
    """The numbers of each trial, without what depends on time."""
    paths = run_dir.glob("trials/*/history.csv")
    return {path.parent.name: path.read_text() for path in paths}


def finished(run_dir):
    """When each finished trial was finished."""
    paths = run_dir.glob("trials/*/result.json")
    return {path.parent.name: path.stat().st_mtime_ns for path in paths}


def main():
    directory, kills = Path(sys.argv[1]), int(sys.argv[2])
    generator = random.Random(0)
    whole, killed = directory / "whole", directory / "killed"
    finish(in_child(whole))
    lost = []
    for number in range(kills + 1):
        before, begin = finished(killed), time.time()
        pid = in_child(killed)
        if number < kills:
            kill(pid, killed, begin, generator.uniform(0, 6))
        else:
            finish(pid)
        after = finished(killed)
        lost += [name for name in before if after.get(name) != before[name]]
    found = histories(killed)
    same = found == histories(whole)
    print(json.dumps({"lost": lost, "trials": len(found), "same": same}))


if __name__ == "__main__":
    main()
