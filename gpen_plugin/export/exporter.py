"""Export a GPEN to ONNX or torch.export, and keep the file only if it agrees with PyTorch."""

import contextlib
import copy
import io
import itertools
import json
import logging
import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from gpen_plugin.archs.gan_prior_arch import GPENPrior
from gpen_plugin.archs.gpen_arch import GPEN
from gpen_plugin.archs.inference import fuse
from gpen_plugin.archs.layers import EqualConv2d, StyledConv, ToRGB
from gpen_plugin.errors import CheckpointError, OptionError
from gpen_plugin.export.framing import Frame, fading, resampling_matrix
from gpen_plugin.export.options import TOLERANCES, ExportOptions
from gpen_plugin.nets.loading import OnnxNetwork
from gpen_plugin.restore.network import to_network

LOWEST, HIGHEST = -1.0, 1.0  # of the images that an exported network takes and gives
INPUT, OUTPUT, WEIGHT = "input", "output", "weight"  # the names that applications which run GPEN use
METADATA_FILE = "gpen.json"  # in the archive of a program
_CALIBRATION_SEED = 100  # its images measure the features; the comparison uses others
_SMOOTH_IMAGES = 3
_EXAMPLE_BATCH = 2  # torch.export takes a batch of 1 for a constant
# The largest features after scaling for half precision: a thousandth of the largest number, and a million times the
# smallest one that has full precision.
PEAK = 64.0
_MIN_STYLE = 1e-4  # of a layer's largest; smaller ones are not scaled up to 1
_MIN_KERNEL_NORM = 1e-4  # the square root of demodulation's epsilon

Network = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Difference:
    """Difference between two networks' images, as fractions of the value range."""

    largest: float  # of one value
    rms: float  # root mean square over all values

    def check(self, tolerance: float, where: str, hint: str) -> None:
        """Raise a `CheckpointError` about the file `where` if `largest` is above `tolerance` or NaN."""
        if not self.largest <= tolerance:
            expected = f"{tolerance:g} or less, so the file is not kept"
            raise CheckpointError(where, f"differs from PyTorch by {self}", expected, hint)

    def __str__(self) -> str:
        return f"{self.largest:.1e} of the value range (rms {self.rms:.1e})"


@dataclass(frozen=True)
class Exported:
    """A file that was written."""

    path: Path
    difference: Difference  # from PyTorch in float32
    images: int  # number of images compared


def export(
    net: GPEN,  # in float32, on the device of the comparison and of a program; it stays as it is
    path: str | os.PathLike,
    options: ExportOptions,
    metadata: Mapping[str, str],  # stored in the file
) -> Exported:
    """Export a network; replace an earlier file only after the new one agrees with `net` on some images.

    The file takes images (N, 3, in_size, in_size), RGB float32, and gives (N, 3, out_size, out_size), not clipped. Both
    are in [-1, 1], whatever the value range of `net` is. With a `frame` both have its size. Raises CheckpointError: the
    file differs from `net` by more than the tolerance, or cannot be written. Raises MissingFileError: a package is not
    installed. Raises OptionError: `net` cannot be exported so.
    """
    options.check_packages()
    if options.precision == "fp16" and not isinstance(net.decoder, GPENPrior):
        got = f"got fp16 for a network on {type(net.decoder).__name__}"
        raise OptionError("--precision", got, "fp32: only StyleGAN2's layers are scaled to half precision")
    if options.weight and options.frame is None and net.in_size != net.out_size:
        got = f"got it for a network of {net.in_size} px whose result has {net.out_size} px"
        raise OptionError("--weight", got, "input and result of one size", "Leave it out.")
    if "gpen.value_range" in metadata:  # of `net`, not of the file
        metadata = {**metadata, "gpen.value_range": f"[{LOWEST:g}, {HIGHEST:g}]"}
    path, device = Path(path), next(net.parameters()).device
    tolerance = TOLERANCES[options.precision] if options.tolerance is None else options.tolerance
    exact = _prepare(net)
    size = net.in_size if options.frame is None else options.frame.size
    batches = make_test_inputs(size, options.batch)
    expected = _runner(FileNetwork(exact, options.frame).to(device), device)
    unfinished = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fused = fuse(exact, traceable=True) if options.precision == "fp32" else _fuse_in_half(exact, tolerance, path)
        write = _write_onnx if options.format == "onnx" else _write_program
        with suppress_warnings():
            exported = write(unfinished, FileNetwork(fused, options.frame).to(device), size, device, options, metadata)
        difference = measure_difference(expected, exported, batches)
        difference.check(tolerance, str(path), "Try another opset, or a larger tolerance.")
        os.replace(unfinished, path)
    except OSError as error:
        got = f"cannot be written ({error.strerror or error})"
        raise CheckpointError(str(path), got, "a writable folder with room on its disk") from error
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
    return Exported(path, difference, sum(len(batch) for batch in batches))


