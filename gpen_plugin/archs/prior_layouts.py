"""GAN priors and discriminators of other code bases: their state dicts brought into our layout.

A renaming is not enough: each code base multiplies other constants into its weights at run time. Ours are those of
StyleGAN2: a weight is divided by the root of its fan-in, and sqrt(2) follows each leaky ReLU. An importer multiplies
each tensor by the ratio of the factors, so that our network computes the same numbers. What it does not know stays
under its own name, and the comparison with the network reports it.
"""

import math
import re
from collections.abc import Callable, Collection, Mapping

import torch

from gpen_plugin.ops import fir_kernel

Tensors = Mapping[str, torch.Tensor]

ROOT2 = math.sqrt(2)
SMALLEST_FUSED = 128  # pixels; from here on StyleGAN v1 upsamples by a transposed convolution, whose kernel is flipped
LR_MLP = 0.01  # of StyleGAN v1's mapping network

NVIDIA_SOURCE = "NVIDIA Source Code License: research or evaluation only, non-commercial"
NVIDIA_CC = "CC BY-NC 4.0 if the weights are NVIDIA's"
LICENSES = {
    "nvlabs": NVIDIA_SOURCE,
    "genforce": f"MIT; {NVIDIA_CC} (PGGAN, StyleGAN) or under the NVIDIA Source Code License (StyleGAN2)",
    "mganprior": f"{NVIDIA_CC}; the repository states no license",
    "pulse": f"{NVIDIA_CC}; the repository states no license",
    "rosinality": "MIT",
    "gan_zoo": "BSD-3-Clause",
}
"""By layout, the license under which its published weights are distributed."""


class _Reader:
    """The tensors of a file, and which of them were read."""

    def __init__(self, tensors: Tensors, ignored: str):
        self.tensors, self.ignored, self.read = tensors, ignored, set()

    def __getitem__(self, name: str) -> torch.Tensor:
        self.read.add(name)
        return self.tensors[name]

    def rest(self) -> dict[str, torch.Tensor]:
        """What was neither read nor matches `ignored`."""
        return {
            name: tensor
            for name, tensor in self.tensors.items()
            if name not in self.read and not re.fullmatch(self.ignored, name)
        }


def _numbers(keys: Collection[str], pattern: str) -> list[int]:
    return sorted({int(match[1]) for match in (re.fullmatch(pattern, key) for key in keys) if match})


def _check_grown(tensors: Tensors, name: str) -> None:
    if name in tensors and float(tensors[name]):
        raise ValueError(f"its {name} is {float(tensors[name]):g}: the network had not grown to its size yet")


def pggan_of_genforce(tensors: Tensors) -> dict[str, torch.Tensor]:
    """``layer{k}``: gain sqrt(2) in the weights; the first layer is a full convolution of a 1 x 1 image."""
    _check_grown(tensors, "lod")
    layers = _numbers(tensors, r"layer(\d+)\.weight")
    held = _Reader(tensors, r"lod|output\d+\.(weight|bias)")
    first = held["layer0.weight"]  # (C, F, 4, 4)
    ours = {
        "dense.weight": first.flip(2, 3).permute(0, 2, 3, 1).reshape(-1, first.shape[1]) / 4,
        "dense.bias": held["layer0.bias"].repeat_interleave(16) / ROOT2,
    }
    for index in layers[1:]:
        layer = f"blocks.{4 << index // 2}.conv{index % 2}"
        ours[f"{layer}.weight"] = held[f"layer{index}.weight"]
        ours[f"{layer}.bias"] = held[f"layer{index}.bias"] / ROOT2
    for part in ("weight", "bias"):
        ours[f"blocks.{4 << layers[-1] // 2}.to_rgb.{part}"] = held[f"output{layers[-1] // 2}.{part}"]
    return ours | held.rest()


