"""`keras-alexnet inspect`: draw schedules before a run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from keras_alexnet.errors import UserError


@dataclasses.dataclass(frozen=True)
class Inspect:
    """Draw schedules, or all those of a configuration, before any run."""

    schedule: tuple[str, ...] = ()
    """Schedules to compare, such as "cosine(0.02, warmup=0.05)" "dexp(0.01)"."""
    recipe: str | None = None
    """Recipe whose learning rate, dropout, multipliers and colour noise to draw."""
    config: str | None = None
    """JSON file of settings whose schedules to draw, such as a run's config.json."""
    out: str = "schedules.png"
    """The picture to write."""

    def run(self) -> int:
        """Draws schedules and prints some of their values."""
        from keras_alexnet.inspect import figures
        from keras_alexnet.inspect.schedules import panels_of, table_of
        from keras_alexnet.inspect.tables import console
        from keras_alexnet.schedules import parse_schedule
        from keras_alexnet.training.config import read_settings
        from keras_alexnet.training.recipes import configure

        asked = (self.schedule, self.recipe, self.config)
        if sum(bool(one) for one in asked) != 1:
            raise UserError(
                "Nothing to draw: give --schedule, --recipe or --config."
                if not any(asked)
                else "Give only one of --schedule, --recipe and --config."
            )
        if self.schedule:
            texts = {text: parse_schedule(text) for text in self.schedule}
            panels, epochs = {"Schedules": texts}, None
        else:
            config = configure(
                read_settings(self.config) if self.config else {"recipe": self.recipe}
            )
            panels, epochs = panels_of(config), config.epochs
        figures.schedules(panels, Path(self.out), epochs)
        console.print(table_of(panels, epochs))
        print(f"Drawn in {self.out}.")
        return 0
