"""A network as a method: how images go in, and which of its results comes out."""

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import nn

from gpen_plugin.data.image_source import resize_square
from gpen_plugin.errors import DataError, OptionError, ShapeError
from gpen_plugin.evaluate.case import Case
from gpen_plugin.evaluate.methods.repeatable import repeatable
from gpen_plugin.evaluate.methods.sizes import Interpolation, resized
from gpen_plugin.restore.network import from_network, prepare_for_inference, to_network


@dataclass(frozen=True, kw_only=True)
class Handling:
    """How images go through a network.

    Args:
        value_range: lowest and highest value that the network takes and gives: [0, 1] or [-1, 1].
        channels: their order in the network.
        input_size: side that the degraded image is brought to; ~ for the size of the ground truth, ``native`` for
            none, where the network itself enlarges.
        resize: how it is brought there.
        output: which of several results is the image: a place in a list, a key, or an attribute; ~ where the network
            gives but the image.
        arguments: what the network's forward is given besides.
        mode: ``train`` for a network that needs its training mode, as BasicSR's HiFaceGAN does. Its state is put back
            after each image.
        seed: of what the network draws, and of random weights.
    """

    value_range: tuple[float, float]
    channels: Literal["rgb", "bgr"] = "rgb"
    input_size: int | Literal["native"] | None = None
    resize: Interpolation = "bilinear"
    output: int | str | None = None
    arguments: Mapping = field(default_factory=dict)
    mode: Literal["eval", "train"] = "eval"
    seed: int = 0

    def check(self, where: str) -> None:
        """Raise `OptionError` for what the types do not tell; `where` is the key path of the entry."""
        low, high = self.value_range
        if not -math.inf < low < high < math.inf:
            raise OptionError(f"{where}:value_range", f"got [{low}, {high}]", "[0, 1] or [-1, 1]")
        if isinstance(self.input_size, int) and self.input_size < 1:
            raise OptionError(f"{where}:input_size", f"got {self.input_size}", "a number above 0, native or ~")

    def __str__(self) -> str:
        if self.input_size is None:
            return f"input at the size of the results, {self.resize}"
        size = "its own size" if self.input_size == "native" else f"{self.input_size} px, {self.resize}"
        return f"input at {size}; its images are resized where the results are of another size"


class NetworkMethod:
    """A network that restores one image at a time.

    Args:
        net: takes (1, 3, H, W) float32.
        handling: how images go through it.
        device: where it computes.
        description: see `gpen_plugin.evaluate.methods.Method`.
        identity: likewise; the handling is added.
    """

    def __init__(self, net: nn.Module, handling: Handling, device: torch.device, description: str, identity: Mapping):
        self.net, self.handling, self.device = prepare_for_inference(net, device), handling, device
        self.net.train(handling.mode == "train")
        self.description = description
        keys = [option.name for option in dataclasses.fields(Handling)]
        self.identity = {**identity, "handling": {key: plain(getattr(handling, key)) for key in keys}}

    @torch.inference_mode()
    def __call__(self, case: Case) -> np.ndarray:
        """Restore a face.

        Raises:
            DataError: the result has values that are no numbers.
            ShapeError: it is no image.
            OptionError: `output` does not lead to an image.
        """
        how, rgb = self.handling, self.handling.channels == "rgb"
        if how.input_size == "native":
            lq = case.lq.astype(np.float32) / 255
        else:
            lq = resized(case.lq, how.input_size or case.size, how.resize)
        batch = to_network(lq, how.value_range, rgb=rgb)[None].to(self.device)  # (1, 3, H, W)
        with repeatable(self.device, how.seed, case.key, case.condition), self._state_kept():
            image = self._image_of(self.net(batch, **how.arguments))
        if not image.isfinite().all():
            raise DataError(case.key, "the network gave values that are no numbers", "finite values")
        return resize_square(from_network(image, how.value_range, rgb=rgb), case.size)

    def _image_of(self, answer: object) -> torch.Tensor:
        """(3, H, W) of whatever the network gave."""
        output = self.handling.output
        tensor = answer if output is None else _part(answer, output)
        if not isinstance(tensor, torch.Tensor):
            got = f"the network gave {_listed(answer)}" + ("" if output is None else f", and output is {output}")
            raise OptionError("output", got, "the place, key or attribute of the image", "Set output to it.")
        if tensor.ndim != 4 or tensor.shape[:2] != (1, 3):
            raise ShapeError("output", f"the network gave {_listed(answer)}", "an image (1, 3, H, W)")
        return tensor[0]

    @contextlib.contextmanager
    def _state_kept(self) -> Iterator[None]:
        """A network in training mode moves its statistics at each pass: the next image must not see that."""
        kept = [(buffer, buffer.clone()) for buffer in self.net.buffers()] if self.net.training else []
        try:
            yield
        finally:
            for buffer, before in kept:
                buffer.copy_(before)


def _part(answer: object, output: int | str) -> object:
    """A place, key or attribute of what a network gave; None if there is no such thing."""
    if isinstance(answer, Mapping):
        return answer.get(output)
    if isinstance(output, str):
        return getattr(answer, output, None)
    inside = isinstance(answer, tuple | list) and -len(answer) <= output < len(answer)
    return answer[output] if inside else None


def _listed(answer: object) -> str:
    """What a network gave, in words."""
    if isinstance(answer, torch.Tensor):
        return f"a tensor {tuple(answer.shape)}"
    if isinstance(answer, Mapping):
        parts = answer.items()
    elif isinstance(answer, tuple | list):
        parts = zip(getattr(answer, "_fields", range(len(answer))), answer, strict=True)
    else:
        return f"a {type(answer).__name__}"
    return f"a {type(answer).__name__} of " + ", ".join(f"{name}: {_brief(part)}" for name, part in parts)


def _brief(part: object) -> str:
    return f"tensor {tuple(part.shape)}" if isinstance(part, torch.Tensor) else type(part).__name__


def plain(value: object) -> object:
    """Options as JSON has them, so that they are equal after a round trip."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, tuple | list) else value
