"""Real-ESRGAN's and GFPGAN's degradation against BasicSR's own code and closed forms, and one of the user's."""

import random
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from basicsr.data import degradations as host
from basicsr.data.realesrgan_dataset import RealESRGANDataset
from basicsr.models.realesrgan_model import RealESRGANModel
from basicsr.utils import USMSharp
from helpers.training_images import color_image, write_faces

from gpen_plugin.config.imports import code_digest
from gpen_plugin.data.degradation_types import (
    GFPGANDegradation,
    RealESRGANDegradation,
    add_gaussian_noise,
    add_poisson_noise,
    blur_kernel,
    build_degradation,
    sinc_kernel,
)
from gpen_plugin.data.gpen_degradation_dataset import GPENDegradationDataset
from gpen_plugin.data.rng import rng_from_key
from gpen_plugin.errors import GPENError
from gpen_plugin.host.data_cursor import SampleIndex

MAX_Z = 4.5  # distance of two means in standard errors
FACE = color_image(0, 64, 64).astype(np.float32) / 255


def assert_means_agree(first, second) -> None:
    """Compare the means of two samples, (N, ...), by their standard errors."""
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    error = np.sqrt(first.var(0) / len(first) + second.var(0) / len(second)) + 1e-9
    assert (np.abs(first.mean(0) - second.mean(0)) / error).max() < MAX_Z


@pytest.fixture
def seeded():
    np.random.seed(0)  # the host's functions take no generator
    random.seed(0)
    torch.manual_seed(0)


@pytest.mark.parametrize("kind", RealESRGANDegradation.kernel_list)
def test_kernels_have_the_distribution_of_the_hosts(kind, seeded):
    rng = rng_from_key(kind)
    ours = [blur_kernel(kind, 7, (0.4, 3), rng, (0.5, 4), (1, 2)) for _ in range(300)]
    theirs = [
        host.random_mixed_kernels(
            [kind], [1], 7, (0.4, 3), (0.4, 3), [-np.pi, np.pi], betag_range=(0.5, 4), betap_range=(1, 2)
        )
        for _ in range(300)
    ]
    assert_means_agree(ours, theirs)
    assert_means_agree(np.square(ours), np.square(theirs))


def test_sinc_kernels_are_low_pass_filters():
    kernel = sinc_kernel(21, np.pi / 5, rng_from_key(3))
    response = np.abs(np.fft.fft2(kernel, (64, 64)))
    assert kernel.sum() == pytest.approx(1)
    assert response[0, :3].min() > 0.9
    assert response[32, 32] < 0.1  # the corner, pi * sqrt(2), is above every cutoff


@pytest.mark.parametrize("gray", [False, True])
def test_noise_has_the_variance_of_its_formula(gray):
    rng, image = rng_from_key("noise"), np.full((128, 128, 3), 128 / 255, np.float32)
    image[:, ::2] = 64 / 255  # two levels: a pixel counts two photons
    noise = add_gaussian_noise(image, 10, gray, rng) - image
    assert noise.std() == pytest.approx(10 / 255, rel=0.03)
    shot = add_poisson_noise(image, 0.1, gray, rng) - image
    for column, level in ((0, 64), (1, 128)):
        assert shot[:, column::2].var() == pytest.approx(0.1**2 * level / 255 / 2, rel=0.08)
    for each in (noise, shot):
        assert np.allclose(each[..., 0], each[..., 1], atol=1e-6) == gray


def test_shot_noise_is_that_of_the_host(seeded):
    ours = [np.square(add_poisson_noise(FACE, 0.3, False, rng_from_key(n)) - FACE) for n in range(40)]
    theirs = [np.square(host.add_poisson_noise(FACE, 0.3) - FACE) for _ in range(40)]
    assert_means_agree([each.mean() for each in ours], [each.mean() for each in theirs])


def jpeg(image: torch.Tensor, quality: torch.Tensor) -> torch.Tensor:
    """BasicSR's own for the GPU continues small images with black, whose edges ring."""
    pixels = image[0].permute(1, 2, 0).numpy()[:, :, ::-1]
    written = host.add_jpg_compression(pixels, round(float(quality)))[:, :, ::-1]
    return torch.from_numpy(written.transpose(2, 0, 1).copy())[None]


