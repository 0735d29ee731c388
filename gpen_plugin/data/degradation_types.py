"""The values of ``degradation: type``: Eq. 4 of GPEN, Real-ESRGAN's and GFPGAN's degradation, or one of the user's.

Each is called with a face and a generator of random numbers, and uses no others: so pairs are a function of the seed
and of the image's key or its position in the training. The kernels are BasicSR's.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, is_dataclass
from functools import partial
from typing import Literal, Protocol

import cv2
import numpy as np

from gpen_plugin.config.imports import code_digest, import_module_of
from gpen_plugin.config.schema import unknown_name, validate
from gpen_plugin.data.degradation import (
    DegradationRanges,
    check_probabilities,
    check_range,
    compress_jpeg,
    degrade_lowres,
    sample_recipe,
)
from gpen_plugin.data.rng import rng_from_key
from gpen_plugin.errors import GPENError, OptionError, ShapeError, join_errors
from gpen_plugin.host import host_module

KernelKind = Literal["iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso"]
RESIZE_MODES = ("area", "bilinear", "bicubic")
SMALL_SINC = 13  # sinc kernels below this side have a higher lowest cutoff frequency


class Degradation(Protocol):
    """A degradation of an option file."""

    def __call__(self, face: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A face, (H, W, 3) BGR uint8, to its degraded version, (h, w, 3) BGR uint8."""

    def describe(self, rng: np.random.Generator) -> str:
        """In words, the degradation that a call with this generator makes."""

    def options(self) -> dict:
        """The section in an option file, with defaults: plain values for JSON. `code`: `code_digest` of the user's."""


