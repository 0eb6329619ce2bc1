"""The report of a search: what it says, with few trials, many, failed ones, or none."""

import csv
import dataclasses
import errno

import numpy as np
import pytest
from PIL import Image

import keras_alexnet
from keras_alexnet.tuning import figures, report
from keras_alexnet.tuning.compare import Comparison, Runs
from keras_alexnet.tuning.importance import importance
from keras_alexnet.tuning.report import write_report
from keras_alexnet.tuning.trials import Trial, ranked

CONFIG = dataclasses.replace(keras_alexnet.get_recipe("digits"), epochs=4)


def trial(number, objective=0.1, status="completed", epochs=4, **options):
    """A trial whose learning rate follows a step, a cosine or a plateau."""
    rate = 0.001 * 1.3**number
    kind = ("step", "cosine", "plateau")[number % 3]
    values = {"kind": kind, "rate": rate, "momentum": 0.9}
    if kind == "cosine":
        values["warmup"] = 0.1 * (number % 4)
    config = dataclasses.replace(
        CONFIG, learning_rate=f"{kind}({rate})", dropout=f"linear({0.1 * (number % 8)})"
    )
    history = tuple({"epoch": e + 1, "learning_rate": rate} for e in range(epochs))
    defaults = {
        "metrics": {} if objective is None else {"top1_error": objective},
        "history": history,
        "seconds": 30.0,
    }
    return Trial(
        f"{number:04}", values, config, status, objective, **{**defaults, **options}
    )


def failed(number, error="Diverged: not finite"):
    return trial(number, None, "failed", 1, error=error)


def some(count):
    rng = np.random.default_rng(0)
    return [trial(number, float(rng.uniform(0.02, 0.2))) for number in range(count)]


def write(directory, trials, **options):
    path = write_report(directory, trials, objective="val_top1_error", **options)
    return path.read_text()


def rows_of(directory):
    return list(csv.DictReader((directory / "leaderboard.csv").open()))


def pictures(directory):
    for path in (directory / "figures").iterdir():
        with Image.open(path) as image:
            image.verify()
    return sorted(path.name for path in (directory / "figures").iterdir())