def host_lq(tmp_path, count: int) -> list[np.ndarray]:
    """The inputs that Real-ESRGAN's own training makes of `FACE`, (16, 16, 3) RGB float32."""
    plain, keys = RealESRGANDegradation(), ("kernel_list", "kernel_prob", "blur_sigma", "betag_range", "betap_range")
    more = ("resize_prob", "resize_range", "gaussian_noise_prob", "noise_range", "poisson_scale_range")
    more += ("gray_noise_prob", "jpeg_range", "sinc_prob")
    opt = {f"{key}{end}": getattr(plain, f"{key}{end}") for key in (*keys, *more) for end in ("", "2")}
    opt |= {"second_blur_prob": 0.8, "final_sinc_prob": 0.8, "blur_kernel_size": 21, "blur_kernel_size2": 21}
    opt |= {"use_hflip": False, "use_rot": False, "scale": 4, "gt_size": 64, "io_backend": {"type": "disk"}}
    (tmp_path / "list.txt").write_text("face_0.png\n")
    data = RealESRGANDataset(
        {**opt, "dataroot_gt": str(write_faces(tmp_path, 1)), "meta_info": str(tmp_path / "list.txt")}
    )
    gt, found = torch.from_numpy(FACE[:, :, ::-1].transpose(2, 0, 1).copy())[None], []
    sharp = USMSharp()(gt)
    model = SimpleNamespace(is_train=True, opt=opt, device="cpu", usm_sharpener=lambda image: sharp)
    model.jpeger, model._dequeue_and_enqueue = jpeg, lambda: None
    for _ in range(count):
        kernels = {key: value[None] for key, value in data[0].items() if "kernel" in key}
        RealESRGANModel.feed_data(model, {"gt": gt, **kernels})
        found.append(model.lq[0].permute(1, 2, 0).numpy())
    return found


def measures(image: np.ndarray) -> list[float]:
    """Mean, contrast, energy of edges and distance from the face of an input, (16, 16, 3) RGB."""
    small = cv2.resize(FACE[:, :, ::-1].copy(), (16, 16), interpolation=cv2.INTER_AREA)
    edges = np.abs(np.diff(image, axis=0)).mean()
    return [image.mean(), image.std(), edges, np.abs(image - small).mean(), image.std(axis=2).mean()]


def test_real_esrgan_makes_the_inputs_of_its_own_training(seeded, tmp_path):
    plain = RealESRGANDegradation()
    ours = [plain(FACE, rng_from_key(number)) for number in range(150)]
    assert {image.shape for image in ours} == {(16, 16, 3)}
    theirs = host_lq(tmp_path, 100)
    assert_means_agree([measures(np.clip(image, 0, 1)[:, :, ::-1]) for image in ours], [*map(measures, theirs)])


