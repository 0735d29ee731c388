import math
from typing import get_args

import numpy as np
import pytest
import torch

from gpen_plugin.config.schema import validate
from gpen_plugin.errors import OptionError
from gpen_plugin.models.augment import TRANSFORMS, Augmentation, AugmentOptions, TransformName

MANY = 400
SAMPLE = 4000  # its standard deviation has a standard error of 1 %


def streams(count: int, first: int = 0) -> list[torch.Generator]:
    seeds = (np.random.SeedSequence(first + n).generate_state(1)[0] for n in range(count))
    return [torch.Generator().manual_seed(int(seed)) for seed in seeds]


def noise(count: int, side: int = 16) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1


def fixed(*transforms: TransformName, p: float = 1.0) -> Augmentation:
    return Augmentation(AugmentOptions(transforms=transforms, p=p, target=None))


def changed(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    return (before != after).flatten(1).any(dim=1)


def test_every_name_is_a_transform():
    assert get_args(TransformName) == tuple(TRANSFORMS)
    assert set(AugmentOptions().transforms) | {"cutout"} == set(TRANSFORMS)


@pytest.mark.parametrize("target", [None, 0.6])
def test_p_of_zero_is_the_image_itself_and_draws_nothing(target):
    augmentation, images, drawn_from = Augmentation(AugmentOptions(p=0, target=target)), noise(2), streams(2)
    assert augmentation(images, drawn_from) is images
    assert all(torch.equal(a.get_state(), b.get_state()) for a, b in zip(drawn_from, streams(2), strict=True))


@pytest.mark.parametrize("p", [0.3, 1.0])
@pytest.mark.parametrize(
    ("name", "rate"),
    [  # how often an image is changed at all
        ("flip", lambda p: p / 2),
        ("rotate90", lambda p: p * 3 / 4),
        # a side of 16 goes by -2 to 2 pixels, the outer ones half as often: no shift at 1 of 4 in each direction
        ("translate", lambda p: p * 15 / 16),
        ("geometry", lambda p: 1 - (1 - p) ** 4),
        ("color", lambda p: 1 - (1 - p) ** 3),
        ("hue", lambda p: p),
        ("cutout", lambda p: p),
    ],
)
def test_how_many_images_are_changed(name, rate, p):
    images = noise(MANY)
    expected = rate(p) * MANY
    count = int(changed(images, fixed(name, p=p)(images, streams(MANY))).sum())
    assert abs(count - expected) <= 3.5 * math.sqrt(expected * (1 - rate(p)))


def test_p_of_one_changes_every_image():
    images = noise(MANY)
    assert changed(images, fixed(*TRANSFORMS)(images, streams(MANY))).all()


@pytest.mark.parametrize("names", [*((name,) for name in TRANSFORMS), tuple(TRANSFORMS)], ids="+".join)
def test_a_image_does_not_depend_on_its_batch(names):
    images, augmentation = noise(6), fixed(*names, p=0.7)
    together = augmentation(images, streams(6))
    alone = [augmentation(images[n : n + 1], streams(1, first=n)) for n in range(6)]
    assert together.shape == images.shape
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-5)
    assert len({tuple(change.flatten().tolist()) for change in together - images}) > 1  # not the same for all


@pytest.mark.parametrize(("name", "kinds"), [("flip", 2), ("rotate90", 4)])
def test_flips_and_quarter_turns_are_exact_and_evenly_likely(name, kinds):
    image = noise(1)
    rotations = [torch.rot90(image, turns, (2, 3))[0] for turns in range(4)]
    possible = {"flip": [image[0], image[0].flip(2)], "rotate90": rotations}[name]
    results = fixed(name)(image.expand(MANY, -1, -1, -1), streams(MANY))
    counts = [sum(torch.equal(result, one) for result in results) for one in possible]
    assert sum(counts) == MANY
    assert all(abs(count - MANY / kinds) <= 3.5 * math.sqrt(MANY / kinds * (1 - 1 / kinds)) for count in counts)


def test_translation_mirrors_the_edge():
    """A shift by s shows a ramp 0, 1, 2, ... from -s on, mirrored about the edge of the image."""
    ramp = torch.arange(16.0).expand(1, 3, 16, 16)
    seen = set()
    for down in (False, True):
        images = (ramp.transpose(2, 3) if down else ramp).expand(64, -1, -1, -1)
        for result in fixed("translate")(images, streams(64)):
            line = (result[0, :, 0] if down else result[0, 0]).tolist()
            shift = next(s for s in range(-2, 3) if line[4] == 4 - s)
            whole = [1, 0, *range(16), 15, 14]
            assert line == whole[2 - shift : 18 - shift]
            seen.add((down, shift))
    assert len(seen) == 10


