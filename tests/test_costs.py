"""What forwards cost: measured sizes, and those between and beyond them."""

from __future__ import annotations

import pytest

from mlx_gemma4.decoder.costs import ForwardCosts, assumed


def test_the_assumed_shape() -> None:
    assert [assumed(rows) for rows in (1, 2, 3, 8, 12, 32, 64)] == pytest.approx([1, 1.3, 1.6, 3.4, 3.5, 4.2, 8.4])


def test_one_measurement_scales_the_shape() -> None:
    costs = ForwardCosts()
    with pytest.raises(ValueError, match="No forward has been measured yet; record one first"):
        costs.seconds(1)
    costs.record(8, 0.34)
    assert costs.knows(8) and not costs.knows(1)
    assert [costs.seconds(rows) for rows in (1, 8, 32)] == pytest.approx([0.1, 0.34, 0.42])


def test_sizes_in_between_follow_their_neighbours() -> None:
    """4 rows lie half way between 2 and 8: with costs of 1 and 2 times the assumed ones, it is 1.5 times."""
    costs = ForwardCosts()
    costs.record(2, 1.3)
    costs.record(8, 6.8)
    assert costs.seconds(4) == pytest.approx(1.5 * 1.9)


def test_the_median_of_recent_measurements_counts() -> None:
    costs = ForwardCosts()
    for seconds in (1.0, 1.0, 50.0):
        costs.record(1, seconds)
    assert costs.seconds(1) == 1.0
    for _ in range(9):
        costs.record(1, 2.0)
    assert costs.seconds(1) == 2.0