class Eq4:
    """Eq. 4 of GPEN; keys are those of `DegradationRanges`."""

    def __init__(self, ranges: DegradationRanges):
        self.ranges = ranges

    def __call__(self, face: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return degrade_lowres(face, sample_recipe(self.ranges, rng))

    def describe(self, rng: np.random.Generator) -> str:
        return str(sample_recipe(self.ranges, rng))

    def options(self) -> dict:
        return _plain(asdict(self.ranges))


class OtherDegradation:
    """A function of a float image, as a `Degradation`."""

    def __init__(self, name: str, function: Callable, given: Mapping, where: str, code: str | None):
        self._name, self._function, self._given, self._where, self._code = name, function, given, where, code

    def __call__(self, face: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        result = self._function(face.astype(np.float32) / 255, rng)
        if not isinstance(result, np.ndarray) or result.ndim != 3 or result.shape[2] != 3 or 0 in result.shape:
            got = f"shape {result.shape}" if isinstance(result, np.ndarray) else f"{type(result).__name__}"
            raise ShapeError(self._where, f"{self._name} returns {got}", "an image (h, w, 3), float in [0, 1] or uint8")
        if result.dtype == np.uint8:
            return result
        if not np.issubdtype(result.dtype, np.floating) or not np.isfinite(result).all():
            got = f"{self._name} returns {result.dtype}" + (" that is not finite" if result.dtype.kind == "f" else "")
            raise ShapeError(self._where, got, "an image (h, w, 3), float in [0, 1] or uint8")
        return np.rint(np.clip(result, 0, 1) * 255).astype(np.uint8)

    def try_once(self, size: int) -> None:
        """Degrade a gray face twice. OptionError: it raises, or the same random numbers give another image."""
        face = np.full((size, size, 3), 127, np.uint8)
        try:
            first, second = (self(face, rng_from_key(0, "trial")) for _ in range(2))
        except GPENError:
            raise
        except Exception as error:  # of any kind: it is the user's
            got = f"{self._name} raises {type(error).__name__}: {' '.join(str(error).split())}"
            raise OptionError(self._where, got, "a degraded image") from error
        if not np.array_equal(first, second):
            got = f"{self._name} makes two images of the same face and the same generator"
            hint = "Take all random numbers from its second argument."
            raise OptionError(self._where, got, "a function of the face and the generator", hint)

    def describe(self, rng: np.random.Generator) -> str:
        return f"{self._name} degradation"

    def options(self) -> dict:
        keys = asdict(self._function) if is_dataclass(self._function) else self._given
        return {"type": self._name, **_plain(keys), **({"code": self._code} if self._code else {})}


def build_degradation(given: Mapping, where: str) -> Degradation:
    """The degradation of a section: ``type``, by default ``gpen``, and its keys; OptionError by key path."""
    name, keys = given.get("type", "gpen"), {key: value for key, value in given.items() if key != "type"}
    if name == "gpen":
        return Eq4(DegradationRanges.from_options(keys, where))
    target = TYPES.get(name) or _import(name, where)
    is_class = inspect.isclass(target)
    problems = validate(target if is_class else partial(target, None, None), keys, where, typed=name in TYPES)
    if problems:
        raise join_errors(problems)
    try:
        function = target(**keys) if is_class else partial(target, **keys)
    except GPENError as error:
        raise error.under(where) from None
    except Exception as error:  # of any kind: it is the user's
        got = f"{name} raises {type(error).__name__}: {' '.join(str(error).split())}"
        raise OptionError(where, got, "keys that it can use") from error
    if not callable(function):
        raise OptionError(
            f"{where}:type", f"got {name}, whose objects cannot be called", "a method __call__(image, rng)"
        )
    return OtherDegradation(name, function, keys, where, code_digest(target))


def check_degradation(given: Mapping, where: str, size: int) -> None:
    """Raise an OptionError unless a section is valid; one of the user's is tried on a face of (size, size)."""
    degradation = build_degradation(given, where)
    if isinstance(degradation, OtherDegradation) and given["type"] not in TYPES:
        degradation.try_once(size)


def _import(name: object, where: str) -> Callable:
    """A class or function of the user's, ``module.name``."""
    module, _, attribute = name.rpartition(".") if isinstance(name, str) else ("", "", "")
    if not module:
        raise unknown_name(name, ["gpen", *TYPES, "module.Class"], f"{where}:type")
    with suppress(AttributeError):
        found = getattr(import_module_of(module, f"{where}:type"), attribute)
        if callable(found):
            return found
    raise OptionError(f"{where}:type", f"{module} has no {attribute} that can be called", "a class or a function")


def _plain(keys: Mapping) -> dict:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in keys.items()}


def blur_kernel(
    kind: KernelKind,
    size: int,  # side, odd
    sigma: Sequence[float],  # lowest and highest standard deviation, pixels
    rng: np.random.Generator,
    betag: Sequence[float] = (0.5, 8.0),  # lowest and highest shape of a generalized Gaussian
    betap: Sequence[float] = (0.5, 8.0),  # the same of a plateau
) -> np.ndarray:
    """A kernel with the distribution of BasicSR's ``random_mixed_kernels``: (size, size), sum 1."""
    host = host_module("basicsr.data.degradations", "the kernels of this degradation")
    isotropic = kind.endswith("iso") and not kind.endswith("aniso")
    sigma_x, sigma_y = (float(rng.uniform(*sigma)) for _ in "xy")
    angle = float(rng.uniform(-np.pi, np.pi))
    shape = (size, sigma_x, sigma_y, angle)
    if kind in ("iso", "aniso"):
        return host.bivariate_Gaussian(*shape, isotropic=isotropic)
    bounds = betag if kind.startswith("generalized") else betap
    beta = float(rng.uniform(bounds[0], 1) if rng.random() < 0.5 else rng.uniform(1, bounds[1]))
    make = host.bivariate_generalized_Gaussian if kind.startswith("generalized") else host.bivariate_plateau
    return make(*shape, beta, isotropic=isotropic)


def sinc_kernel(size: int, lowest: float, rng: np.random.Generator) -> np.ndarray:
    """A circular low-pass filter, (size, size), sum 1; its cutoff is uniform from `lowest` to pi."""
    host = host_module("basicsr.data.degradations", "the kernels of this degradation")
    return host.circular_lowpass_kernel(float(rng.uniform(lowest, np.pi)), size)


def add_gaussian_noise(image: np.ndarray, sigma: float, gray: bool, rng: np.random.Generator) -> np.ndarray:
    """(H, W, 3) in [0, 1] plus N(0, sigma / 255), equal in the channels if `gray`; clipped."""
    noise = rng.standard_normal((*image.shape[:2], 1 if gray else 3), np.float32)
    return np.clip(image + noise * np.float32(sigma / 255), 0, 1)


def add_poisson_noise(image: np.ndarray, scale: float, gray: bool, rng: np.random.Generator) -> np.ndarray:
    """(H, W, 3) BGR in [0, 1] plus `scale` times its shot noise, equal in the channels if `gray`; clipped.

    A pixel counts as many photons as the image has levels, rounded up to a power of two.
    """
    base = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)[:, :, None] if gray else image
    levels = np.rint(np.clip(base, 0, 1) * 255).astype(np.uint8)
    base, photons = levels / 255, 2.0 ** np.ceil(np.log2(np.count_nonzero(np.bincount(levels.ravel()))))
    noise = rng.poisson(base * photons) / photons - base
    return np.clip(image + scale * noise, 0, 1).astype(np.float32)


