"""The degradation model of GPEN (Eq. 4 of the paper): I_d = ((I * k) downsampled by s + n_sigma) JPEG_q.

`DegradationRanges` are the distributions of k, s, sigma and q of a training set (section 4.2), a `DegradationRecipe` is
one sample of them, and `degrade` applies it and then upsamples bilinearly to the network's input (section 3.2).
A recipe can be printed, stored as JSON and applied again with the same result. Needs neither BasicSR nor torch.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from gpen_plugin.config.schema import build, check
from gpen_plugin.errors import OptionError, ShapeError

KernelKind = Literal["iso", "aniso", "motion"]
Downsampler = Literal["area", "bilinear"]
_INTERPOLATION = {"area": cv2.INTER_AREA, "bilinear": cv2.INTER_LINEAR}

# Costs, in kernel values that `blur_downsample` multiplies in the same time (measured)
_POINT_COST = 300  # of a point of the sparse method, besides its kernel
_DIRECT_COST, _FOURIER_COST = 1, 8  # of a pixel of the dense method
_MAX_DIRECT_TAPS = 11 * 11  # OpenCV filters larger kernels by Fourier transform


@dataclass(frozen=True)
class DegradationRanges:
    """Distributions of the degradations of a training set; each is uniform, both ends included. OptionError if wrong.

    The defaults are the paper's. It leaves the blur open ("Gaussian blur and motion blur with varying kernel sizes");
    the values here are for ground truth of 512 to 1024 px. All lengths are pixels of the ground truth: at 64 px, a
    `kernel_size` of [1, 9] and a `downsample_range` of [1, 8] lose about as much of a face.
    """

    kernel_list: Sequence[KernelKind] = (
        "iso",
        "aniso",
        "motion",
    )  # blur kernels: (an)isotropic Gaussian, motion
    kernel_prob: Sequence[float] = (0.4, 0.3, 0.3)  # probability of each kind; sum 1
    kernel_size: tuple[int, int] = (7, 41)  # side of the kernel in pixels, odd; 1 does not blur
    blur_sigma: tuple[float, float] = (0.2, 10.0)  # standard deviation of the Gaussians in pixels
    motion_bend: tuple[float, float] = (0.0, 1.5)  # turn of a motion kernel in radians, to either side
    downsample_range: tuple[float, float] = (10.0, 200.0)  # downsampling factor s, from 1
    # `area` averages s x s pixels, so nothing aliases even at s = 200; `bilinear` reads only 4 of them
    downsampler: Downsampler = "area"
    noise_range: tuple[float, float] = (0.0, 25.0)  # standard deviation sigma of the noise, in units of 1/255
    jpeg_range: tuple[int, int] = (5, 50)  # JPEG quality q, integers from 1 to 100

    def __post_init__(self):
        for name in ("kernel_list", "kernel_prob", *_BOUNDS):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # YAML gives lists
        for name, bounds in _BOUNDS.items():
            check_range(name, getattr(self, name), *bounds)
        if any(size % 2 == 0 for size in self.kernel_size):
            raise OptionError("kernel_size", f"got {list(self.kernel_size)}", "two odd numbers", "Use e.g. [7, 41].")
        check_probabilities("kernel_list", self.kernel_list, "kernel_prob", self.kernel_prob)

    @classmethod
    def from_options(cls, given: Mapping, where: str) -> "DegradationRanges":
        """Build the ranges from YAML; errors name the key path, which starts with `where`."""
        return build(cls, given, where)


_BOUNDS = {  # smallest and largest value allowed
    "kernel_size": (1, 999),
    "blur_sigma": (0.01, math.inf),
    "motion_bend": (0, math.pi),
    "downsample_range": (1, math.inf),
    "noise_range": (0, 255),
    "jpeg_range": (1, 100),
}


def check_probabilities(of: str, kinds: Sequence[str], name: str, given: Sequence[float]) -> None:
    """Raise an OptionError unless the key `name` has one probability for each of the `kinds` of the key `of`."""
    if not kinds:
        raise OptionError(of, "got an empty list", "at least one kernel, e.g. iso")
    if len(given) != len(kinds):
        got = f"got {len(given)} numbers for the {len(kinds)} kernels of {of}"
        raise OptionError(name, got, "one probability per kernel")
    if min(given) < 0 or not math.isclose(sum(given), 1, abs_tol=1e-6):
        raise OptionError(name, f"got {list(given)}", "probabilities that sum to 1")


def check_range(name: str, given: tuple, lowest: float, highest: float) -> None:
    """Raise an OptionError unless `given` are two finite numbers in order, within the bounds."""
    low, high = given
    if low > high:
        raise OptionError(name, f"got {list(given)}", "the smaller number first", f"Write [{high}, {low}].")
    if not (lowest <= low and high <= highest and math.isfinite(high)):
        limits = f"at least {lowest}" if highest == math.inf else f"within {lowest:.4g} and {highest:.4g}"
        raise OptionError(name, f"got {list(given)}", f"finite numbers, {limits}")


@dataclass(frozen=True)
class DegradationRecipe:
    """One sample of k, s, n and q: all that is needed to degrade an image, and to do it again."""

    kernel: KernelKind
    kernel_size: int  # pixels of the ground truth, odd
    sigma_x: float  # of a Gaussian along `angle`, pixels; 0 for `motion`
    sigma_y: float  # of a Gaussian across `angle`, pixels
    angle: float  # of an anisotropic Gaussian or of the motion, radians in [0, pi)
    bend: float  # turn of the motion, radians; 0 for Gaussians
    downsample: float  # s, at least 1
    downsampler: Downsampler
    noise_sigma: float  # in units of 1/255, the same for the three channels
    noise_seed: int
    jpeg_quality: int  # q, 1 to 100

    def to_dict(self) -> dict:
        """Numbers and strings; `from_dict` gives an equal recipe, also after JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, given: Mapping, where: str = "recipe") -> "DegradationRecipe":
        """Undo `to_dict`; OptionError if a key is missing, unknown or of the wrong type."""
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
    """Sample k, s, n and q. All kinds of kernel use the same random numbers, so s, sigma and q do not depend on k."""
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
    """Eq. 4 and the network's input: (H, W, 3) BGR, uint8 or float, to (in_size, in_size, 3) float32, in [0, 1]."""
    return resize_bilinear(degrade_lowres(image, recipe), in_size)


