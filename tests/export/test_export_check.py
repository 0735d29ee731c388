import math

import pytest
import torch

from gpen_plugin.errors import CheckpointError
from gpen_plugin.export.checking import Difference, difference, make_test_inputs


@pytest.mark.parametrize(("batch", "counts"), [(None, [1, 3]), (1, [1] * 4), (3, [3, 3]), (4, [4]), (6, [6])])
def test_four_images_in_batches_that_the_file_takes(batch, counts):
    batches = make_test_inputs(32, batch)
    assert [len(each) for each in batches] == counts
    images = torch.cat(batches)
    assert len({image.numpy().tobytes() for image in images}) == 4
    assert images.dtype == torch.float32
    assert images.shape[1:] == (3, 32, 32)
    assert -1 <= images.min() < -0.9
    assert 0.9 < images.max() <= 1


def test_other_seeds_are_other_images():
    assert not any(
        torch.equal(a, b) for a, b in zip(make_test_inputs(16, 1), make_test_inputs(16, 1, seed=100), strict=True)
    )


def test_differences_are_fractions_of_the_range_over_all_batches():
    batches = [torch.zeros(1, 3, 2, 2), torch.zeros(2, 3, 2, 2)]

    def off(images):
        shifted = images.clone()
        shifted[0, 0, 0, 0] = 0.2 * len(images)
        return shifted

    gap = difference(lambda images: images, off, batches)
    assert gap.largest == pytest.approx(0.2)
    assert gap.rms == pytest.approx(math.sqrt((0.1**2 + 0.2**2) / 36))


@pytest.mark.parametrize("first", [True, False])
def test_what_is_no_number_in_any_batch_is_found(first):
    batches = [torch.full((1, 3, 2, 2), math.nan), torch.zeros(1, 3, 2, 2)][:: 1 if first else -1]
    gap = difference(torch.zeros_like, lambda images: images, batches)
    assert math.isnan(gap.largest)
    with pytest.raises(CheckpointError, match=r"file: differs from PyTorch by nan.*Do this"):
        gap.check(1e9, "file", "Do this.")


def test_up_to_the_tolerance_is_right():
    Difference(0.5, 0.1).check(0.5, "file", "")
    with pytest.raises(CheckpointError, match=r"differs from PyTorch by 5.0e-01 of the value range \(rms 1.0e-01\)"):
        Difference(0.5, 0.1).check(0.49, "file", "")