def make_test_inputs(
    in_size: int,  # S
    # images per batch, repeated above four; None, for a file that takes any number, gives one and then three
    batch: int | None,
    seed: int = 0,  # of the first smooth image and of the noise
) -> list[torch.Tensor]:
    """Batches (N, 3, S, S), RGB in [-1, 1], to compare with: three images of smooth random colors and one of noise."""
    noise = torch.rand(3, in_size, in_size, generator=torch.Generator().manual_seed(seed)) * (HIGHEST - LOWEST) + LOWEST
    images = [noise, *(_smooth_image(seed + index, in_size) for index in range(_SMOOTH_IMAGES))]
    if batch is None:
        return [noise[None], torch.stack(images[1:])]
    endless = itertools.cycle(images)
    return [torch.stack(list(itertools.islice(endless, batch))) for _ in range(math.ceil(len(images) / batch))]


def _smooth_image(seed: int, size: int) -> torch.Tensor:
    grid = np.random.default_rng(seed).random((8, 8, 3), np.float32)
    image = np.clip(cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC), 0, 1)
    return to_network(image, (LOWEST, HIGHEST))


def measure_difference(expected: Network, exported: Network, batches: Iterable[torch.Tensor]) -> Difference:
    """Compare the images that two networks give for the same batches, both (N, 3, S, S) -> (N, 3, T, T) on the CPU."""
    peaks, squares, count = [], 0.0, 0
    for batch in batches:
        error = (exported(batch) - expected(batch)).double() / (HIGHEST - LOWEST)  # (N, 3, T, T)
        peaks.append(error.abs().max())
        squares, count = squares + error.square().sum().item(), count + error.numel()
    return Difference(torch.stack(peaks).max().item(), math.sqrt(squares / count))  # NaN, if there is one


@contextlib.contextmanager
def suppress_warnings() -> Iterator[None]:
    """Hide warnings and PyTorch's log below errors: the exporters report their own progress and deprecations."""
    logger = logging.getLogger("torch")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def _prepare(net: GPEN) -> GPEN:
    """A copy for inference in the layers' value range and the usual memory layout."""
    copied = copy.deepcopy(net).eval().requires_grad_(False).to(memory_format=torch.contiguous_format)
    copied.value_range = (LOWEST, HIGHEST)
    return copied


def _fuse_in_half(exact: GPEN, tolerance: float, path: Path) -> nn.Module:
    """The fused network in half precision, checked here too: on a CPU, onnxruntime may compute it in float32."""
    device = next(exact.parameters()).device
    calibration = [batch.to(device) for batch in make_test_inputs(exact.in_size, None, _CALIBRATION_SEED)]
    half = fuse(scale_for_half(exact, calibration), torch.float16, traceable=True)
    batches = make_test_inputs(exact.in_size, 1)
    difference = measure_difference(_runner(exact, device), _runner(half, device), batches)
    difference.check(tolerance, str(path), "Export it in fp32.")
    return half