def degrade_lowres(image: np.ndarray, recipe: DegradationRecipe) -> np.ndarray:
    """I_d of Eq. 4 at its own size: (max(1, round(H / s)), max(1, round(W / s)), 3) BGR uint8. Input as `degrade`."""
    pixels = _check_image(image)
    size = tuple(max(1, round(side / recipe.downsample)) for side in pixels.shape[:2])
    if use_sparse_blur(pixels.shape, size, recipe.kernel_size**2):
        pixels = blur_downsample(pixels, make_kernel(recipe), size, recipe.downsampler == "area")
    else:
        pixels = _blur(pixels, recipe)
        pixels = cv2.resize(pixels, size[::-1], interpolation=_INTERPOLATION[recipe.downsampler])
    pixels = _add_noise(pixels * (1 if image.dtype == np.uint8 else 255), recipe)
    return compress_jpeg(np.rint(pixels).astype(np.uint8), recipe.jpeg_quality)


def make_kernel(recipe: DegradationRecipe) -> np.ndarray:
    """k, (size, size) float32, rotated by 180 degrees: OpenCV correlates, Eq. 4 convolves."""
    if recipe.kernel == "motion":
        kernel = motion_kernel(recipe.kernel_size, recipe.angle, recipe.bend)
    else:
        sigma_y = recipe.sigma_x if recipe.kernel == "iso" else recipe.sigma_y
        kernel = gaussian_kernel(recipe.kernel_size, recipe.sigma_x, sigma_y, recipe.angle)
    return kernel[::-1, ::-1]


