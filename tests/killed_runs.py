"""Kills a training run with SIGKILL again and again, and lets it finish.

    python tests/killed_runs.py DIRECTORY --kills 200

Prints, as JSON, digests of the weights of that run and of one that was never stopped,
and what the kills hit. A program of its own, because it forks before TensorFlow has
started its threads: a child then begins to train at once.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np

import keras_alexnet
from keras_alexnet.training.run_directory import RunDirectory
from keras_alexnet.training.train import train


def config():
    return keras_alexnet.TrainConfig(
        architecture="alexnet_mini",
        width=0.25,
        image_size=16,
        resize_size=16,
        crop_padding=2,
        horizontal_flip=False,
        rotation=10.0,
        # Patience ends it after the second.
        epochs=3,
        global_batch_size=96,
        validation_fraction=0.2,
        keep="best",
        patience=1,
        optimizer="adamw",
        ema=0.99,
        class_weights="balanced",
        # The second epoch is worse than the first.
        learning_rate="piecewise((0.01, 0.3), (0.34,))",
        dropout="linear(0.5, end=0.1)",
        # Compiled anew at every start, which would be most of a run.
        norm="none",
        # Saving all the time, so that many kills hit a checkpoint half-written.
        checkpoint_steps=1,
    )


def in_child(run_dir):
    """Starts or continues the run in a new process; returns its number."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        train(config(), run_dir, resume=RunDirectory(run_dir).holds_run())
        code = 0
    finally:
        os._exit(code)


def digest(run_dir):
    model = keras_alexnet.load_model(run_dir / "model.keras")
    digest = hashlib.sha256()
    for weight in model.get_weights():
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()


def finish(run_dir):
    _, status = os.waitpid(in_child(run_dir), 0)
    if status:
        sys.exit(f"The run ended with status {status}.")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    generator = random.Random(arguments.seed)
    whole, killed = arguments.directory / "whole", arguments.directory / "killed-0"
    begin = time.monotonic()
    finish(whole)
    seconds = time.monotonic() - begin
    expected = digest_in_child(whole)
    wrong, kills, while_writing, runs = [], 0, 0, 0
    while kills < arguments.kills or not (killed / "result.json").exists():
        if (killed / "result.json").exists():
            runs += 1
            wrong += [str(killed)] * (digest_in_child(killed) != expected)
            killed = arguments.directory / f"killed-{runs}"
        if kills == arguments.kills:
            finish(killed)
            continue
        pid = in_child(killed)
        in_writing = generator.random() < 0.5
        # Late in a run nothing is written any more.
        time.sleep(generator.uniform(0.1, 0.5 if in_writing else 0.9) * seconds)
        if in_writing:
            wait_for_writing(killed / "checkpoints", pid)
        while_writing += is_writing(killed / "checkpoints")
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        if os.WIFSIGNALED(status):
            kills += 1
        elif status:
            sys.exit(f"A run ended with status {status}.")
    runs += 1
    wrong += [str(killed)] * (digest_in_child(killed) != expected)
    print(
        json.dumps(
            {
                "kills": kills,
                "while_writing": while_writing,
                "runs": runs,
                "different": wrong,
            }
        )
    )


def is_writing(checkpoints):
    return any(checkpoints.glob(".partial-*"))


def wait_for_writing(checkpoints, pid):
    """Waits for the next checkpoint, or for the end of the process."""
    while not is_writing(checkpoints) and not has_ended(pid):
        pass


def has_ended(pid):
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def digest_in_child(run_dir):
    """Reads weights in another process: this one must not start TensorFlow."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(writing, digest(run_dir).encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(pid, 0)
    with os.fdopen(reading) as pipe:
        return pipe.read()


if __name__ == "__main__":
    main()
