"""The directory of a run: one object that knows where everything is.

config.json       the resolved configuration: reproduces the run
data.json         class names, preprocessing, colour statistics
skipped.csv       images that could not be used, if any, with the reasons
history.csv       one row per epoch
result.json       what came out, and on what
model.keras       the trained model
checkpoints/  logs/  figures/  export/
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from keras_alexnet.errors import UserError
from keras_alexnet.files import discard_unfinished, is_unfinished, write_whole
from keras_alexnet.training.config import DEFAULTS, TrainConfig, read_settings

if TYPE_CHECKING:
    from keras_alexnet.images.preprocessing import Preprocessing

# A continued run must be the same run; these settings do not decide what it computes.
MAY_CHANGE_ON_RESUME = {
    "replicas",
    "max_skipped",
    "checkpoint_steps",
    "checkpoint_minutes",
    "keep_checkpoints",
    "patience",
}
# Another length gives a run other schedules, from where it is on.
LENGTH = ("epochs", "steps")

# What a run leaves besides its config.json.
_OF_RUN = (
    *("result.json", "model.keras", "checkpoints", "history.csv", "data.json"),
    *("skipped*.csv", "precision.json", "evaluation.json", "logs", "figures", "export"),
)

# Who is at work in a directory: the lock, and the name on it.
LOCK, OWNER = ".lock", ".lock-owner.json"


class RunDirectory:
    """A run's files.

    Args:
        path: The directory, which need not exist yet.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @classmethod
    def open(cls, path: str | Path) -> RunDirectory:
        """Opens the directory of an existing run.

        Raises:
            ValueError: There is no run.
        """
        run = cls(path)
        if not run.holds_run():
            raise UserError(f"{path} is not a run directory: it has no config.json.")
        return run

    def holds_run(self) -> bool:
        """Says whether a run has begun here."""
        return (self / "config.json").is_file()

    def to_resume(self) -> TrainConfig:
        """Returns the configuration of the run that is to be resumed.

        Raises:
            ValueError: There is none.
        """
        if not self.holds_run():
            raise UserError(
                f"There is no run to resume in {self.path}: check --run-dir, or leave "
                "--resume out to begin one."
            )
        return self.config()

    def check(
        self, config: TrainConfig, *, resume: bool = False, overwrite: bool = False
    ) -> None:
        """Checks that a run can begin, or be continued, in this directory.

        Raises:
            ValueError: It holds another run or other files, or there is nothing to
                resume.
        """
        if resume and overwrite:
            raise UserError("A run is either resumed or overwritten, not both.")
        with explained(self.path):
            if self.holds_run():
                if resume:
                    self._check_same(config)
                elif not overwrite:
                    raise UserError(
                        f"{self.path} already holds a run: continue it with --resume, "
                        "replace it with --overwrite, or choose another --run-dir."
                    )
                return
            if self.path.is_dir() and any(map(is_foreign, self.path.iterdir())):
                raise UserError(
                    f"{self.path} holds files that are not a run's: choose another "
                    "--run-dir."
                )
        if resume:
            self.to_resume()

    @contextlib.contextmanager
    def claimed(
        self, config: TrainConfig, *, resume: bool = False, overwrite: bool = False
    ) -> Iterator[None]:
        """Keeps other processes out; writes config.json where it has changed.

        Raises:
            ValueError: Another process trains here, or the directory cannot be written.
        """
        with locked(self.path):
            with explained(self.path):
                self.check(config, resume=resume, overwrite=overwrite)
                discard_unfinished(self.path)
                if overwrite:
                    self._clear()
                if not resume or self.has_other_length(config):
                    (self / "result.json").unlink(missing_ok=True)
                    write_whole(self / "config.json", config.to_json())
            yield

    def _clear(self) -> None:
        """Deletes what an earlier run has left, but for its config.json.

        That one is replaced when all else is gone, so that a directory whose clearing
        was interrupted is still a run's.
        """
        for pattern in _OF_RUN:
            for path in self.path.glob(pattern):
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()

    def config(self) -> TrainConfig:
        """Reads the run's configuration.

        Settings that an older version did not have yet get their default, whatever
        the recipe says of them today.
        """
        settings = {**DEFAULTS, **read_settings(self / "config.json")}
        if (self / "precision.json").is_file():
            settings |= self.read_json("precision.json")  # Where `auto` was kept.
        return TrainConfig(**settings)

    def write_json(self, name: str, values: dict[str, Any]) -> None:
        """Writes a JSON file."""
        text = json.dumps(values, indent=2) + "\n"
        write_whole(self / name, text)

    def read_json(self, name: str) -> dict[str, Any]:
        """Reads a JSON file.

        Raises:
            ValueError: There is no such file in the run.
        """
        if not (self / name).is_file():
            raise UserError(f"{self.path} has no {name}: has its training finished?")
        try:
            return dict(json.loads((self / name).read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise UserError(f"{self / name} is damaged: {error}") from None

    def history(self) -> list[dict[str, float]]:
        """Reads history.csv, one row per epoch; empty where there is none yet."""
        if not (self / "history.csv").is_file():
            return []
        with open(self / "history.csv", encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        kinds = {"epoch": int, "step": int}
        return [
            {name: kinds.get(name, float)(text) for name, text in row.items() if text}
            for row in rows
        ]

    def preprocessing(self) -> Preprocessing:
        """Reads what the run's model expects of its input."""
        from keras_alexnet.images.preprocessing import Preprocessing

        return Preprocessing.from_config(self.read_json("data.json")["preprocessing"])

    def class_names(self) -> list[str]:
        """Reads the run's classes, in the order of the model's outputs."""
        return self.read_json("data.json")["class_names"]

    def has_other_length(self, config: TrainConfig) -> bool:
        """Says whether a configuration makes the run in here longer or shorter."""
        saved = self.config()
        wanted = [(getattr(config, name), getattr(saved, name)) for name in LENGTH]
        by_minutes = config.minutes is not None and config.steps is None
        return not by_minutes and any(new not in (None, old) for new, old in wanted)

    def check_length(self, config: TrainConfig) -> None:
        """Raises a ValueError if a configuration would change the run's length."""
        if self.has_other_length(config):
            wanted = {name: getattr(config, name) for name in LENGTH}
            wanted = {
                name: value for name, value in wanted.items() if value is not None
            }
            check_same(self.path, "run", dataclasses.asdict(self.config()), wanted)

    def _check_same(self, config: TrainConfig) -> None:
        wanted = dataclasses.asdict(config)
        # What is still to be decided was, when the run began.
        free = {*MAY_CHANGE_ON_RESUME, *config.left_open, *LENGTH}
        free |= {"minutes"} if self.has_other_length(config) else set()
        for name in free:
            del wanted[name]
        check_same(self.path, "run", dataclasses.asdict(self.config()), wanted)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Makes a directory, and keeps other processes out of it.

    The lock is the operating system's, which ends with the process: what a killed one
    leaves behind keeps nobody out.

    Raises:
        ValueError: Another process is in it, or it cannot be written.
    """
    with explained(path):
        path.mkdir(parents=True, exist_ok=True)
        try:
            lock = FileLock(path / LOCK).acquire(timeout=0)
        except Timeout:
            raise UserError(
                f"{path} is in use by another process: {_owner(path)}."
            ) from None
    with lock:
        with explained(path):
            owner = {"host": socket.gethostname(), "pid": os.getpid()}
            write_whole(path / OWNER, json.dumps(owner))
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                (path / OWNER).unlink()


def _owner(path: Path) -> str:
    try:
        owner = json.loads((path / OWNER).read_text(encoding="utf-8"))
        return f"pid {owner['pid']} on {owner['host']}"
    except (OSError, ValueError, KeyError):
        return "one that has just begun"


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Makes a mistake of the user of what the system says of a directory."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"The directory {path} cannot be written: {error.strerror}"
        ) from None


def check_same(
    path: Path, kind: str, saved: Mapping[str, Any], wanted: Mapping[str, Any]
) -> None:
    """Raises a ValueError if what a directory holds has other settings."""
    for name, value in wanted.items():
        if saved.get(name) != value:
            raise UserError(
                f"{path} holds another {kind}: its {name} is {saved.get(name)!r}, not "
                f"{value!r}. Resume with the settings that it began with, or choose "
                "another --run-dir."
            )


def is_foreign(path: Path) -> bool:
    """Says whether something is what no run leaves before its config.json."""
    return path.name not in (LOCK, OWNER) and not is_unfinished(path)