MANY = [*some(25), failed(25), failed(26), trial(27, 0.5, "stopped", 2)]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The directory of the report of many trials, and its text."""
    directory = tmp_path_factory.mktemp("search")
    return directory, write(directory, MANY)


def test_the_leaderboard_holds_all_trials_and_all_settings(written):
    directory, _ = written
    rows = rows_of(directory)
    assert list(rows[0]) == [
        *("rank", "name", "status", "objective", "kind", "rate", "momentum", "warmup"),
        *("epochs", "seconds", "error"),
    ]
    assert [row["rank"] for row in rows] == [*map(str, range(1, 27)), "", ""]
    completed = [float(row["objective"]) for row in rows[:25]]
    assert completed == sorted(t.objective for t in MANY[:25])
    # 0.5 after 2 epochs is no rank among those of 4.
    assert (rows[25]["status"], rows[25]["epochs"]) == ("stopped", "2")
    assert rows[26]["error"] == "Diverged: not finite" and not rows[26]["objective"]
    assert all((row["kind"] == "cosine") == bool(row["warmup"]) for row in rows)


def test_trials_without_a_number_have_no_rank():
    trials = [trial(0, float("nan")), trial(1, None), trial(2, 0.1, "running")]
    assert ranked([*trials, trial(3, float("inf"))]) == []


def test_the_report_tells_what_was_searched_and_found(written):
    _, text = written
    best = ranked(MANY)[0]
    assert "28 trials: 25 completed, 1 stopped early, 2 failed." in text
    assert "14 minutes" in text and "data `digits`" in text and "epochs `4`" in text
    assert f"## Best trial: {best.name}" in text
    rate = best.values["rate"]
    assert f"Its settings: kind `{best.values['kind']}`, rate `{rate:.4g}`" in text
    assert f"| `{best.config.learning_rate}` | `{best.config.dropout}` |" in text
    assert f"top-1 error {100 * best.objective:.2f} %" in text
    assert "| Diverged: not finite | 2 | 0025, 0026 |" in text
    assert text.count("\n| 1 | ") == 1 and "\n| 10 | " in text
    assert "\n| 11 | " not in text


def test_the_report_does_not_sell_luck(written):
    _, text = written
    assert "Take this number for too good.** It is the best of 26" in text
    assert "is not known" in text.partition("## Against the default recipe")[2]


def test_all_figures_are_drawn_and_linked(written):
    directory, text = written
    names = ["curves.png", "objective.png"]
    assert pictures(directory) == names
    assert all(f"](figures/{name})" in text for name in names)


@pytest.mark.parametrize(
    "trials, said",
    [
        ([trial(0), failed(1)], "It is the only trial with a result."),
        ([trial(0, 0.0), trial(3, 1e9), trial(6, -1.0)], "It is the best of 3"),
        # A plateau that left no history; one that failed before its first epoch.
        ([trial(2, 0.1, history=()), failed(5)], "## Best trial: 0002"),
        (
            [dataclasses.replace(trial(n, 0.1 * n), values={}) for n in range(12)],
            "those of the recipe",
        ),
        ([trial(0, 0.2, "stopped", 1)], "stopped early, as were all"),
    ],
)
def test_few_trials_make_a_report(tmp_path, trials, said):
    assert said in write(tmp_path, trials)
    assert pictures(tmp_path) == ["curves.png", "objective.png"]


@pytest.mark.parametrize("trials", [[], [failed(0), failed(1)]])
def test_no_result_is_said_in_one_line(tmp_path, trials):
    text = write(tmp_path, trials)
    assert "No trial has a result: there is nothing to rank." in text
    assert len(rows_of(tmp_path)) == len(trials)
    assert not (tmp_path / "figures").exists()


def test_many_settings_and_odd_values_are_drawn(tmp_path):
    trials = [
        dataclasses.replace(
            trial(n, 0.1 + 0.01 * n),
            values={f"setting_{i}": n * i for i in range(20)}
            | {"list": [n], "none": None if n % 2 else "a|b", "flag": n % 2 == 0},
        )
        for n in range(12)
    ]
    text = write(tmp_path, trials)
    assert "a\\|b" in text
    assert len(pictures(tmp_path)) == 2


def test_noise_is_not_called_importance(tmp_path):
    text = write(tmp_path, some(12))
    assert not importance(some(12)).is_reliable
    assert "do not read anything into" in text
    assert "too few to tell what mattered" in write(tmp_path, some(5))


# === Comparison ===


def comparison(best, default, failures=()):
    def runs(errors):
        return {
            seed: {"top1_error": e, "top5_error": e / 4, "loss": 3 * e}
            for seed, e in zip((1000, 1001, 1002), errors, strict=False)
        }

    best = Runs(runs(best), dict(failures))
    return Comparison((1000, 1001, 1002), best, Runs(runs(default)))


@pytest.mark.parametrize(
    "best, default, said",
    [
        # Differences of 2, 3 and 4 percentage points: mean 3, deviation 1, and with t =
        # 3 / (1 / sqrt(3)) = 5.20 and 2 degrees of freedom, p = 0.035 (Student).
        ((0.02, 0.03, 0.04), (0.04, 0.06, 0.08), "settings are better than the def"),
        ((0.01, 0.06, 0.06), (0.09, 0.05, 0.05), "No clear difference"),
        ((0.05, 0.06, 0.07), (0.02, 0.03, 0.05), "settings are worse than the def"),
    ],
)
def test_a_difference_is_shown_with_its_spread(tmp_path, best, default, said):
    text = write(tmp_path, some(3), comparison=comparison(best, default))
    assert said in text
    if "better" in said:
        assert "| 3.00 ± 1.00 % | 6.00 ± 2.00 % | -3.00 ± 1.00 % |" in text
        assert "in 4% of such comparisons" in text
    assert ("settings are better" in text) == ("better" in said)


@pytest.mark.parametrize("seeds", [0, 1])
def test_too_few_seeds_say_nothing(tmp_path, seeds):
    errors = (0.02,) * seeds
    few = comparison(errors, (0.04, 0.05, 0.06), failures={1002: "a | b"})
    text = write(tmp_path, some(3), comparison=few)
    assert "**Nothing can be said" in text
    assert "- Failed: best, seed 1002: a \\| b" in text


# === Files ===


def test_a_full_disk_keeps_the_report_from_before(tmp_path, monkeypatch):
    before = write(tmp_path, some(2))

    def fail(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(figures, "curves", fail)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path, some(3))
    assert (tmp_path / report.REPORT).read_text() == before
    assert len(rows_of(tmp_path)) == 3  # The numbers come first.
    assert not list(tmp_path.rglob(".partial*"))