def _jpeg(image: np.ndarray, quality: float) -> np.ndarray:
    written = compress_jpeg(np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8), round(quality))
    return written.astype(np.float32) / 255


def _filter(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    return cv2.filter2D(image, -1, kernel.astype(np.float32), borderType=cv2.BORDER_REFLECT_101)


def _resize(image: np.ndarray, size: tuple[int, int], mode: str) -> np.ndarray:
    """To (h, w, 3), by torch as Real-ESRGAN does: OpenCV's `area` is another filter where it enlarges."""
    import torch
    from torch.nn import functional as F

    planes = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]  # [1, 3, H, W]
    size = tuple(max(1, int(side)) for side in size)
    return F.interpolate(planes, size=size, mode=mode)[0].permute(1, 2, 0).contiguous().numpy()


def _check_kernels(options: object, suffix: str = "") -> None:
    """Raise an OptionError unless kinds and probabilities fit."""
    names = [f"{key}{suffix}" for key in ("kernel_list", "kernel_prob")]
    check_probabilities(names[0], getattr(options, names[0]), names[1], getattr(options, names[1]))


def _check(options: object, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Raise an OptionError for a range or a probability that is out of bounds; lists become tuples."""
    for field in fields(options):
        value = getattr(options, field.name)
        if isinstance(value, list):
            object.__setattr__(options, field.name, tuple(value))
        if field.name.rstrip("2") in ranges and value is not None:
            check_range(field.name, tuple(value), *ranges[field.name.rstrip("2")])
        if "_prob" in field.name and isinstance(value, int | float) and not 0 <= value <= 1:
            raise OptionError(field.name, f"got {value}", "a number from 0 to 1")


_RANGES = {  # smallest and largest value allowed
    "kernel_size": (1, 999),
    "blur_sigma": (0.01, np.inf),
    "betag_range": (0.01, np.inf),
    "betap_range": (0.01, np.inf),
    "resize_range": (0.01, 16),
    "downsample_range": (0.1, np.inf),
    "noise_range": (0, 255),
    "poisson_scale_range": (0, np.inf),
    "jpeg_range": (1, 100),
    "brightness": (0, np.inf),
    "contrast": (0, np.inf),
    "saturation": (0, np.inf),
    "hue": (-0.5, 0.5),
}
ALL_KERNELS = ("iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso")
ALL_PROBS = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)


@dataclass(frozen=True)
class RealESRGANDegradation:
    """Real-ESRGAN's degradation of second order (Wang et al., ICCVW 2021, section 3), with its keys and defaults.

    Blur, resize, noise and JPEG, twice, and sinc filters. A ``2`` ends the keys of the second time.
    """

    scale: int = 4  # the degraded image is this many times smaller than the face
    usm: bool = True  # sharpen the face first, as Real-ESRGAN does (its ground truth, too; here it stays as it is)
    kernel_size: tuple[int, int] = (7, 21)  # side of all kernels in pixels, odd
    kernel_list: Sequence[KernelKind] = ALL_KERNELS  # blur kernels: Gaussians, generalized Gaussians, plateaus
    kernel_prob: Sequence[float] = ALL_PROBS  # probability of each kind; sum 1
    sinc_prob: float = 0.1  # probability of a sinc filter in place of a blur kernel
    blur_sigma: tuple[float, float] = (0.2, 3.0)  # standard deviation of the kernels, pixels
    betag_range: tuple[float, float] = (0.5, 4.0)  # shape of generalized Gaussians; 1 is a Gaussian
    betap_range: tuple[float, float] = (1.0, 2.0)  # shape of plateaus
    resize_prob: tuple[float, float, float] = (0.2, 0.7, 0.1)  # probabilities to enlarge, to reduce, to do neither
    resize_range: tuple[float, float] = (0.15, 1.5)  # factor of the size: smallest and largest
    gaussian_noise_prob: float = 0.5  # probability of Gaussian noise; else it is shot noise
    noise_range: tuple[float, float] = (1.0, 30.0)  # standard deviation of Gaussian noise, in units of 1/255
    poisson_scale_range: tuple[float, float] = (0.05, 3.0)  # factor of shot noise
    gray_noise_prob: float = 0.4  # probability of noise that is equal in the three channels
    jpeg_range: tuple[float, float] = (30.0, 95.0)  # JPEG quality
    second_blur_prob: float = 0.8  # probability of the second blur
    kernel_list2: Sequence[KernelKind] = ALL_KERNELS  # as `kernel_list`
    kernel_prob2: Sequence[float] = ALL_PROBS  # as `kernel_prob`
    sinc_prob2: float = 0.1  # as `sinc_prob`
    blur_sigma2: tuple[float, float] = (0.2, 1.5)  # as `blur_sigma`
    betag_range2: tuple[float, float] = (0.5, 4.0)  # as `betag_range`
    betap_range2: tuple[float, float] = (1.0, 2.0)  # as `betap_range`
    resize_prob2: tuple[float, float, float] = (0.3, 0.4, 0.3)  # as `resize_prob`
    resize_range2: tuple[float, float] = (0.3, 1.2)  # as `resize_range`, of the size of the result
    gaussian_noise_prob2: float = 0.5  # as `gaussian_noise_prob`
    noise_range2: tuple[float, float] = (1.0, 25.0)  # as `noise_range`
    poisson_scale_range2: tuple[float, float] = (0.05, 2.5)  # as `poisson_scale_range`
    gray_noise_prob2: float = 0.4  # as `gray_noise_prob`
    jpeg_range2: tuple[float, float] = (30.0, 95.0)  # as `jpeg_range`
    final_sinc_prob: float = 0.8  # probability of a sinc filter before or after the last JPEG

    def __post_init__(self):
        _check(self, _RANGES)
        if self.scale < 1:
            raise OptionError("scale", f"got {self.scale}", "1 or more")
        if any(size % 2 == 0 for size in self.kernel_size):
            raise OptionError("kernel_size", f"got {list(self.kernel_size)}", "two odd numbers", "Use e.g. [7, 21].")
        for suffix in ("", "2"):
            _check_kernels(self, suffix)
            check_probabilities("", "udk", f"resize_prob{suffix}", getattr(self, f"resize_prob{suffix}"))
            for key in ("resize_range", "betag_range", "betap_range"):
                low, high = getattr(self, f"{key}{suffix}")
                if not low <= 1 <= high:
                    raise OptionError(f"{key}{suffix}", f"got {[low, high]}", "two numbers around 1, e.g. [0.5, 1.5]")

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(H, W, 3) BGR float32 in [0, 1] -> (H / scale, W / scale, 3)."""
        sides = image.shape[:2]
        if self.usm:
            image = host_module("basicsr.utils.img_process_util", "degradation: usm").usm_sharp(image)
        image = _filter(image, self._kernel("", rng))
        image = self._resize_and_add_noise(image, sides, "", rng)
        image = _jpeg(image, rng.uniform(*self.jpeg_range))
        if rng.random() < self.second_blur_prob:
            image = _filter(image, self._kernel("2", rng))
        small = tuple(side / self.scale for side in sides)
        image = self._resize_and_add_noise(image, small, "2", rng)
        jpeg_last, mode = rng.random() < 0.5, RESIZE_MODES[rng.integers(3)]
        quality, kernel = rng.uniform(*self.jpeg_range2), None
        if rng.random() < self.final_sinc_prob:
            kernel = sinc_kernel(self._size(rng), np.pi / 3, rng)
        if not jpeg_last:
            image = _jpeg(image, quality)
        image = _resize(image, small, mode)
        image = image if kernel is None else _filter(image, kernel)
        return _jpeg(image, quality) if jpeg_last else image

    def _size(self, rng: np.random.Generator) -> int:
        return int(2 * rng.integers(self.kernel_size[0] // 2, self.kernel_size[1] // 2 + 1) + 1)

    def _kernel(self, suffix: str, rng: np.random.Generator) -> np.ndarray:
        size = self._size(rng)
        if rng.random() < getattr(self, f"sinc_prob{suffix}"):
            return sinc_kernel(size, np.pi / (3 if size < SMALL_SINC else 5), rng)
        kinds, probs = getattr(self, f"kernel_list{suffix}"), getattr(self, f"kernel_prob{suffix}")
        sigma, betag, betap = (getattr(self, f"{key}{suffix}") for key in ("blur_sigma", "betag_range", "betap_range"))
        return blur_kernel(kinds[rng.choice(len(kinds), p=probs)], size, sigma, rng, betag, betap)

    def _resize_and_add_noise(
        self, image: np.ndarray, sides: Sequence[float], suffix: str, rng: np.random.Generator
    ) -> np.ndarray:
        """To `sides` times a random factor; then Gaussian or shot noise."""
        smallest, largest = getattr(self, f"resize_range{suffix}")
        direction = rng.choice(3, p=getattr(self, f"resize_prob{suffix}"))
        factor = (rng.uniform(1, largest), rng.uniform(smallest, 1), 1.0)[direction]
        image = _resize(image, tuple(side * factor for side in sides), RESIZE_MODES[rng.integers(3)])
        gray = rng.random() < getattr(self, f"gray_noise_prob{suffix}")
        if rng.random() < getattr(self, f"gaussian_noise_prob{suffix}"):
            return add_gaussian_noise(image, rng.uniform(*getattr(self, f"noise_range{suffix}")), gray, rng)
        return add_poisson_noise(image, rng.uniform(*getattr(self, f"poisson_scale_range{suffix}")), gray, rng)


@dataclass(frozen=True)
class GFPGANDegradation:
    """GFPGAN's degradation (Wang et al., CVPR 2021, section 4.1), with the keys and values of its option file.

    Blur, downsampling, noise and JPEG as in Eq. 4, in other ranges; then changes of color of the input alone.
    """

    blur_kernel_size: int = 41  # side of the kernel in pixels, odd
    kernel_list: Sequence[KernelKind] = ("iso", "aniso")  # blur kernels
    kernel_prob: Sequence[float] = (0.5, 0.5)  # probability of each kind; sum 1
    blur_sigma: tuple[float, float] = (0.1, 10.0)  # standard deviation of the kernels, pixels
    downsample_range: tuple[float, float] = (0.8, 8.0)  # downsampling factor; below 1 it enlarges
    # standard deviation of the noise, in units of 1/255; ~ for none
    noise_range: tuple[float, float] | None = (0.0, 20.0)
    jpeg_range: tuple[float, float] | None = (60.0, 100.0)  # JPEG quality; ~ for none
    color_jitter_prob: float | None = 0.3  # probability of a shift of each channel; ~ for none
    color_jitter_shift: float = 20.0  # largest shift, in units of 1/255
    # probability of changes of brightness, contrast, saturation and hue, in random order; ~ for none
    color_jitter_pt_prob: float | None = 0.3
    brightness: tuple[float, float] = (0.5, 1.5)  # factor
    contrast: tuple[float, float] = (0.5, 1.5)  # factor
    saturation: tuple[float, float] = (0.0, 1.5)  # factor
    hue: tuple[float, float] = (-0.1, 0.1)  # shift, in turns of the color circle
    # probability of a gray input of a face in color; `gray_prob` of the data set makes both gray. ~ for none
    gray_prob: float | None = 0.01

    def __post_init__(self):
        _check(self, _RANGES)
        _check_kernels(self)
        if self.blur_kernel_size < 1 or self.blur_kernel_size % 2 == 0:
            raise OptionError("blur_kernel_size", f"got {self.blur_kernel_size}", "an odd number above 0")

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(H, W, 3) BGR float32 in [0, 1] -> the same size."""
        height, width = image.shape[:2]
        kind = self.kernel_list[rng.choice(len(self.kernel_list), p=self.kernel_prob)]
        result = _filter(image, blur_kernel(kind, self.blur_kernel_size, self.blur_sigma, rng))
        factor = rng.uniform(*self.downsample_range)
        small = tuple(max(1, int(side // factor)) for side in (width, height))
        result = cv2.resize(result, small, interpolation=cv2.INTER_LINEAR)
        if self.noise_range is not None:
            result = add_gaussian_noise(result, rng.uniform(*self.noise_range), False, rng)
        if self.jpeg_range is not None:
            result = _jpeg(result, rng.uniform(*self.jpeg_range))
        result = cv2.resize(result, (width, height), interpolation=cv2.INTER_LINEAR)
        if rng.random() < (self.color_jitter_prob or 0):
            shift = rng.uniform(-self.color_jitter_shift, self.color_jitter_shift, 3) / 255
            result = np.clip(result + shift.astype(np.float32), 0, 1)
        if rng.random() < (self.gray_prob or 0):
            result = cv2.cvtColor(cv2.cvtColor(result, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
        if rng.random() < (self.color_jitter_pt_prob or 0):
            result = self._change_color(result, rng)
        return result

    def _change_color(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        import torch
        from torchvision.transforms import functional  # here, because it takes seconds

        rgb = torch.from_numpy(np.ascontiguousarray(image[:, :, ::-1].transpose(2, 0, 1)))  # [3, H, W]
        names = ("brightness", "contrast", "saturation", "hue")
        for name in (names[index] for index in rng.permutation(len(names))):
            rgb = getattr(functional, f"adjust_{name}")(rgb, float(rng.uniform(*getattr(self, name))))
        return rgb.permute(1, 2, 0).numpy()[:, :, ::-1]


TYPES: Mapping[str, type] = {"realesrgan": RealESRGANDegradation, "gfpgan": GFPGANDegradation}
