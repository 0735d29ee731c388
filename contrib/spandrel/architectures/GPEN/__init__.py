from __future__ import annotations

import re

import torch
from torch import Tensor
from typing_extensions import override

from spandrel.util import KeyCondition, get_seq_len

from ...__helpers.model_descriptor import (
    Architecture,
    ImageModelDescriptor,
    ModelTiling,
    SizeRequirements,
    StateDict,
)
from .__arch.gpen_arch import GPEN


def _log2(n: int) -> int:
    return n.bit_length() - 1


def _to_released_layout(state_dict: StateDict) -> StateDict:
    """
    Rename the tensors of gpen_plugin's files to those of the released files.

    gpen_plugin numbers layers by resolution: `encoder.down.{r}`, `decoder.blocks.{r}`.
    """
    downs = [re.match(r"encoder\.down\.(\d+)\.weight", key) for key in state_dict]
    in_size = 2 * max(int(m[1]) for m in downs if m)

    def layer(key: str) -> str:
        if m := re.match(r"encoder\.down\.(\d+)\.(weight|bias)$", key):
            i = _log2(in_size // int(m[1]))
            return f"ecd{i}.0.1.weight" if m[2] == "weight" else f"ecd{i}.0.2.bias"
        if m := re.match(r"decoder\.mapping\.(\d+)\.", key):
            return f"generator.style.{int(m[1]) + 1}.{key[m.end() :]}"
        if m := re.match(r"decoder\.blocks\.(\d+)\.(conv0|conv1|to_rgb)\.", key):
            octave, rest = _log2(int(m[1])) - 3, key[m.end() :]
            if m[2] == "to_rgb":
                name = "to_rgb1" if octave < 0 else f"to_rgbs.{octave}"
                rest = rest if rest == "bias" else f"conv.{rest}"
            else:
                index = 2 * octave + (m[2] == "conv1")
                name = "conv1" if octave < 0 else f"convs.{index}"
                own = {"noise_weight": "noise.weight", "bias": "activate.bias"}
                rest = own.get(rest, f"conv.{rest}")
            return f"generator.{name}.{rest}"
        named = {
            "encoder.stem.weight": "ecd0.0.0.weight",
            "encoder.stem.bias": "ecd0.0.1.bias",
            "encoder.to_z.weight": "final_linear.0.weight",
            "encoder.to_z.bias": "final_linear.0.bias",
            "decoder.constant": "generator.input.input",
        }
        return named.get(key, key)

    renamed: StateDict = {}
    for key, tensor in state_dict.items():
        name = layer(key)
        if name.endswith("conv.weight"):
            tensor = tensor[None]
        elif re.search(r"to_rgb(1|s\.\d+)\.bias$", name):
            tensor = tensor.reshape(1, 3, 1, 1)
        renamed[name] = tensor
    return renamed


class GPENArch(Architecture[GPEN]):
    def __init__(self) -> None:
        super().__init__(
            id="GPEN",
            detect=KeyCondition.has_any(
                # the released files
                KeyCondition.has_all(
                    "ecd0.0.0.weight",
                    "ecd1.0.1.weight",
                    "final_linear.0.weight",
                    "generator.input.input",
                    "generator.style.1.weight",
                    "generator.conv1.noise.weight",
                    "generator.to_rgbs.0.conv.modulation.weight",
                ),
                # gpen_plugin's
                KeyCondition.has_all(
                    "encoder.stem.weight",
                    "encoder.down.4.weight",
                    "encoder.to_z.weight",
                    "decoder.constant",
                    "decoder.mapping.0.weight",
                    "decoder.blocks.4.conv1.noise_weight",
                    "decoder.blocks.8.to_rgb.modulation.weight",
                ),
            ),
        )

    @override
    def load(self, state_dict: StateDict) -> ImageModelDescriptor[GPEN]:
        if "decoder.constant" in state_dict:
            state_dict = _to_released_layout(state_dict)
        # StyleGAN2's fixed noise, which GPEN does not use
        state_dict = {
            key: tensor
            for key, tensor in state_dict.items()
            if not key.startswith("generator.noises.")
        }

        style_dim, _ = state_dict["final_linear.0.weight"].shape
        num_mlp = get_seq_len(state_dict, "generator.style") - 1
        num_ups = get_seq_len(state_dict, "generator.to_rgbs")
        num_downs = sum(
            re.match(r"ecd[1-9]\d*\.0\.1\.weight", key) is not None
            for key in state_dict
        )

        channels = [state_dict["generator.input.input"].shape[1]]
        for i in range(num_ups):
            channels.append(state_dict[f"generator.convs.{2 * i}.conv.weight"].shape[1])

        width = state_dict["generator.conv1.activate.bias"].shape[0]
        noise_mode = "concat" if width == 2 * channels[0] else "add"

        model = GPEN(
            channels=channels,
            num_downs=num_downs,
            style_dim=style_dim,
            num_mlp=num_mlp,
            noise_mode=noise_mode,
        )

        # gpen_plugin's files have no FIR filters
        filters = {
            key: tensor
            for key, tensor in model.state_dict().items()
            if key.endswith(".kernel") and key not in state_dict
        }

        scale = model.out_size // model.in_size

        def call(model: GPEN, image: Tensor) -> Tensor:
            _, _, h, w = image.shape
            x = image * 2 - 1
            if (h, w) != (model.in_size, model.in_size):
                x = _resize(x, (model.in_size, model.in_size), antialias=False)
            output = (model(x) + 1) / 2
            if output.shape[2:] != (h * scale, w * scale):
                output = _resize(output, (h * scale, w * scale), antialias=True)
            return output

        return ImageModelDescriptor(
            model,
            {**filters, **state_dict},
            architecture=self,
            purpose="FaceSR",
            tags=[f"{model.out_size}px"],
            supports_half=False,  # tried for a small model only; the large ones may overflow
            supports_bfloat16=True,
            scale=scale,
            input_channels=3,
            output_channels=3,
            size_requirements=SizeRequirements(square=True),
            tiling=ModelTiling.DISCOURAGED,  # an image is one face
            call_fn=call,
        )


def _resize(image: Tensor, size: tuple[int, int], antialias: bool) -> Tensor:
    resized = torch.nn.functional.interpolate(
        image.to(torch.float32), size, mode="bilinear", antialias=antialias
    )
    return resized.to(image.dtype)


__all__ = ["GPEN", "GPENArch"]
