import math

import numpy as np
import pytest
from helpers.results_for_report import FID, PSNR, made_results

from gpen_plugin.evaluate.stats import bootstrap_ci, format_cells, mean_ci, paired_difference_ci


def column(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float64)[:, None]


def test_large_sample_has_the_normal_interval():
    values = np.random.default_rng(0).uniform(0, 6, (200, 3))  # without skewness, which shifts both ends
    half = 1.959964 * values.std(axis=0, ddof=1) / math.sqrt(len(values))
    for interval, mean, expected in zip(mean_ci(values, 100_000, 0), values.mean(axis=0), half, strict=True):
        # a quantile of 100,000 resamples has a standard error of 0.4 % of the half width
        assert interval.low == pytest.approx(mean - expected, abs=0.05 * expected)
        assert interval.high == pytest.approx(mean + expected, abs=0.05 * expected)


def test_about_95_percent_of_intervals_contain_the_mean():
    samples = np.random.default_rng(1).normal(5.0, 2.0, (80, 400))  # 400 samples of 80 images
    held = [interval.low <= 5.0 <= interval.high for interval in mean_ci(samples, 1000, 0)]
    assert 0.92 <= np.mean(held) <= 0.97


@pytest.mark.parametrize("constant", [0.1, 27.3, -1e6])
def test_constant_values_have_a_zero_width_interval(constant):
    (interval,) = mean_ci(column(*[constant] * 37), 500, 0)
    assert interval == (constant, constant)


def test_images_without_a_value_are_left_out():
    rng = np.random.default_rng(2)
    values = rng.normal(size=(300, 1))
    with_gaps = np.insert(values, range(0, 300, 10), math.nan, axis=0)
    (whole,), (gaps,) = mean_ci(values, 4000, 0), mean_ci(with_gaps, 4000, 0)
    assert np.allclose(whole, gaps, atol=0.02)


def test_fewer_than_two_values_have_no_interval():
    values = np.full((9, 3), math.nan)
    values[4, 1] = 3.0
    values[[0, 8], 2] = 1.0, 2.0
    nothing, one, two = mean_ci(values, 300, 0)
    assert nothing is None
    assert one is None
    assert two == (1.0, 2.0)


def test_seed_decides_and_chunks_do_not_show(monkeypatch):
    values = np.random.default_rng(3).normal(size=(50, 2))
    assert mean_ci(values, 1000, 4) == mean_ci(values, 1000, 4)
    assert mean_ci(values, 1000, 4) != mean_ci(values, 1000, 5)
    whole = mean_ci(values, 1000, 4)
    monkeypatch.setattr("gpen_plugin.evaluate.stats.CHUNK", 170)
    assert np.allclose(mean_ci(values, 1000, 4), whole)


def test_metrics_of_sets_have_no_interval():
    results = made_results({"a": [1, 2, 3], "b": [2, 3, 4]}, columns=(PSNR, FID))
    assert {place.column for place in bootstrap_ci(results, 200, 0)} == {"psnr"}


def test_paired_difference_is_clear_despite_overlapping_intervals():
    noise = np.random.default_rng(5).normal(0, 3, 60)
    results = made_results({"best": 25 + noise, "steady": 24.8 + noise, "wild": 24.8 + noise[::-1]}, columns=(PSNR,))
    intervals = bootstrap_ci(results, 1000, 0)
    assert intervals["steady", "", "psnr"].high > intervals["best", "", "psnr"].low
    differences = paired_difference_ci(results, format_cells(results), 1000, 0)
    assert differences["steady", "", "psnr"].mean == pytest.approx(-0.2)
    assert differences["steady", "", "psnr"].is_clear
    assert not differences["wild", "", "psnr"].is_clear
    assert ("best", "", "psnr") not in differences


def test_difference_is_over_shared_images():
    results = made_results({"a": [30, 31, 32, 33], "b": [None, 30, 30, 30], "c": [20, 20, 20, 20]}, columns=(PSNR,))
    difference = paired_difference_ci(results, format_cells(results), 500, 0)["b", "", "psnr"]
    assert difference.images == 3
    assert difference.mean == pytest.approx(-2.0)
