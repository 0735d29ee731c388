"""The degradation model of GPEN (Eq. 4): I_d = ((I * k) downsampled by s + n_sigma) JPEG_q, then bilinear resizing.

Sampling and applying are apart: a `DegradationRecipe` is a small value that can be sampled from a seed, printed, stored
as JSON and applied again to give the same image. Needs numpy and OpenCV, neither BasicSR nor torch.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import cv2
import numpy as np

from gpen_plugin.config.schema import build, check
from gpen_plugin.data.sparse_blur import blur_downsample, use_sparse_blur
from gpen_plugin.errors import OptionError, ShapeError


def gaussian_kernel(size: int, sigma_x: float, sigma_y: float, angle: float = 0.0) -> np.ndarray:
    """A normalised Gaussian, isotropic where both sigmas are equal.

    Args:
        size: side in pixels, odd.
        sigma_x: standard deviation along the first axis, in pixels, above 0.
        sigma_y: standard deviation across it.
        angle: direction of the first axis, radians from the x axis of the image.
    Returns:
        (size, size) float32, sum 1.
    """
    offset = np.arange(size) - (size - 1) / 2
    x, y = np.meshgrid(offset, offset)
    along = (np.cos(angle) * x + np.sin(angle) * y) / sigma_x
    across = (np.cos(angle) * y - np.sin(angle) * x) / sigma_y
    kernel = np.exp(-0.5 * (along**2 + across**2))
    return (kernel / kernel.sum()).astype(np.float32)


def motion_kernel(size: int, angle: float, bend: float) -> np.ndarray:
    """The track of a point while the camera moves at even speed along an arc.

    The track is as long as the kernel is wide and its centre of mass is the kernel's centre, so that motion blurs an
    image without shifting it.

    Args:
        size: side in pixels, odd.
        angle: direction of the movement at half time, radians.
        bend: how far the direction turns from start to end, radians in [-pi, pi]; 0 is a straight line.
    Returns:
        (size, size) float32, sum 1.
    """
    moments = 8 * size
    heading = angle + bend * np.linspace(-0.5, 0.5, moments)
    step = (size - 1) / moments
    x, y = np.cumsum(np.cos(heading)) * step, np.cumsum(np.sin(heading)) * step
    centre = (size - 1) / 2
    return _spread(x - x.mean() + centre, y - y.mean() + centre, size)


def _spread(x: np.ndarray, y: np.ndarray, size: int) -> np.ndarray:
    """Share each point of equal weight among its four nearest pixels, as bilinear interpolation would."""
    kernel = np.zeros((size + 1, size + 1))
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    right_share, bottom_share = x - left, y - top
    np.add.at(kernel, (top, left), (1 - bottom_share) * (1 - right_share))
    np.add.at(kernel, (top, left + 1), (1 - bottom_share) * right_share)
    np.add.at(kernel, (top + 1, left), bottom_share * (1 - right_share))
    np.add.at(kernel, (top + 1, left + 1), bottom_share * right_share)
    return (kernel[:size, :size] / kernel[:size, :size].sum()).astype(np.float32)


KernelKind = Literal["iso", "aniso", "motion"]
Downsampler = Literal["area", "bilinear"]
_RESIZERS = {"area": cv2.INTER_AREA, "bilinear": cv2.INTER_LINEAR}


@dataclass(frozen=True)
class DegradationRanges:
    """What the degradations of a training set are drawn from. The defaults are section 4.2 of the paper.

    The paper leaves the blur open ("Gaussian blur and motion blur with varying kernel sizes"); the values here are for
    ground truth of 512 to 1024 px. All lengths are pixels of the ground truth: at 64 px, a `kernel_size` of [1, 9] and
    a `downsample_range` of [1, 8] lose about as much of a face.

    Args:
        kernel_list: kinds of blur: ``iso`` and ``aniso`` (Gaussian), ``motion``.
        kernel_prob: how often each is drawn; sums to 1.
        kernel_size: smallest and largest side of k, both odd; 1 leaves the image sharp.
        blur_sigma: standard deviation of the Gaussians.
        motion_bend: how far a motion turns, radians, either way.
        downsample_range: s, uniform.
        downsampler: ``area`` takes the mean over s x s pixels, so that nothing aliases even at s = 200; ``bilinear``
            reads four pixels per output pixel.
        noise_range: standard deviation of the noise, uniform, in units of 1/255.
        jpeg_range: JPEG quality q, uniform over the whole numbers, both ends included.
    Raises:
        OptionError: names the key, what was given and what was expected.
    """

    kernel_list: Sequence[KernelKind] = ("iso", "aniso", "motion")
    kernel_prob: Sequence[float] = (0.4, 0.3, 0.3)
    kernel_size: tuple[int, int] = (7, 41)
    blur_sigma: tuple[float, float] = (0.2, 10.0)
    motion_bend: tuple[float, float] = (0.0, 1.5)
    downsample_range: tuple[float, float] = (10.0, 200.0)
    downsampler: Downsampler = "area"
    noise_range: tuple[float, float] = (0.0, 25.0)
    jpeg_range: tuple[int, int] = (5, 50)

    def __post_init__(self):
        for name in ("kernel_list", "kernel_prob", *_BOUNDS):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # YAML brings lists
        for name, bounds in _BOUNDS.items():
            _check_range(name, getattr(self, name), *bounds)
        if any(size % 2 == 0 for size in self.kernel_size):
            raise OptionError("kernel_size", f"got {list(self.kernel_size)}", "two odd numbers", "Use e.g. [7, 41].")
        if not self.kernel_list:
            raise OptionError("kernel_list", "got an empty list", "at least one of 'iso', 'aniso', 'motion'")
        if len(self.kernel_prob) != len(self.kernel_list):
            got = f"got {len(self.kernel_prob)} numbers for the {len(self.kernel_list)} kernels of kernel_list"
            raise OptionError("kernel_prob", got, "one probability per kernel")
        if min(self.kernel_prob) < 0 or not math.isclose(sum(self.kernel_prob), 1, abs_tol=1e-6):
            raise OptionError("kernel_prob", f"got {list(self.kernel_prob)}", "probabilities that sum to 1")

    @classmethod
    def from_options(cls, given: Mapping, where: str) -> "DegradationRanges":
        """Build the ranges from YAML; errors name the whole key path, ``where`` in front."""
        return build(cls, given, where)


_BOUNDS = {  # smallest and largest value that makes sense
    "kernel_size": (1, 999),
    "blur_sigma": (0.01, math.inf),
    "motion_bend": (0, math.pi),
    "downsample_range": (1, math.inf),
    "noise_range": (0, 255),
    "jpeg_range": (1, 100),
}


def _check_range(name: str, given: tuple, lowest: float, highest: float) -> None:
    low, high = given
    if low > high:
        raise OptionError(name, f"got {list(given)}", "the smaller number first", f"Write [{high}, {low}].")
    if not (lowest <= low and high <= highest and math.isfinite(high)):
        limits = f"at least {lowest}" if highest == math.inf else f"within {lowest:.4g} and {highest:.4g}"
        raise OptionError(name, f"got {list(given)}", f"finite numbers, {limits}")


@dataclass(frozen=True)
class DegradationRecipe:
    """One draw of k, s, n_sigma and q: everything needed to degrade an image, and to do it again.

    Args:
        kernel: kind of blur.
        kernel_size: its side in pixels of the ground truth, odd.
        sigma_x: standard deviation of a Gaussian along `angle`; unused by ``motion``.
        sigma_y: the same across `angle`; equal to `sigma_x` for ``iso``.
        angle: direction of a stretched Gaussian or of the motion, radians.
        bend: how far the motion turns, radians; unused by Gaussians.
        downsample: s, at least 1.
        downsampler: see `DegradationRanges`.
        noise_sigma: standard deviation of n, in units of 1/255, the same for the three channels.
        noise_seed: seed of n.
        jpeg_quality: q, 1 to 100.
    """

    kernel: KernelKind
    kernel_size: int
    sigma_x: float
    sigma_y: float
    angle: float
    bend: float
    downsample: float
    downsampler: Downsampler
    noise_sigma: float
    noise_seed: int
    jpeg_quality: int

    def to_dict(self) -> dict:
        """Plain numbers and strings; JSON and back gives an equal recipe."""
        return asdict(self)

    @classmethod
    def from_dict(cls, given: Mapping, where: str = "recipe") -> "DegradationRecipe":
        """Undo `to_dict`.

        Raises:
            OptionError: a key is missing, unknown or of the wrong type.
        """
        check(cls, given, where)
        return cls(**given)

    def __str__(self) -> str:
        shape = {
            "iso": f"sigma {self.sigma_x:.1f}",
            "aniso": f"sigma {self.sigma_x:.1f} x {self.sigma_y:.1f} at {math.degrees(self.angle):.0f} deg",
            "motion": f"at {math.degrees(self.angle):.0f} deg",
        }[self.kernel]
        return (
            f"{self.kernel} blur {self.kernel_size} px ({shape}), 1/{self.downsample:.1f}, "
            f"noise {self.noise_sigma:.1f}, JPEG {self.jpeg_quality}"
        )


def sample_recipe(ranges: DegradationRanges, rng: np.random.Generator) -> DegradationRecipe:
    """Draw one recipe. It takes the same number of draws for every kernel, so s, sigma and q do not depend on k."""
    kernel = ranges.kernel_list[int(rng.choice(len(ranges.kernel_list), p=ranges.kernel_prob))]
    smallest, largest = ranges.kernel_size
    kernel_size = smallest + 2 * int(rng.integers((largest - smallest) // 2 + 1))
    sigma_x, sigma_y = (float(rng.uniform(*ranges.blur_sigma)) for _ in "xy")
    angle = float(rng.uniform(0, math.pi))
    bend = float(rng.uniform(*ranges.motion_bend)) * (1 if rng.random() < 0.5 else -1)
    return DegradationRecipe(
        kernel=kernel,
        kernel_size=kernel_size,
        sigma_x=0.0 if kernel == "motion" else sigma_x,
        sigma_y={"iso": sigma_x, "aniso": sigma_y, "motion": 0.0}[kernel],
        angle=0.0 if kernel == "iso" else angle,
        bend=bend if kernel == "motion" else 0.0,
        downsample=float(rng.uniform(*ranges.downsample_range)),
        downsampler=ranges.downsampler,
        noise_sigma=float(rng.uniform(*ranges.noise_range)),
        noise_seed=int(rng.integers(2**32)),
        jpeg_quality=int(rng.integers(ranges.jpeg_range[0], ranges.jpeg_range[1] + 1)),
    )


def degrade(image: np.ndarray, recipe: DegradationRecipe, in_size: int) -> np.ndarray:
    """Degrade an image (Eq. 4) and resize it bilinearly to the network's input size.

    Args:
        image: (H, W, 3) BGR, uint8 or float in [0, 1].
        recipe: what to do to it.
        in_size: side of the result.
    Returns:
        (in_size, in_size, 3) BGR float32 in [0, 1].
    Raises:
        ShapeError: `image` is not a colour image.
    """
    small = degrade_lowres(image, recipe)
    return resize_bilinear(small, in_size)


def degrade_lowres(image: np.ndarray, recipe: DegradationRecipe) -> np.ndarray:
    """I_d of Eq. 4 at its own size, before it is enlarged. Most pixels need no blur: see `blur_downsample`.

    Args:
        image: (H, W, 3) BGR, uint8 or float in [0, 1].
        recipe: what to do to it.
    Returns:
        (max(1, round(H / s)), max(1, round(W / s)), 3) BGR uint8.
    Raises:
        ShapeError: `image` is not a colour image.
    """
    pixels = _checked(image)
    size = tuple(max(1, round(side / recipe.downsample)) for side in pixels.shape[:2])
    if use_sparse_blur(pixels.shape, size, recipe.kernel_size**2):
        pixels = blur_downsample(pixels, _kernel(recipe), size, recipe.downsampler == "area")
    else:
        pixels = cv2.resize(_blur(pixels, recipe), size[::-1], interpolation=_RESIZERS[recipe.downsampler])
    unit = 1 if image.dtype == np.uint8 else 255
    noise = np.random.Generator(np.random.PCG64(recipe.noise_seed)).standard_normal(pixels.shape)
    pixels = np.clip(pixels * unit + recipe.noise_sigma * noise, 0, 255)
    return _jpeg(np.rint(pixels).astype(np.uint8), recipe.jpeg_quality)


def resize_bilinear(image: np.ndarray, size: int) -> np.ndarray:
    """Resize an image to the network's input, "using simple bilinear interpolator" (section 3.2).

    Args:
        image: (H, W, 3), uint8 or float in [0, 1].
        size: side of the result.
    Returns:
        (size, size, 3) float32 in [0, 1].
    """
    return cv2.resize(_unit_float(image), (size, size), interpolation=cv2.INTER_LINEAR)


def _unit_float(image: np.ndarray) -> np.ndarray:
    pixels = _checked(image)
    return pixels if pixels.dtype == np.float32 else pixels.astype(np.float32) / 255


def _checked(image: np.ndarray) -> np.ndarray:
    """The image, uint8 as it came or float32."""
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ShapeError("image", f"got shape {image.shape}", "(H, W, 3) with H and W of at least 1")
    if image.dtype == np.uint8:
        return image
    if not np.issubdtype(image.dtype, np.floating):
        raise ShapeError("image", f"got dtype {image.dtype}", "uint8, or float in [0, 1]")
    return image.astype(np.float32, copy=False)


def _kernel(recipe: DegradationRecipe) -> np.ndarray:
    """k turned round: OpenCV correlates, Eq. 4 convolves."""
    if recipe.kernel == "motion":
        kernel = motion_kernel(recipe.kernel_size, recipe.angle, recipe.bend)
    else:
        sigma_y = recipe.sigma_x if recipe.kernel == "iso" else recipe.sigma_y
        kernel = gaussian_kernel(recipe.kernel_size, recipe.sigma_x, sigma_y, recipe.angle)
    return kernel[::-1, ::-1]


def _blur(image: np.ndarray, recipe: DegradationRecipe) -> np.ndarray:
    """The whole blurred image, float32 in the units of `image`."""
    pixels, border = image.astype(np.float32, copy=False), cv2.BORDER_REFLECT_101
    if recipe.kernel_size == 1:
        return pixels
    if recipe.kernel == "iso":
        row = _kernel(recipe)[recipe.kernel_size // 2]
        row = row / row.sum()
        return cv2.sepFilter2D(pixels, -1, row, row, borderType=border)
    return cv2.filter2D(pixels, -1, _kernel(recipe), borderType=border)


def _jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    written, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert written, "OpenCV was built without JPEG"
    return cv2.imdecode(data, cv2.IMREAD_COLOR)
