"""What a search shows while it runs: a line for each trial, and a live leaderboard."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from keras_alexnet.tuning.trials import Trial, ranked

SHOWN = 10


class Progress:
    """Prints a line for each trial that ends; on a terminal, below it the best so far.

    Args:
        objective: What is compared.
        direction: `"min"` or `"max"`.
        trials: How many there will be at most.
        workers: How many run at the same time.
        console: Where to print.
    """

    def __init__(
        self,
        objective: str,
        direction: str,
        trials: int,
        workers: int = 1,
        console: Console | None = None,
    ):
        self.objective = objective
        self.direction = direction
        self.trials = trials
        self.workers = workers
        self.console = console or Console(file=sys.stdout)
        self._live: Live | None = None
        self._begin = time.monotonic()
        self._ended_before: int | None = None

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Shows the leaderboard, on a terminal, as long as the search runs."""
        if not self.console.is_terminal:
            yield
            return
        with Live(console=self.console, refresh_per_second=2) as self._live:
            yield

    def update(self, trials: Sequence[Trial], ended: Trial | None, count: int) -> None:
        """Shows how the search stands.

        Args:
            trials: All so far.
            ended: The one that has just ended, if one has.
            count: How many of Keras Tuner's own trials have ended.
        """
        if self._ended_before is None:
            self._ended_before = count - (ended is not None)
        best = ranked(trials, self.direction)
        if ended is not None:
            line = Text(self._line(ended, best, count))
            self.console.print(line, soft_wrap=True)
        if self._live is not None:
            self._live.update(self.leaderboard(trials))

    def leaderboard(self, trials: Sequence[Trial]) -> Table:
        """Returns the best trials so far, and those that run, as a table."""
        table = Table(title=f"best by {self.objective}")
        for heading in ("", "trial", "epochs", self.objective, "learning rate"):
            table.add_column(heading)
        table.add_column("dropout")
        running = [trial for trial in trials if trial.status == "running"]
        best = ranked(trials, self.direction)[:SHOWN]
        for rank, trial in [*enumerate(best, 1), *((None, one) for one in running)]:
            table.add_row(
                str(rank) if rank else "...",
                trial.name,
                f"{len(trial.history)}/{trial.config.epochs}",
                "running" if rank is None else f"{trial.objective:.4g}",
                Text(trial.config.learning_rate),
                Text(dropout_of(trial)),
            )
        return table

    def _line(self, ended: Trial, best: Sequence[Trial], count: int) -> str:
        outcome = {
            "failed": f"failed: {ended.error}",
            "stopped": f"stopped after epoch {len(ended.history)}, ",
        }.get(ended.status, "")
        if ended.objective is not None and ended.status != "failed":
            outcome += f"{self.objective} {ended.objective:.4g}"
            outcome += f" (best {best[0].objective:.4g}, trial {best[0].name})"
        seconds = f", {ended.seconds:.0f} s" if ended.seconds else ""
        settings = f"{ended.config.learning_rate}, dropout {dropout_of(ended)}"
        return (
            f"{count} of {self.trials}, {self._left(count)}: trial {ended.name} "
            f"{outcome}{seconds}; learning rate {settings}"
        )

    def _left(self, count: int) -> str:
        """Says how long the rest will take, if it goes on as it did."""
        done = count - self._ended_before
        seconds = (time.monotonic() - self._begin) / max(done, 1)
        seconds *= max(self.trials - count, 0)
        if seconds < 60:
            return f"{seconds:.0f} s left"
        if seconds < 3600:
            return f"{seconds / 60:.0f} min left"
        return f"{seconds / 3600:.1f} h left"


def dropout_of(trial: Trial) -> str:
    """Returns a trial's dropout schedules in one line."""
    return ", ".join(trial.config.dropout_by_layer) or trial.config.dropout
