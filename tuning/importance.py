"""Hyperparameter importance: permutation importance in a random forest of trials."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata
from sklearn.ensemble import RandomForestRegressor
from sklearn.model_selection import KFold

from keras_alexnet.tuning.trials import Trial, ranked

MIN_TRIALS = 10
# With other folds and forests.
REPETITIONS = 5
# Below this fraction of the order explained, the forest has learned next to nothing,
# and what it goes by means nothing.
MIN_EXPLAINED = 0.1


@dataclasses.dataclass(frozen=True)
class Importance:
    """What a random forest goes by when it predicts how good a trial is.

    Attributes:
        trials: How many trials it has learned from.
        names: The hyperparameters that varied, the most important first.
        means: For each, the fraction of the variance of the ranks that hangs on it,
            alone or together with others: half of what the forest's squared error grows
            by when its values are permuted among the trials. 0 where they tell nothing,
            1 where they tell everything; noise may bring it slightly below 0. Those of
            hyperparameters that act together overlap.
        deviations: Standard deviation (n - 1) of that over the repetitions.
        explained: Fraction of the variance of the ranks of held-out trials that the
            forest explains; 0 or less where it has learned nothing.
        too_few: Why there are no numbers, in one sentence; None where there are.
    """

    trials: int
    names: tuple[str, ...] = ()
    means: tuple[float, ...] = ()
    deviations: tuple[float, ...] = ()
    explained: float = 0.0
    too_few: str | None = None

    @property
    def is_reliable(self) -> bool:
        """Whether the forest explains enough for its numbers to mean something."""
        return self.too_few is None and self.explained >= MIN_EXPLAINED


def importance(trials: Sequence[Trial], seed: int = 0) -> Importance:
    """Estimates how much each hyperparameter mattered.

    A random forest (Breiman 2001) learns the rank of a trial from its hyperparameters.
    A hyperparameter's importance is what the forest loses on held-out trials when the
    values are permuted among them (permutation importance, section 10 there). Ranks,
    because one diverged trial would outweigh all others.

    A hyperparameter that was active in some trials only is permuted among those (which
    scikit-learn's `permutation_importance` cannot do); that it was active counts for
    the one that it depends on.

    Args:
        trials: All trials; those without a result do not count.
        seed: Decides folds, forests and permutations.
    """
    best_first = ranked(trials)
    count = len(best_first)
    if count < MIN_TRIALS:
        return Importance(
            count,
            too_few=f"{count} trials with a result are too few to tell what mattered: "
            f"it takes at least {MIN_TRIALS}.",
        )
    names = dict.fromkeys(name for trial in best_first for name in trial.values)
    columns = {name: _numbers(name, best_first) for name in names}
    columns = {name: x for name, x in columns.items() if len(np.unique(x)) > 1}
    if not columns:
        return Importance(count, too_few="No hyperparameter varied.")
    target = _ranks(best_first)
    if not target.any():
        return Importance(count, too_few="All trials have the same result.")
    inputs = np.stack(list(columns.values()), 1)
    active = ~np.isnan(inputs)
    # One that was not active tells nothing, and the kind of schedule why it was not.
    inputs = np.where(active, inputs, np.nanmedian(inputs, axis=0))
    rng = np.random.default_rng(seed)
    losses, explained = zip(
        *(_losses(inputs, active, target, rng) for _ in range(REPETITIONS)),
        strict=True,
    )
    means = np.mean(losses, axis=0)
    deviations = np.std(losses, axis=0, ddof=1)
    order = np.argsort(-means, kind="stable")
    return Importance(
        count,
        tuple(list(columns)[index] for index in order),
        tuple(means[order].tolist()),
        tuple(deviations[order].tolist()),
        float(np.mean(explained)),
    )


def _numbers(name: str, trials: Sequence[Trial]) -> np.ndarray:
    """Returns the values of a hyperparameter, NaN where it was not active.

    Values that are no finite numbers become their positions among the different ones.
    """
    values = [trial.values[name] for trial in trials if name in trial.values]
    if not all(isinstance(x, (int, float)) and math.isfinite(x) for x in values):
        # By their texts: values may be lists, which are not hashable.
        texts = list(map(str, values))
        values = [list(dict.fromkeys(texts)).index(text) for text in texts]
    numbers = np.full(len(trials), math.nan)
    numbers[[name in trial.values for trial in trials]] = values
    return numbers


def _ranks(best_first: Sequence[Trial]) -> np.ndarray:
    """Returns the trials' ranks with mean 0 and variance 1, all 0 if they are equal."""
    keys = [(trial.status != "completed", trial.objective) for trial in best_first]
    order = {key: place for place, key in enumerate(dict.fromkeys(keys))}
    ranks = rankdata([order[key] for key in keys])
    return (ranks - ranks.mean()) / (ranks.std() or 1)


def _losses(
    inputs: np.ndarray,
    active: np.ndarray,
    target: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, float]:
    """Returns what each permutation costs, and what is explained without any."""
    predicted = np.zeros((1 + len(active.T), len(target)))
    seed = int(rng.integers(2**31))
    for seen, held_out in KFold(5, shuffle=True, random_state=seed).split(inputs):
        forest = RandomForestRegressor(n_estimators=60, random_state=seed)
        forest.fit(inputs[seen], target[seen])
        tables = [inputs[held_out].copy() for _ in range(len(predicted))]
        for index, (table, mask) in enumerate(zip(tables[1:], active.T, strict=True)):
            rows = np.flatnonzero(mask[held_out])
            # From all trials that had it: a fifth of few would offer little choice.
            donors = rng.choice(np.flatnonzero(mask), size=len(rows))
            table[rows, index] = inputs[donors, index]
        # One prediction for all: forests take long to start and little for more rows.
        outputs = forest.predict(np.concatenate(tables))
        predicted[:, held_out] = outputs.reshape(len(tables), len(held_out))
    # The target's variance is 1. Permuting all that tells anything doubles it.
    error, *permuted = ((predicted - target) ** 2).mean(axis=1)
    return (np.array(permuted) - error) / 2, 1 - error