def test_gfpgan_with_one_choice_is_the_steps_of_its_data_set():
    given = GFPGANDegradation(
        kernel_list=["iso"], kernel_prob=[1], blur_kernel_size=9, blur_sigma=[2, 2], downsample_range=[4, 4]
    )
    given = GFPGANDegradation(**{**vars(given), "noise_range": (0, 0), "jpeg_range": (70, 70), **NO_COLOR})
    blurred = cv2.filter2D(FACE, -1, host.bivariate_Gaussian(9, 2, 2, 0))
    small = cv2.resize(blurred, (16, 16), interpolation=cv2.INTER_LINEAR)
    expected = cv2.resize(host.add_jpg_compression(np.clip(small, 0, 1), 70), (64, 64), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(given(FACE, rng_from_key(0)), expected, atol=1e-6)


NO_COLOR = {"color_jitter_prob": None, "color_jitter_pt_prob": None, "gray_prob": None}
NO_LOSS = {"blur_sigma": (0.1, 0.1), "downsample_range": (1, 1), "noise_range": None, "jpeg_range": None}


def test_gfpgan_changes_the_color_of_the_input():
    shifted = GFPGANDegradation(**NO_LOSS, **{**NO_COLOR, "color_jitter_prob": 1})
    shifts = []
    for number in range(300):
        change = shifted(np.full((8, 8, 3), 0.5, np.float32), rng_from_key(number)) - 0.5
        assert np.ptp(change, axis=(0, 1)).max() < 1e-6
        shifts += [*change[0, 0]]
    assert np.std(shifts) == pytest.approx(20 / 255 / 3**0.5, rel=0.05)  # uniform to either side
    assert np.abs(shifts).max() <= 20 / 255 + 1e-6
    gray = GFPGANDegradation(**NO_LOSS, **{**NO_COLOR, "gray_prob": 1})(FACE, rng_from_key(0))
    assert np.ptp(gray, axis=2).max() < 1e-6
    jittered = GFPGANDegradation(**NO_LOSS, **{**NO_COLOR, "color_jitter_pt_prob": 1})
    means = [jittered(np.full((8, 8, 3), 0.5, np.float32), rng_from_key(n)).mean() for n in range(300)]
    assert np.std(means) == pytest.approx(0.5 / 12**0.5, rel=0.1)  # of a gray face the brightness alone changes


def dataset(folder, degradation: dict, **more) -> GPENDegradationDataset:
    opt = {"name": "x", "type": "GPENDegradationDataset", "phase": "train", "out_size": 32, "in_size": 32}
    return GPENDegradationDataset({**opt, "dataroot_gt": str(folder), "degradation": degradation, **more})


@pytest.mark.parametrize("kind", ["realesrgan", "gfpgan"])
def test_pairs_depend_on_seed_and_position_alone(faces, kind):
    first, second = dataset(faces, {"type": kind}), dataset(faces, {"type": kind}, seed=1)
    index = SampleIndex(2, 0, 5)
    lq = first[index]["lq"]
    assert lq.shape == (3, 32, 32)
    for generator in (np.random.seed, random.seed, torch.manual_seed):
        generator(99)
    assert first[index]["lq"].equal(lq)
    assert not second[index]["lq"].equal(lq)
    assert not first[SampleIndex(2, 1, 5)]["lq"].equal(lq)


class Darker:
    """A degradation as a user writes it."""

    def __init__(self, lowest: float = 0.5):
        self.lowest = lowest

    def __call__(self, image, rng):
        assert image.dtype == np.float32
        return image * rng.uniform(self.lowest, 1)


def halve(image, rng, factor=2):
    return image[::factor, ::factor]


def impure(image, rng):
    return image * np.random.uniform()


def flat(image, rng):
    return image[..., 0]


def failing(image, rng):
    raise KeyError("lens")


def test_a_degradation_of_the_users(faces):
    data = dataset(
        faces,
        {"type": f"{__name__}.Darker", "lowest": 0.2},
        mild_prob=0.01,
        mild_degradation={"downsample_range": [1, 2]},
    )
    item, rng = data[SampleIndex(1, 0, 3)], rng_from_key(0, 0, 3)
    rng.random(), rng.random()  # mirrored, mild
    factor = rng.uniform(0.2, 1)
    torch.testing.assert_close(item["lq"], (item["gt"] + 1) * factor - 1, atol=1.01 / 255, rtol=0)
    small = build_degradation({"type": f"{__name__}.halve", "factor": 4}, "here")
    face = color_image(3)
    np.testing.assert_array_equal(small(face, rng), face[::4, ::4])
    assert small.options() == {"type": f"{__name__}.halve", "factor": 4, "code": code_digest(halve)}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"type": "realesgran"}, "degradation:type: got 'realesgran'.*Did you mean 'realesrgan'"),
        ({"type": "realesrgan", "noise": 1}, "degradation:noise: unknown key"),
        ({"type": "realesrgan", "resize_prob": [1, 1, 0]}, "degradation:resize_prob: got .*sum to 1"),
        ({"type": "realesrgan", "resize_range": [2, 3]}, "degradation:resize_range: got .*around 1"),
        ({"type": "realesrgan", "noise_range2": [30, 1]}, "degradation:noise_range2: got .*smaller number first"),
        ({"type": "realesrgan", "sinc_prob": 2}, "degradation:sinc_prob: got 2; expected a number from 0 to 1"),
        ({"type": "gfpgan", "kernel_list": ["iso"]}, "degradation:kernel_prob: got 2 numbers"),
        ({"type": "gfpgan", "blur_kernel_size": 4}, "degradation:blur_kernel_size: got 4"),
        ({"type": "nowhere.Fog"}, "degradation:type: nowhere cannot be imported.*list its file in imports"),
        ({"type": f"{__name__}.Fog"}, "degradation:type: .* has no Fog"),
        ({"type": f"{__name__}.Darker", "low": 1}, "degradation:low: unknown key.*Did you mean 'lowest'"),
        ({"type": f"{__name__}.impure"}, "degradation: .*impure makes two images .*second argument"),
        ({"type": f"{__name__}.flat"}, r"degradation: .*flat returns shape \(32, 32\)"),
        ({"type": f"{__name__}.failing"}, "degradation: .*failing raises KeyError: 'lens'"),
    ],
)
def test_wrong_degradations_are_named(faces, given, message):
    with pytest.raises(GPENError, match=f"datasets:train:{message}"):
        dataset(faces, given)