def gaussian_kernel(size: int, sigma_x: float, sigma_y: float, angle: float = 0.0) -> np.ndarray:
    """A Gaussian with `sigma_x` > 0 pixels along `angle` (radians), `sigma_y` across it; `size` odd; float32, sum 1."""
    offset = np.arange(size) - (size - 1) / 2
    x, y = np.meshgrid(offset, offset)
    along = (np.cos(angle) * x + np.sin(angle) * y) / sigma_x
    across = (np.cos(angle) * y - np.sin(angle) * x) / sigma_y
    kernel = np.exp(-0.5 * (along**2 + across**2))
    return (kernel / kernel.sum()).astype(np.float32)


def motion_kernel(size: int, angle: float, bend: float) -> np.ndarray:
    """Track of a point while the camera moves at constant speed along an arc; (size, size) float32, `size` odd, sum 1.

    `angle` is the direction at half time, `bend` the turn from start to end in [-pi, pi], radians.
    """
    # As long as the kernel is wide, and centered by its mass, so the blur does not shift an image.
    steps = 8 * size
    heading = angle + bend * np.linspace(-0.5, 0.5, steps)
    step = (size - 1) / steps
    x, y = np.cumsum(np.cos(heading)) * step, np.cumsum(np.sin(heading)) * step
    center = (size - 1) / 2
    return _splat(x - x.mean() + center, y - y.mean() + center, size)


def _splat(x: np.ndarray, y: np.ndarray, size: int) -> np.ndarray:
    # each point is distributed to its four nearest pixels with the weights of bilinear interpolation
    kernel = np.zeros((size + 1, size + 1))
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    right_weight, bottom_weight = x - left, y - top
    np.add.at(kernel, (top, left), (1 - bottom_weight) * (1 - right_weight))
    np.add.at(kernel, (top, left + 1), (1 - bottom_weight) * right_weight)
    np.add.at(kernel, (top + 1, left), bottom_weight * (1 - right_weight))
    np.add.at(kernel, (top + 1, left + 1), bottom_weight * right_weight)
    return (kernel[:size, :size] / kernel[:size, :size].sum()).astype(np.float32)


