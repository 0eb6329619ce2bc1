"""How much each hyperparameter mattered for the order of the trials."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata
from sklearn.ensemble import RandomForestRegressor
from sklearn.model_selection import KFold

from keras_alexnet.tuning.encoding import Column, columns_of
from keras_alexnet.tuning.ranking import Direction, ranked
from keras_alexnet.tuning.trials import Trial

MIN_TRIALS = 10
# Below this share of the order explained, the forest has learned next to nothing, and
# what it goes by means nothing.
MIN_EXPLAINED = 0.1


@dataclasses.dataclass(frozen=True)
class Importance:
    """What a random forest goes by when it predicts how good a trial is.

    Attributes:
        trials: How many trials it has learned from.
        names: The hyperparameters that varied, the most important first.
        means: For each, the share of the variance of the ranks that hangs on it, alone
            or together with others: half of what the forest's squared error grows by
            when its values are exchanged among the trials. 0 where they tell nothing,
            1 where they tell everything; noise may bring it slightly below 0. The
            shares of those that act together overlap.
        deviations: Standard deviation (n - 1) of that over the repetitions.
        explained: Share of the variance of the ranks of trials that the forest has not
            seen that it explains; 0 or less where it has learned nothing.
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


def importance(
    trials: Sequence[Trial],
    direction: Direction,
    *,
    repetitions: int = 5,
    seed: int = 0,
) -> Importance:
    """Estimates how much each hyperparameter mattered.

    A random forest (Breiman 2001) learns the rank of a trial from its hyperparameters.
    A hyperparameter's importance is what the forest loses on trials that it has not
    seen when the values are permuted among them (permutation importance, section 10
    there). Ranks, because one diverged trial would outweigh all others; trials not
    seen, because a forest finds reasons for anything that it has seen.

    Numbers that spread over a decade or more count by their logarithms, everything else
    by its choice. A hyperparameter that was active in some trials only is exchanged
    among those; that it was active counts for the one that it depends on.

    Args:
        trials: All trials; those without a result do not count.
        direction: Whether low or high objectives are good.
        repetitions: How often everything is repeated, with other parts and forests.
        seed: Decides parts, forests and permutations.
    """
    best_first = ranked(trials, direction)
    count = len(best_first)
    if count < MIN_TRIALS:
        return Importance(
            count,
            too_few=f"{count} trials with a result are too few to tell what mattered: "
            f"it takes at least {MIN_TRIALS}.",
        )
    columns = [
        column
        for column in columns_of([trial.values for trial in best_first])
        if column.varies
    ]
    if not columns:
        return Importance(count, too_few="No hyperparameter varied.")
    target = _ranks(best_first)
    if not target.any():
        return Importance(count, too_few="All trials have the same result.")
    groups, inputs = _groups(columns)
    rng = np.random.default_rng(seed)
    losses, explained = zip(
        *(_losses(groups, inputs, target, rng) for _ in range(repetitions)),
        strict=True,
    )
    means = np.mean(losses, axis=0)
    deviations = np.std(losses, axis=0, ddof=1) if repetitions > 1 else 0 * means
    order = np.argsort(-means, kind="stable")
    return Importance(
        count,
        tuple(columns[place].name for place in order),
        tuple(means[order].tolist()),
        tuple(deviations[order].tolist()),
        float(np.mean(explained)),
    )


def _ranks(best_first: Sequence[Trial]) -> np.ndarray:
    """Returns the trials' ranks with mean 0 and variance 1, all 0 if they are equal."""
    keys = [(trial.status != "completed", trial.objective) for trial in best_first]
    order = {key: place for place, key in enumerate(dict.fromkeys(keys))}
    ranks = rankdata([order[key] for key in keys])
    return (ranks - ranks.mean()) / (ranks.std() or 1)


@dataclasses.dataclass(frozen=True)
class _Group:
    """The inputs of the forest that are a hyperparameter's.

    Attributes:
        inputs: Their places.
        trials: The trials among which they are exchanged, a mask of `(trials,)`.
    """

    inputs: tuple[int, ...]
    trials: np.ndarray


def _groups(columns: Sequence[Column]) -> tuple[list[_Group], np.ndarray]:
    """Returns a group for each hyperparameter, and all inputs, `(trials, inputs)`."""
    parts: list[np.ndarray] = []
    places: list[list[int]] = [[] for _ in columns]
    masks = [column.active for column in columns]

    def add(owner: int, inputs: np.ndarray) -> None:
        for values in inputs.T:
            places[owner].append(len(parts))
            parts.append(values)

    for place, column in enumerate(columns):
        add(place, column.encoded())
        if not column.active.all():
            owner = _owner(place, columns)
            add(owner, (~column.active[:, None]).astype(float))
            if owner == place:
                masks[place] = np.ones_like(column.active)
    groups = [_Group(tuple(p), mask) for p, mask in zip(places, masks, strict=True)]
    return groups, np.stack(parts, axis=1)


def _owner(place: int, columns: Sequence[Column]) -> int:
    """Returns which hyperparameter decides whether that at `place` is active."""
    active = columns[place].active
    for other, column in enumerate(columns):
        if not column.active.all() or column.is_numeric:
            continue
        choice = column.numbers()
        if all(len(set(active[choice == one])) == 1 for one in set(choice)):
            return other
    return place


def _losses(
    groups: Sequence[_Group],
    inputs: np.ndarray,
    target: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, float]:
    """Returns what each permutation costs, and what is explained without any."""
    own = np.zeros(len(target))
    permuted = np.zeros((len(groups), len(target)))
    seed = int(rng.integers(2**31))
    for seen, unseen in KFold(5, shuffle=True, random_state=seed).split(inputs):
        forest = RandomForestRegressor(n_estimators=60, random_state=seed)
        forest.fit(inputs[seen], target[seen])
        # One prediction for all: forests take long to start and little for more rows.
        tables = [inputs[unseen]]
        tables += [_permuted(group, inputs, unseen, rng) for group in groups]
        own[unseen], *rest = forest.predict(np.concatenate(tables)).reshape(
            len(tables), len(unseen)
        )
        permuted[:, unseen] = rest
    # The target's variance is 1. Exchanging all that tells anything doubles it.
    errors = ((permuted - target) ** 2).mean(axis=1)
    error = ((own - target) ** 2).mean()
    return (errors - error) / 2, 1 - error


def _permuted(
    group: _Group, inputs: np.ndarray, unseen: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Returns unseen trials with other trials' values of one hyperparameter."""
    changed = inputs[unseen].copy()
    rows = np.flatnonzero(group.trials[unseen])
    # From all trials that had it: a fifth of few would offer little choice.
    donors = rng.choice(np.flatnonzero(group.trials), size=len(rows))
    changed[np.ix_(rows, group.inputs)] = inputs[np.ix_(donors, group.inputs)]
    return changed
