"""Drawn faces: the same for the same seed, different for others, and roughly where a face should be."""

import numpy as np
import pytest
from synthetic_faces import render_face


def test_a_seed_is_a_face():
    np.testing.assert_array_equal(render_face(3, 64), render_face(3, 64))


def test_seeds_differ():
    small = np.stack([render_face(seed, 16).ravel() for seed in range(12)]).astype(float)
    distances = np.abs(small[:, None] - small[None]).mean(2)
    assert distances[~np.eye(12, dtype=bool)].min() > 8


@pytest.mark.parametrize("size", [16, 48, 96])
def test_size_changes_detail_only(size):
    large, small = render_face(5, 4 * size), render_face(5, size)
    assert small.shape == (size, size, 3)
    assert small.dtype == np.uint8
    reduced = large.reshape(size, 4, size, 4, 3).mean((1, 3))
    assert np.abs(reduced - small).mean() < 4


def test_eyes_are_where_ffhq_has_them():
    """Over many faces, brightness changes most from column to column at the eyes: 47 % down, a quarter apart."""
    changes = np.mean([np.abs(np.diff(render_face(seed, 64).mean(2), axis=1)) for seed in range(40)], axis=0)
    assert np.argmax(changes[:, 16:48].mean(1)) == pytest.approx(0.469 * 64, abs=1.5)
    columns = changes[29:32].mean(0)
    assert 14 + np.argmax(columns[14:32]) == pytest.approx(0.377 * 64, abs=2)
    assert 32 + np.argmax(columns[32:50]) == pytest.approx(0.623 * 64, abs=2)