def _blur(image: np.ndarray, recipe: DegradationRecipe) -> np.ndarray:
    pixels, border = image.astype(np.float32, copy=False), cv2.BORDER_REFLECT_101
    if recipe.kernel_size == 1:
        return pixels
    if recipe.kernel == "iso":
        row = make_kernel(recipe)[recipe.kernel_size // 2]
        row = row / row.sum()
        return cv2.sepFilter2D(pixels, -1, row, row, borderType=border)
    return cv2.filter2D(pixels, -1, make_kernel(recipe), borderType=border)


def _add_noise(pixels: np.ndarray, recipe: DegradationRecipe) -> np.ndarray:
    noise = np.random.Generator(np.random.PCG64(recipe.noise_seed)).standard_normal(pixels.shape)
    return np.clip(pixels + recipe.noise_sigma * noise, 0, 255)


def compress_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """(H, W, 3) BGR uint8 after JPEG."""
    written, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert written, "OpenCV was built without JPEG"
    return cv2.imdecode(data, cv2.IMREAD_COLOR)


def resize_bilinear(image: np.ndarray, size: int) -> np.ndarray:
    """(H, W, 3), uint8 or float in [0, 1], to (size, size, 3) float32: the "simple bilinear interpolator" of 3.2."""
    pixels = _check_image(image)
    pixels = pixels if pixels.dtype == np.float32 else pixels.astype(np.float32) / 255
    return cv2.resize(pixels, (size, size), interpolation=cv2.INTER_LINEAR)


def _check_image(image: np.ndarray) -> np.ndarray:
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ShapeError("image", f"got shape {image.shape}", "(H, W, 3) with H and W of at least 1")
    if image.dtype == np.uint8:
        return image
    if not np.issubdtype(image.dtype, np.floating):
        raise ShapeError("image", f"got dtype {image.dtype}", "uint8, or float in [0, 1]")
    return image.astype(np.float32, copy=False)


# Blur and downsampling in one step: the blurred image is computed only at the pixels of the small one. Correlation with
# a kernel and interpolation between pixels are linear, so their order can be exchanged. A ``bilinear`` pixel of the
# small image is the blurred image at one point between four pixels. An ``area`` pixel is the mean over a box: four
# values of the summed-area table of the blurred image. That is the blurred table of the sharp image, and also bilinear
# at the fractional edges of a box. Both need as many values as the kernel has, at a few points of a field.


def use_sparse_blur(shape: tuple[int, ...], size: tuple[int, int], taps: int) -> bool:
    """Whether `blur_downsample` from (H, W, ...) to `size` is faster than a dense blur; `taps` are kernel values."""
    points = (size[0] + 1) * (size[1] + 1)
    pixel_cost = _DIRECT_COST if taps <= _MAX_DIRECT_TAPS else _FOURIER_COST
    return points * (taps + _POINT_COST) < shape[0] * shape[1] * pixel_cost


def blur_downsample(
    image: np.ndarray,  # [H, W, 3] uint8 or float32
    kernel: np.ndarray,  # [k, k], k odd; it is correlated
    size: tuple[int, int],  # (h, w) of the result, at most (H, W)
    area: bool,  # INTER_AREA, the mean over boxes of H/h x W/w pixels; else INTER_LINEAR, four pixels at their centers
) -> np.ndarray:
    """`cv2.resize` of `cv2.filter2D` with ``BORDER_REFLECT_101``, in float64 and the units of `image`."""
    margin = len(kernel) // 2
    after = margin + 1  # the last pixel has a neighbor too, of weight 0
    padded = cv2.copyMakeBorder(image, margin, after, margin, after, borderType=cv2.BORDER_REFLECT_101)
    planes = [_downsample_plane(plane, kernel, image.shape[:2], size, area) for plane in cv2.split(padded)]
    return np.stack(planes, axis=2)  # [h, w, 3]


def _downsample_plane(
    padded: np.ndarray,  # [H + k, W + k]
    kernel: np.ndarray,
    shape: tuple[int, int],
    size: tuple[int, int],
    area: bool,
) -> np.ndarray:
    if not area:
        centers = ((np.arange(few) + 0.5) * (many / few) - 0.5 for many, few in zip(shape, size, strict=True))
        return _correlate_at(padded, kernel, *centers)
    # float64 represents sums of bytes exactly, and those of floats to 1e-10 of the range
    table = cv2.integral(padded, sdepth=cv2.CV_64F)  # [H + k + 1, W + k + 1]
    edges = (np.linspace(0, many, few + 1) for many, few in zip(shape, size, strict=True))
    sums = np.diff(np.diff(_correlate_at(table, kernel, *edges), axis=0), axis=1)
    return sums / (shape[0] / size[0] * shape[1] / size[1])


def _correlate_at(field: np.ndarray, kernel: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The correlation of a field, (Y + k, X + k), interpolated bilinearly at a grid: (h,) rows, (w,) columns."""
    taps = len(kernel) + 1
    tops, down = _cells(rows, field.shape[0] - taps)
    lefts, right = _cells(columns, field.shape[1] - taps)
    shifted = np.zeros((4, taps, taps))  # the kernel at each of the four pixels around a point
    for corner, (y, x) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        shifted[corner, y : y + len(kernel), x : x + len(kernel)] = kernel
    shifted = shifted.reshape(4, -1)  # [4, taps * taps]
    windows = sliding_window_view(field, (taps, taps))
    out = np.empty((len(rows), len(columns)))
    for row, top, weight in zip(out, tops, down, strict=True):
        kernels = (1 - weight) * shifted[:2] + weight * shifted[2:]  # [2, taps * taps]
        left, beside = kernels @ windows[top, lefts].reshape(len(columns), -1).T  # [2, w]
        row[:] = (1 - right) * left + right * beside
    return out


def _cells(points: np.ndarray, last: int) -> tuple[np.ndarray, np.ndarray]:
    # the pixel before each point, at most `last`, and the distance of the point from it
    before = np.clip(np.floor(points).astype(int), 0, last)
    return before, points - before