def pggan_of_mganprior(tensors: Tensors) -> dict[str, torch.Tensor]:
    """genforce's values under other names; a fused kernel is stored as (3, 3, I, O) and acts flipped."""
    renamed = {}
    for name, tensor in tensors.items():
        if re.fullmatch(r"layer\d+\.weight", name):
            tensor = tensor.permute(3, 2, 0, 1).flip(2, 3)
        renamed[name.replace(".conv.", ".").replace(".wscale.", ".")] = tensor
    return pggan_of_genforce(renamed)


def pggan_of_gan_zoo(tensors: Tensors) -> dict[str, torch.Tensor]:
    """sqrt(2 / fan-in) multiplies the sum of product and bias, also in the RGB layers."""
    plain = {name.replace(".module.", "."): tensor for name, tensor in tensors.items()}
    scales = _numbers(plain, r"scaleLayers\.(\d+)\.0\.weight")
    held = _Reader(plain, r"toRGBLayers\.\d+\.(weight|bias)")
    dense = held["formatLayer.weight"]
    ours = {"dense.weight": dense, "dense.bias": held["formatLayer.bias"] / math.sqrt(dense.shape[1])}
    layers = {"groupScale0.0": "blocks.4.conv1"}
    for scale in scales:
        layers |= {f"scaleLayers.{scale}.{index}": f"blocks.{8 << scale}.conv{index}" for index in (0, 1)}
    for theirs, layer in layers.items():
        weight = ours[f"{layer}.weight"] = held[f"{theirs}.weight"]
        ours[f"{layer}.bias"] = held[f"{theirs}.bias"] / math.sqrt(weight[0].numel())
    rgb, block = f"toRGBLayers.{len(scales)}", f"blocks.{4 << len(scales)}.to_rgb"
    ours[f"{block}.weight"] = held[f"{rgb}.weight"] * ROOT2
    ours[f"{block}.bias"] = held[f"{rgb}.bias"] * math.sqrt(2 / held[f"{rgb}.weight"].shape[1])
    return ours | held.rest()


def stylegan1_of_genforce(tensors: Tensors) -> dict[str, torch.Tensor]:
    """``synthesis.layer{k}``: gain sqrt(2) in the weights; the style's is 1."""
    _check_grown(tensors, "synthesis.lod")
    layers = _numbers(tensors, r"synthesis\.layer(\d+)\.bias")
    held = _Reader(
        tensors,
        r"truncation\.w_avg|synthesis\.(lod|output\d+\.(weight|bias)|layer\d+\.(apply_noise\.noise|blur\.kernel))",
    )
    ours = _official_mapping(held, "mapping.")
    ours["constant"] = held["synthesis.layer0.const"] / ROOT2
    for index in layers:
        names = ("weight", "bias", "apply_noise.weight", "style.weight", "style.bias")
        ours |= _official_layer(held, index, [f"synthesis.layer{index}.{name}" for name in names])
    for part in ("weight", "bias"):
        ours[f"blocks.{4 << layers[-1] // 2}.to_rgb.{part}"] = held[f"synthesis.output{layers[-1] // 2}.{part}"]
    return ours | held.rest()