def test_geometry_has_the_ranges_of_the_paper():
    """The channels are the coordinates x and y, so that the result tells where each place came from."""
    side = 32
    x = ((torch.arange(side) + 0.5) * 2 / side - 1).expand(side, side)
    images = torch.stack([x, x.T, torch.ones_like(x)]).expand(SAMPLE, -1, -1, -1)
    results = fixed("geometry")(images, streams(SAMPLE))
    torch.testing.assert_close(results[:, 2], images[:, 2])  # nothing comes from outside
    inner = results[:, :2, 13:19, 13:19]
    bends = [inner.diff(n=2, dim=dim).abs().amax(dim=(1, 2, 3)) for dim in (2, 3)]
    straight = torch.maximum(*bends) < 1e-4  # no mirrored edge within
    assert straight.sum() > 0.9 * SAMPLE
    inner, step = inner[straight], 2 / side
    across, down = ((inner[:, :, -1, -1] - corner) / (5 * step) for corner in (inner[:, :, -1, 0], inner[:, :, 0, -1]))
    torch.testing.assert_close((across * down).sum(dim=1), torch.zeros(len(inner)), rtol=0, atol=1e-3)  # no shear
    torch.testing.assert_close(across[:, 0] * down[:, 1] > across[:, 1] * down[:, 0], torch.ones(len(inner)) > 0)
    wide, high = across.norm(dim=1).log2(), down.norm(dim=1).log2()
    for octaves in ((wide + high) / 2, (wide - high) / 2):  # scale, stretching
        assert float(octaves.std()) == pytest.approx(0.2, rel=0.12)
        assert abs(float(octaves.mean())) < 0.04
    quarters = (torch.atan2(across[:, 1], across[:, 0]) // (math.pi / 2)).long()
    assert all(int((quarters == quarter).sum()) > 0.22 * len(inner) for quarter in range(-2, 2))
    origin = inner.mean(dim=(2, 3))
    shift = torch.linalg.solve(torch.stack([across, down], dim=2), origin)
    assert shift.std(dim=0).tolist() == pytest.approx([2 * 0.125] * 2, rel=0.12)
    assert shift.mean(dim=0).abs().max() < 0.05


def test_color_keeps_gray_gray_and_hue_keeps_brightness_and_saturation():
    gray = noise(64)[:, :1].expand(-1, 3, -1, -1)
    colored = fixed("color")(gray, streams(64))
    torch.testing.assert_close(colored, colored[:, :1].expand(-1, 3, -1, -1), rtol=0, atol=1e-5)
    images = noise(64)
    turned = fixed("hue")(images, streams(64))
    torch.testing.assert_close(turned.mean(dim=1), images.mean(dim=1), rtol=0, atol=1e-5)
    torch.testing.assert_close(turned.norm(dim=1), images.norm(dim=1), rtol=0, atol=1e-5)
    angles = torch.atan2(*(_chroma(turned, axis) for axis in (1, 0))) - torch.atan2(
        *(_chroma(images, axis) for axis in (1, 0))
    )
    assert (angles.cos() - angles.cos()[:, :1, :1]).abs().max() < 1e-2  # one angle for all colors of an image
    assert angles[:, 0, 0].cos().std() > 0.5  # and others for others


def _chroma(images, axis):
    directions = torch.tensor([[2.0, -1, -1], [0, math.sqrt(3), -math.sqrt(3)]])
    return (images * directions[axis, :, None, None]).sum(dim=1)  # (N, S, S)


def test_color_has_the_ranges_of_the_paper():
    """White and black tell contrast and brightness: their difference is 2c, their mean c * b."""
    white, red = torch.ones(3, 1), torch.tensor([[1.0], [-1], [-1]])
    images = torch.cat([white, -white, red, red], dim=1).view(3, 2, 2).expand(SAMPLE, -1, -1, -1)
    colored = fixed("color")(images, streams(SAMPLE)).flatten(2)  # (N, 3, 4)
    contrast = (colored[:, 0, 0] - colored[:, 0, 1]) / 2
    brightness = (colored[:, 0, 0] + colored[:, 0, 1]) / 2 / contrast
    saturation = (colored[:, 0, 2] - colored[:, 1, 2]) / 2 / contrast
    for drawn, std in ((contrast.log2(), 0.5), (brightness, 0.2), (saturation.log2(), 1.0)):
        assert float(drawn.std()) == pytest.approx(std, rel=0.12)
        assert abs(float(drawn.mean())) < 0.2 * std


def test_cutout_blanks_a_square_of_half_the_side():
    blank = fixed("cutout")(torch.ones(MANY, 3, 16, 16), streams(MANY)) == 0
    assert torch.equal(blank.all(dim=1), blank.any(dim=1))
    rows, columns = blank[:, 0].any(dim=2), blank[:, 0].any(dim=1)
    assert torch.equal(blank[:, 0], rows[:, :, None] & columns[:, None, :])
    for line in (rows, columns):
        assert set(line.sum(dim=1).tolist()) == {4, 5, 6, 7, 8}
        assert (line.int().diff(dim=1).abs().sum(dim=1) <= 2).all()


@pytest.mark.parametrize(
    "names", [("color",), ("hue",), ("translate",), ("geometry",), tuple(TRANSFORMS)], ids="+".join
)
def test_gradient_is_the_finite_difference(names):
    augmentation, images = fixed(*names), noise(3, 8).requires_grad_(True)
    weights, direction = noise(3, 8).flip(0), noise(3, 8).flip(3)
    value = lambda x: (augmentation(x, streams(3)) * weights).sum().double()  # noqa: E731
    (gradient,) = torch.autograd.grad(value(images), images)
    with torch.no_grad():  # the map is affine in the image: a large step is exact
        difference = value(images + direction) - value(images)
    assert float((gradient * direction).sum()) == pytest.approx(float(difference), rel=1e-3, abs=1e-3)
    assert (gradient.flatten(1).norm(dim=1) > 0).all()


def test_adaptive_p_follows_the_target_and_stays_a_probability():
    augmentation = Augmentation(AugmentOptions(target=0.6, ramp_images=100))
    assert augmentation.adaptive
    course = []
    for sign_mean in (0.5, 0.9, 0.9, 0.6, 0.2, *[1.0] * 5, 0.0):
        augmentation.update(sign_mean, images=30)
        course.append(round(augmentation.p, 6))
    assert course == [0, 0.3, 0.6, 0.6, 0.3, 0.6, 0.9, 1, 1, 1, 0.7]


def test_an_unfinished_mean_moves_nothing():
    augmentation = Augmentation(AugmentOptions(p=0.5))
    augmentation.update(math.nan, images=64)
    assert augmentation.p == 0.5


def test_state_round_trip(tmp_path):
    first = Augmentation(AugmentOptions(target=0.6, ramp_images=100))
    first.update(1.0, images=25)
    torch.save(first.state_dict(), tmp_path / "state")
    second = Augmentation(AugmentOptions(target=0.6, ramp_images=100))
    second.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    assert second.p == first.p == 0.25
    assert torch.equal(first(noise(4), streams(4)), second(noise(4), streams(4)))


def test_a_fixed_p_is_the_option_files_also_after_a_resume():
    augmentation = fixed("color", p=0.5)
    assert not augmentation.adaptive
    augmentation.load_state_dict({"p": 0.1})
    assert augmentation.p == 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"transforms": []}, r"transforms: got \[\]; expected one transform or several"),
        ({"transforms": ["flip", "color", "flip"]}, "each once"),
        ({"transforms": ["colour"]}, "got 'colour'; expected some of flip, rotate90, .*color"),
        ({"p": 1.1}, r"p: got 1.1; expected a probability"),
        ({"p": -0.1}, r"p: got -0.1"),
        ({"target": 1.0}, r"target: got 1.0; expected a mean sign"),
        ({"target": -1}, r"target: got -1"),
        ({"ramp_images": 0}, r"ramp_images: got 0; expected a whole number from 1. The ADA paper's is 500,000"),
        ({"every": 0}, r"every: got 0"),
    ],
)
def test_refused(options, message):
    with pytest.raises(OptionError, match=message):
        AugmentOptions(**options)


def test_the_schema_names_what_there_is():
    (problem,) = validate(AugmentOptions, {"transforms": ["colour"], "target": None}, "train:augment_opt")
    assert "train:augment_opt:transforms: got ['colour']" in str(problem)
    assert "'color'" in str(problem)
    (problem,) = validate(AugmentOptions, {"transform": ["color"]}, "train:augment_opt")
    assert "Did you mean 'transforms'?" in str(problem)
