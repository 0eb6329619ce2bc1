"""Random numbers that belong to positions in training."""

import numpy as np
import pytest

from keras_alexnet.data import draws

both = pytest.mark.parametrize(
    ("draw", "numbers"), [(draws.uniform, 9), (draws.normal, 3), (draws.uniform, 4)]
)


@both
def test_a_position_has_the_same_numbers_in_every_batch(draw, numbers):
    whole = draw((5, 100), 50, numbers).numpy()
    assert whole.dtype == np.float32 and whole.shape == (50, numbers)
    for first, count in ((100, 1), (117, 20), (149, 1)):
        part = draw((5, first), count, numbers)
        np.testing.assert_array_equal(part, whole[first - 100 :][:count])


@both
def test_no_two_positions_and_no_two_seeds_have_a_number_in_common(draw, numbers):
    found = [
        draw((seed, first), 500, numbers) for seed in (0, 1) for first in (0, 2**33)
    ]
    # Of 18,000 among 2**23 values, some 20 meet by chance.
    assert len(np.unique(found)) > 0.995 * np.size(found)


def test_uniform_numbers_are_uniform_and_normal_ones_normal():
    uniform = draws.uniform((3, 7), 20000, 9).numpy()
    assert uniform.min() >= 0 and uniform.max() < 1
    # Four standard errors of 20,000 numbers.
    np.testing.assert_allclose(uniform.mean(axis=0), 1 / 2, atol=0.0082)
    np.testing.assert_allclose(uniform.var(axis=0), 1 / 12, atol=0.0022)
    normal = draws.normal((3, 7), 20000, 3).numpy()
    np.testing.assert_allclose(normal.mean(axis=0), 0, atol=0.029)
    np.testing.assert_allclose(normal.var(axis=0), 1, atol=0.04)
    together = np.concatenate([uniform, normal], axis=1)
    others = np.corrcoef(together.T) - np.eye(12)
    assert np.abs(others).max() < 0.03