def stylegan1_of_pulse(tensors: Tensors) -> dict[str, torch.Tensor]:
    """genforce's values under other names."""
    if "dense0.weight" not in tensors:
        raise ValueError("its mapping network is in a second file, mapping.pt: name it with --mapping")
    sizes = _numbers(tensors, r"blocks\.(\d+)x\d+\.conv1?\.weight")
    held = _Reader(tensors, r".*\.(noise\.noise|intermediate\.kernel|blur\.kernel)")
    ours = _official_mapping(held, "")
    ours["constant"] = held["blocks.4x4.const"] / ROOT2
    for index in range(2 * len(sizes)):
        size, second = sizes[index // 2], index % 2
        block = f"blocks.{size}x{size}"
        conv = f"{block}." + ("conv" if size == 4 else "conv1" if second else "conv0_up")
        first = [f"{block}.const", f"{block}.bias"] if index == 0 else [f"{conv}.weight", f"{conv}.bias"]
        epilogue = f"{block}.epi{second + 1}"
        more = [f"{epilogue}.{name}" for name in ("noise.weight", "style_mod.lin.weight", "style_mod.lin.bias")]
        ours |= _official_layer(held, index, first + more)
    for part in ("weight", "bias"):
        ours[f"blocks.{sizes[-1]}.to_rgb.{part}"] = held[f"torgb.{part}"]
    return ours | held.rest()


def stylegan1_of_rosinality(tensors: Tensors) -> dict[str, torch.Tensor]:
    """Gain sqrt(2) in all weights, also of noise and style; the style's bias holds the 1; biases before the blur.

    A file holds the blocks of all sizes up to 1024 px; those that were not trained have biases and noise of zero.
    """
    held = _Reader(tensors, r"generator\.to_rgb\..*|.*\.weight_flip|generator\.progression\.\d+\.conv1\.[12]\.weight")
    blocks = _numbers(tensors, r"generator\.progression\.(\d+)\.conv2\.conv\.bias")
    learned = [index for index in blocks if tensors[f"generator.progression.{index}.conv2.conv.bias"].any()]
    last = learned[-1] if learned else blocks[-1]
    ours = {}
    for index, number in enumerate(_numbers(tensors, r"style\.(\d+)\.linear\.bias")):
        ours[f"mapping.{index}.weight"] = held[f"style.{number}.linear.weight_orig"] / LR_MLP
        ours[f"mapping.{index}.bias"] = held[f"style.{number}.linear.bias"] / (ROOT2 * LR_MLP)
    ours["constant"] = held["generator.progression.0.conv1.input"] / ROOT2
    for index in blocks:
        theirs, block = f"generator.progression.{index}", f"blocks.{4 << index}"
        layer = {}
        if index and f"{theirs}.conv1.0.weight" in tensors:  # fused: (I, O, 3, 3), a mean of four shifted kernels
            layer["conv0.weight"] = held[f"{theirs}.conv1.0.weight"].transpose(0, 1).flip(2, 3) / 4
            layer["conv0.blurred_bias"] = held[f"{theirs}.conv1.0.bias"] / ROOT2
        elif index:
            layer["conv0.weight"] = held[f"{theirs}.conv1.1.conv.weight_orig"]
            layer["conv0.blurred_bias"] = held[f"{theirs}.conv1.1.conv.bias"] / ROOT2
        layer["conv1.weight"] = held[f"{theirs}.conv2.conv.weight_orig"]
        layer["conv1.bias"] = held[f"{theirs}.conv2.conv.bias"] / ROOT2
        if index == 0:
            layer["conv0.bias"] = torch.zeros_like(layer["conv1.bias"])
        for conv in (0, 1):
            noise = held[f"{theirs}.noise{conv + 1}.weight_orig"].flatten()
            layer[f"conv{conv}.noise_weight"] = noise / math.sqrt(len(noise))
            style = held[f"{theirs}.adain{conv + 1}.style.linear.bias"].clone()
            style[: len(noise)] -= 1
            layer[f"conv{conv}.style.bias"] = style
            layer[f"conv{conv}.style.weight"] = held[f"{theirs}.adain{conv + 1}.style.linear.weight_orig"] * ROOT2
        if index <= last:
            ours |= {f"{block}.{name}": tensor for name, tensor in layer.items()}
    ours[f"blocks.{4 << last}.to_rgb.weight"] = held[f"generator.to_rgb.{last}.conv.weight_orig"] * ROOT2
    ours[f"blocks.{4 << last}.to_rgb.bias"] = held[f"generator.to_rgb.{last}.conv.bias"]
    return ours | held.rest()


def _official_mapping(held: _Reader, prefix: str) -> dict[str, torch.Tensor]:
    """StyleGAN v1's mapping network: gain sqrt(2) in the weights."""
    ours = {}
    for index in _numbers(held.tensors, rf"{re.escape(prefix)}dense(\d+)\.weight"):
        ours[f"mapping.{index}.weight"] = held[f"{prefix}dense{index}.weight"]
        ours[f"mapping.{index}.bias"] = held[f"{prefix}dense{index}.bias"] / ROOT2
    return ours


def _official_layer(held: _Reader, index: int, names: list[str]) -> dict[str, torch.Tensor]:
    """Layer `index` of StyleGAN v1; `names` of weight, bias, noise, and the style's weight and bias."""
    weight, bias, noise, style_weight, style_bias = names
    size = 4 << index // 2
    layer = f"blocks.{size}.conv{index % 2}"
    ours = {
        f"{layer}.bias": held[bias] / ROOT2,
        f"{layer}.noise_weight": held[noise].flatten() / ROOT2,
        f"{layer}.style.weight": held[style_weight],
        f"{layer}.style.bias": held[style_bias],
    }
    if index:  # the first has no convolution
        fused = index % 2 == 0 and size >= SMALLEST_FUSED
        ours[f"{layer}.weight"] = held[weight].flip(2, 3) if fused else held[weight]
    return ours


def stylegan2_of_genforce(tensors: Tensors) -> dict[str, torch.Tensor]:
    """TensorFlow's values: kernels of upsampling layers are flipped, and the style's bias lacks the 1."""
    held = _Reader(tensors, r"truncation\.w_avg|synthesis\.(lod|.*\.(noise|kernel))")
    ours = {}
    for index in _numbers(tensors, r"mapping\.dense(\d+)\.weight"):
        for part in ("weight", "bias"):
            ours[f"mapping.{index}.{part}"] = held[f"mapping.dense{index}.{part}"]
    ours["constant"] = held["synthesis.early_layer.const"]
    for index in _numbers(tensors, r"synthesis\.layer(\d+)\.weight"):
        theirs, up = f"synthesis.layer{index}", index % 2 == 1
        layer = f"blocks.{4 << (index + 1) // 2}.conv{0 if up else 1}"
        weight = held[f"{theirs}.weight"]
        ours[f"{layer}.weight"] = weight.flip(2, 3) if up else weight
        ours[f"{layer}.noise_weight"] = held[f"{theirs}.noise_strength"].reshape(1)
        ours |= _genforce_style(held, theirs, layer)
    for index in _numbers(tensors, r"synthesis\.output(\d+)\.weight"):
        theirs, layer = f"synthesis.output{index}", f"blocks.{4 << index}.to_rgb"
        ours[f"{layer}.weight"] = held[f"{theirs}.weight"]
        ours |= _genforce_style(held, theirs, layer)
    return ours | held.rest()


def _genforce_style(held: _Reader, theirs: str, layer: str) -> dict[str, torch.Tensor]:
    return {
        f"{layer}.bias": held[f"{theirs}.bias"],
        f"{layer}.modulation.weight": held[f"{theirs}.style.weight"],
        f"{layer}.modulation.bias": held[f"{theirs}.style.bias"] + 1,
    }


NVLABS_TAPS = (1, 3, 3, 1)


def stylegan2_of_nvlabs(tensors: Tensors) -> dict[str, torch.Tensor]:
    """``G_ema`` of StyleGAN2-ADA or StyleGAN3's code base: other names and axes, no other values."""
    _check_filters(tensors)
    held = _Reader(tensors, r"mapping\.w_avg|synthesis\.b\d+\.(.*\.)?(resample_filter|noise_const)")
    ours = {}
    for index in _numbers(tensors, r"mapping\.fc(\d+)\.weight"):
        for part in ("weight", "bias"):
            ours[f"mapping.{index}.{part}"] = held[f"mapping.fc{index}.{part}"]
    ours["constant"] = held["synthesis.b4.const"][None]
    for size in _numbers(tensors, r"synthesis\.b(\d+)\.conv1\.weight"):
        for name, own in (("conv0", "conv0"), ("conv1", "conv1"), ("torgb", "to_rgb")):
            theirs, layer = f"synthesis.b{size}.{name}", f"blocks.{size}.{own}"
            if (size, name) == (4, "conv0"):
                continue
            for part, ours_part in (
                ("weight", "weight"),
                ("bias", "bias"),
                ("affine.weight", "modulation.weight"),
                ("affine.bias", "modulation.bias"),
            ):
                ours[f"{layer}.{ours_part}"] = held[f"{theirs}.{part}"]
            if own != "to_rgb":
                ours[f"{layer}.noise_weight"] = held[f"{theirs}.noise_strength"].reshape(1)
    return ours | held.rest()


def discriminator_of_nvlabs(tensors: Tensors) -> dict[str, torch.Tensor]:
    """``D`` of the same files."""
    _check_filters(tensors)
    held = _Reader(tensors, r"b\d+\.(.*\.)?resample_filter")
    sizes = _numbers(tensors, r"b(\d+)\.skip\.weight")
    layers = {f"b{sizes[-1]}.fromrgb": "stem", "b4.conv": "final_conv", "b4.fc": "hidden", "b4.out": "logit"}
    for size in sizes:
        layers |= {f"b{size}.conv{index}": f"blocks.{size}.conv{index + 1}" for index in (0, 1)}
    ours = {f"{own}.{part}": held[f"{theirs}.{part}"] for theirs, own in layers.items() for part in ("weight", "bias")}
    ours |= {f"blocks.{size}.skip.weight": held[f"b{size}.skip.weight"] for size in sizes}
    return ours | held.rest()


def _check_filters(tensors: Tensors) -> None:
    for name, tensor in tensors.items():
        usual = fir_kernel(NVLABS_TAPS).to(tensor)
        if name.endswith("resample_filter") and (tensor.shape != usual.shape or not _close(tensor, usual)):
            raise ValueError(f"{name} is no filter of 1 3 3 1")


def _close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.is_meta or torch.allclose(one, other, atol=1e-3)


Importer = Callable[[Tensors], dict[str, torch.Tensor]]

IMPORTERS: dict[tuple[str, str], Importer] = {
    ("PGGANPrior", "genforce"): pggan_of_genforce,
    ("PGGANPrior", "mganprior"): pggan_of_mganprior,
    ("PGGANPrior", "gan_zoo"): pggan_of_gan_zoo,
    ("StyleGAN1Prior", "genforce"): stylegan1_of_genforce,
    ("StyleGAN1Prior", "pulse"): stylegan1_of_pulse,
    ("StyleGAN1Prior", "rosinality"): stylegan1_of_rosinality,
    ("GPENPrior", "genforce"): stylegan2_of_genforce,
    ("GPENPrior", "nvlabs"): stylegan2_of_nvlabs,
    ("GPENDiscriminator", "nvlabs"): discriminator_of_nvlabs,
}
"""By kind and layout."""

MARKS: dict[tuple[str, ...], tuple[str, str]] = {
    ("layer0.weight", "output0.weight"): ("PGGANPrior", "genforce"),
    ("layer0.conv.weight", "output0.conv.weight"): ("PGGANPrior", "mganprior"),
    ("formatLayer.module.weight", "toRGBLayers.0.module.weight"): ("PGGANPrior", "gan_zoo"),
    ("formatLayer.weight", "toRGBLayers.0.weight"): ("PGGANPrior", "gan_zoo"),
    ("synthesis.layer0.const", "synthesis.output0.weight"): ("StyleGAN1Prior", "genforce"),
    ("blocks.4x4.const", "torgb.weight"): ("StyleGAN1Prior", "pulse"),
    ("generator.progression.0.conv1.input", "style.1.linear.weight_orig"): ("StyleGAN1Prior", "rosinality"),
    ("synthesis.early_layer.const", "synthesis.output0.weight"): ("GPENPrior", "genforce"),
    ("synthesis.b4.const", "mapping.fc0.weight"): ("GPENPrior", "nvlabs"),
    ("b4.fc.weight", "b4.out.weight"): ("GPENDiscriminator", "nvlabs"),
}
"""A pair of keys that no other network in no other layout has."""

STYLEGAN3 = (
    "is a StyleGAN3, which has neither blocks per resolution nor noise inputs, so an encoder's features cannot enter it"
)


def refusal(keys: Collection[str]) -> str | None:
    """Why a known network cannot be a prior; None for any other."""
    if any(re.fullmatch(r"(?:.*\.)?synthesis\.input\.(freqs|phases)", key) for key in keys):
        return STYLEGAN3
    return None
