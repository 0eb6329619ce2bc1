"""Kills a search with SIGKILL at random instants, and lets it finish.

    python tests/killed_searches.py DIRECTORY --kills 10

Prints, as JSON, whether a trial that had finished was touched again, how many that were
under way went on from a checkpoint, and whether all trials ended with the numbers of a
search that was never stopped. A program of its own, because what it kills it forks
before TensorFlow has started its threads.
"""

import argparse
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


def in_child(run_dir, trials):
    """Starts or continues the search in a new process; returns its number."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        search(CONFIG, SPACE, run_dir=run_dir, trials=trials)
        code = 0
    finally:
        os._exit(code)


def finish(run_dir, trials):
    _, status = os.waitpid(in_child(run_dir, trials), 0)
    if status:
        sys.exit(f"The search ended with status {status}.")


def histories(run_dir):
    """The numbers of each trial, without what depends on time."""
    return {
        path.parent.name: path.read_text()
        for path in sorted((run_dir / "trials").glob("*/history.csv"))
    }


def finished(run_dir):
    """When each finished trial was finished."""
    return {
        path.parent.name: path.stat().st_mtime_ns
        for path in (run_dir / "trials").glob("*/result.json")
    }


def continued(run_dir):
    """How often trials went on from a checkpoint."""
    logs = (run_dir).glob("trial_*/output.txt")
    return sum(log.read_text().count("Continuing ") for log in logs)


def wait_for_trial(run_dir, seconds):
    """Waits until a trial is under way, and then for a while."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        owners = list((run_dir / "trials").glob("*/.lock-owner.json"))
        if any(owner.stat().st_mtime > BEGIN for owner in owners):
            break
        time.sleep(0.05)
    time.sleep(seconds)


BEGIN = 0.0


def main():
    global BEGIN
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--trials", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=6.0)
    arguments = parser.parse_args()
    generator = random.Random(0)
    whole, killed = arguments.directory / "whole", arguments.directory / "killed"
    finish(whole, arguments.trials)
    lost = []
    kills = 0
    while kills < arguments.kills:
        before = finished(killed)
        BEGIN = time.time()
        pid = in_child(killed, arguments.trials)
        wait_for_trial(killed, generator.uniform(0, arguments.seconds))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        kills += 1
        after = finished(killed)
        lost += [name for name in before if after.get(name) != before[name]]
    before = finished(killed)
    finish(killed, arguments.trials)
    after = finished(killed)
    lost += [name for name in before if after.get(name) != before[name]]
    print(
        json.dumps(
            {
                "kills": kills,
                "lost": lost,
                "continued": continued(killed),
                "trials": len(histories(killed)),
                "same": histories(whole) == histories(killed),
            }
        )
    )


if __name__ == "__main__":
    main()