def _runner(net: nn.Module, device: torch.device) -> Network:
    def run(images: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return net(images.to(device)).cpu()

    return run


def _write_onnx(
    path: Path, net: nn.Module, size: int, device: torch.device, options: ExportOptions, metadata: Mapping[str, str]
) -> Network:
    """Write an ONNX file and open it with onnxruntime."""
    import onnx  # both are of the extra `export`
    import onnxslim

    # The older exporter traces, because it needs no other package. No constant of the graph depends on the number of
    # images, so the graph takes any number, or the one that its input declares.
    stream, names = io.BytesIO(), [INPUT, WEIGHT] if options.weight else [INPUT]
    example = (torch.zeros(1, 3, size, size, device=device), torch.ones(1, dtype=torch.float64, device=device))
    torch.onnx.export(
        net,
        example[: len(names)],
        stream,
        input_names=names,
        output_names=[OUTPUT],
        opset_version=options.opset,
        do_constant_folding=False,  # leaves copies of the kernels behind
        dynamo=False,
    )
    model = onnxslim.slim(onnx.load_model_from_string(stream.getvalue()))
    del model.graph.value_info[:]  # shapes for one image
    for value in (model.graph.input[0], *model.graph.output):
        first = value.type.tensor_type.shape.dim[0]
        if options.batch is None:
            first.dim_param = "batch"
        else:
            first.dim_value = options.batch
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    onnx.save_model(model, path)
    network = OnnxNetwork(path, device)
    return lambda images: torch.from_numpy(network(images.numpy())[OUTPUT])


class FileNetwork(nn.Module):
    """What a file computes: a GPEN, in the frame of the file's faces, blended with the input by `weight`."""

    def __init__(
        self,
        net: nn.Module,  # a GPEN, whose options a tracer would take for inputs
        frame: Frame | None,  # None: the file's faces are the network's
    ):
        super().__init__()
        self.net, self.framed = net, frame is not None
        if frame is None:
            return
        inner, outer = net.in_size, net.out_size
        growth = outer / inner
        for axis, name in enumerate("xy"):
            into = resampling_matrix(inner, frame.size, frame.scale, frame.shift[axis])
            scale = 1 / (frame.scale * growth)  # pixel q of the result is (q + 0.5) / growth - 0.5 of the input
            out_shift = ((0.5 / growth - 0.5) - frame.shift[axis]) / frame.scale
            back = resampling_matrix(frame.size, outer, scale, out_shift)
            self.register_buffer(f"into_{name}", torch.from_numpy(into), persistent=False)  # [in_size, size]
            self.register_buffer(f"back_{name}", torch.from_numpy(back), persistent=False)  # [size, out_size]
        rows, columns = map(torch.from_numpy, fading(frame, inner))
        self.register_buffer("mask", rows[:, None] * columns, persistent=False)  # [size, size]

    def forward(
        self,
        lq: torch.Tensor,  # (N, 3, S, S), RGB in [-1, 1]
        weight: torch.Tensor | None = None,  # (1,) of the result; 1 - `weight` is that of `lq`. None is 1
    ) -> torch.Tensor:
        """(N, 3, S, S), or the network's result as it is, (N, 3, out_size, out_size)."""
        restored = self.net(self.into_y @ lq @ self.into_x.T if self.framed else lq)
        if self.framed:
            restored = lq + self.mask * (self.back_y @ restored @ self.back_x.T - lq)
        return restored if weight is None else lq + weight.float() * (restored - lq)


def _write_program(
    path: Path, net: nn.Module, size: int, device: torch.device, options: ExportOptions, metadata: Mapping[str, str]
) -> Network:
    """Write a program of torch.export, graph and weights for one device, and open it.

    Opening runs code that the file holds: never open such a file from a source that you do not trust.
    """
    example = torch.zeros(options.batch or _EXAMPLE_BATCH, 3, size, size, device=device)
    shapes = ({0: torch.export.Dim("batch")},) if options.batch is None else None
    with torch.no_grad(), open(path, "wb") as stream:
        program = torch.export.export(net, (example,), dynamic_shapes=shapes, strict=False)
        torch.export.save(program, stream, extra_files={METADATA_FILE: json.dumps(dict(metadata), indent=1)})
    with open(path, "rb") as stream:
        return _runner(torch.export.load(stream).module(), device)


def scale_for_half(
    net: GPEN,  # in float32; it stays as it is
    images: Iterable[torch.Tensor],  # batches (N, 3, H, W) in the network's value range, on its device
) -> GPEN:
    """A copy in float32 with features, styles and kernels of medium size, ready for ``fuse(net, torch.float16)``."""
    # Plain half precision fails where a number leaves its range, 6e-8 to 65504. The first is the square of the code z:
    # the length of z has no effect on the image, so training lets it grow past 256; then the mean square is infinite
    # and every face gets the same style. Squares of styles and weights in the demodulation and features of large
    # networks can follow. So styles (code, mapping network, modulation, demodulation), the sum of the images, input
    # and output stay in float32.
    # The convolutions compute in half precision. Leaky ReLU and convolutions commute with positive factors, and
    # demodulation cancels them (StyleGAN2, Eq. 3), so features, styles and kernels can be scaled without a change to
    # the image. The factors are measured on images.
    scaled = copy.deepcopy(net).eval().requires_grad_(False)
    peaks, styles = _measure(scaled, images)
    divisors = _scale_encoder(scaled, peaks)
    _scale_decoder(scaled, peaks, styles, divisors)
    return scaled


@torch.no_grad()
def _measure(net: GPEN, images: Iterable[torch.Tensor]) -> tuple[dict[nn.Module, float], dict[nn.Module, torch.Tensor]]:
    """The largest output of each layer of features, and the root mean square (I,) of each modulation's styles."""
    peaks: dict[nn.Module, float] = {}
    powers: dict[nn.Module, list[torch.Tensor]] = {}

    def record_peak(layer, _, output):
        peaks[layer] = max(peaks.get(layer, 0.0), output.abs().max().item())

    def record_power(modulation, _, output):
        powers.setdefault(modulation, []).append(output.square())  # (N, I)

    hooks = []
    for module in net.modules():
        if isinstance(module, (EqualConv2d, StyledConv)):
            hooks.append(module.register_forward_hook(record_peak))
        if isinstance(module, (StyledConv, ToRGB)):
            hooks.append(module.modulation.register_forward_hook(record_power))
    for batch in images:
        net(batch)
    for hook in hooks:
        hook.remove()
    return peaks, {modulation: torch.cat(each).mean(dim=0).sqrt() for modulation, each in powers.items()}


@torch.no_grad()
def _scale_encoder(net: GPEN, peaks: dict[nn.Module, float]) -> dict[int, float]:
    """Scale each layer's features to `PEAK`. Returns the divisors by resolution."""
    divisors, before = {}, 1.0
    layers = {net.in_size: net.encoder.stem} | {int(size): layer for size, layer in net.encoder.down.items()}
    for resolution, layer in layers.items():
        divisor = _divisor(peaks[layer])
        layer.weight *= layer.scale * before / divisor
        layer.bias /= divisor
        layer.scale = 1.0
        divisors[resolution] = before = divisor
    net.encoder.to_z.weight *= before
    return divisors


@torch.no_grad()
def _scale_decoder(
    net: GPEN, peaks: dict[nn.Module, float], styles: dict[nn.Module, torch.Tensor], divisors: dict[int, float]
) -> None:
    """Scale the largest features to `PEAK`, all by one factor, because demodulation passes the scale of features on."""
    decoder = net.decoder
    convs = [conv for block in decoder.blocks.values() for conv in block.convs]
    divisor = _divisor(max(decoder.constant.abs().max().item(), *(peaks[conv] for conv in convs)))
    decoder.constant /= divisor
    for resolution, block in decoder.blocks.items():
        for conv in block.convs:
            _absorb_style(conv, styles[conv.modulation])
            length = conv.weight.square().sum(dim=(1, 2, 3), keepdim=True).sqrt()  # (O, 1, 1, 1)
            conv.weight /= length.clamp(min=_MIN_KERNEL_NORM)
            conv.bias /= divisor
            if conv.noise_weight is not None:
                conv.noise_weight *= divisors.get(int(resolution), 1.0) / divisor
        _absorb_style(block.to_rgb, styles[block.to_rgb.modulation])
        block.to_rgb.weight *= divisor


def _absorb_style(layer: StyledConv | ToRGB, style: torch.Tensor) -> None:
    """Move the typical style (I,) into the kernel, so that the layer's styles are about 1."""
    style = style.clamp(min=max(_MIN_STYLE * style.max().item(), torch.finfo(style.dtype).tiny))
    layer.modulation.weight /= style[:, None]
    layer.modulation.bias /= style
    layer.weight *= style[:, None, None] * layer.scale
    layer.scale = 1.0


def _divisor(peak: float) -> float:
    return peak / PEAK if peak > 0 else 1.0
