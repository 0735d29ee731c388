"""Several results for one face: latent codes of some layers are moved towards others.

The paper leaves this to future work (section 5). The encoder's features, which are the noise inputs, determine the
structure; the codes determine the style.
"""

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from gpen_plugin.archs.gan_prior_arch import GANPrior
from gpen_plugin.archs.gpen_arch import GPEN
from gpen_plugin.data.rng import rng_from_key
from gpen_plugin.errors import OptionError, ShapeError
from gpen_plugin.images.color import to_float
from gpen_plugin.restore.network import TorchNetwork
from gpen_plugin.restore.prior_sampler import MEAN_SAMPLES, SHARED_SEED

LAYER_NAMES = {"coarse": "0-2", "middle": "3-6", "fine": "7-"}


@dataclass(frozen=True)
class Layers:
    """A range of latent codes. Code 0 belongs to the block of 4 px; each further block has two: 1 and 2 belong to 8 px,
    3 and 4 to 16 px, 7 and 8 to 64 px. The last one also determines the colors of the image.

    Raises: OptionError: the range is empty.
    """

    first: int  # the coarsest
    last: int | None = None  # the finest; ``None`` is the network's last

    def __post_init__(self):
        if self.first < 0 or (self.last is not None and self.last < self.first):
            raise OptionError("layers", f"got {self}", "the smaller number first, from 0", "Write e.g. 7-9.")

    def of(self, num_latent: int) -> slice:
        """Their slice of the network's codes; OptionError if it has fewer."""
        last = num_latent - 1 if self.last is None else self.last
        if max(self.first, last) >= num_latent:
            got = f"got {self}, but the network has {num_latent} latent codes"
            raise OptionError("layers", got, f"numbers up to {num_latent - 1}", f"Write e.g. 0-{num_latent - 1}.")
        return slice(self.first, last + 1)

    def __str__(self) -> str:
        if self.first == self.last:
            return f"{self.first}"
        return f"{self.first}-{'' if self.last is None else self.last}"


def parse_layers(text: str) -> Layers:
    """Layers from ``4-9``, ``4``, ``4-`` (to the last), or ``coarse`` (to 8 px), ``middle`` (32), ``fine`` (from 64).

    Raises: OptionError: anything else.
    """
    match = re.fullmatch(r"(\d{1,3})(-)?(\d{1,3})?", LAYER_NAMES.get(text.strip(), text.strip()))
    if match is None or (match[3] and not match[2]):
        expected = f"{', '.join(LAYER_NAMES)}, or numbers of latent codes, such as 4-9"
        raise OptionError("layers", f"got {text!r}", expected, "Write e.g. fine.")
    first, dash, last = match.groups()
    return Layers(int(first), int(last) if last else None if dash else int(first))


@dataclass(frozen=True, eq=False)
class Variation:
    """How variants differ from the restoration.

    A random variant adds to the codes the difference of a sample of the prior and the prior's mean. It does not move
    towards the sample itself: the codes of a trained encoder lie elsewhere than the prior's, and every sample would
    change a face in the same way.

    Raises:
        OptionError: a number is out of range.
        ShapeError: `reference` is not a color image.
    """

    layers: Layers = field(default_factory=lambda: parse_layers("fine"))  # whose latent codes change
    strength: float = 0.5  # 0 to 1: fraction of the difference, or with a reference of the distance to its codes
    seed: int = 0  # of the samples
    # a face that gives the codes instead, aligned as for the network, (H, W, 3) BGR, uint8, uint16 or float32 in [0,
    # 1]
    reference: np.ndarray | None = None

    def __post_init__(self):
        if not 0 <= self.strength <= 1:  # NaN is neither
            raise OptionError("strength", f"got {self.strength}", "a number from 0 to 1")
        if not 0 <= self.seed < 2**63:
            raise OptionError("seed", f"got {self.seed}", "a whole number from 0")
        if self.reference is not None:
            _check_reference(self.reference)

    def __str__(self) -> str:
        source = f"seed {self.seed}" if self.reference is None else "a reference"
        return f"latents {self.layers} by {self.strength:g}, {source}"


def variation_of(
    layers: str | None = None, strength: float | None = None, seed: int = 0, reference: np.ndarray | None = None
) -> Variation:
    """A `Variation` from command line values; None stands for the default."""
    given = {"layers": None if layers is None else parse_layers(layers), "strength": strength}
    return Variation(
        seed=seed, reference=reference, **{key: value for key, value in given.items() if value is not None}
    )


class VariedNetwork:
    """One variant of a network, as a `FaceNetwork`.

    A variant depends on weights, variation and index only, on any device and in any batch; all faces get the same
    offset.

    Raises: OptionError: the network is not a `TorchNetwork`, or lacks these layers; or there is no such variant.
    """

    def __init__(
        self,
        network: TorchNetwork,  # the network
        variation: Variation,  # how it varies
        # 0 is the network's own restoration, bit for bit, further numbers are further samples. A reference has variant
        # 1 only
        index: int,
    ):
        if not isinstance(network, TorchNetwork):
            got = "got a network in onnxruntime, which gives one result only"
            hint = "Name the weights of an ONNX file, and choose the runtime torch."
            raise OptionError("variants", got, "a weight file in PyTorch", hint)
        if index < 0:
            raise OptionError("variants", f"got number {index}", "a whole number from 0")
        if variation.reference is not None and index > 1:
            got, hint = f"got number {index}, but a reference gives one variant", "Use one reference for each variant."
            raise OptionError("variants", got, "0 or 1", hint)
        self.in_size, self.out_size = network.in_size, network.out_size
        self.template, self.alpha, self.task = network.template, network.alpha, network.task
        self.description = f"{network.description}; variant {index}: {variation}" if index else network.description
        self._network = network
        if index:
            self._network = copy.copy(network)
            self._network.net = _restyle_network(network, variation, index)

    def __call__(self, faces: Sequence[np.ndarray]) -> list[np.ndarray]:
        return self._network(faces)


class _RestyledGPEN(nn.Module):
    """A GPEN whose latent codes at `indices` are multiplied by `scale`, plus `offset`, (1, F)."""

    def __init__(self, net: GPEN, indices: slice, scale: float, offset: torch.Tensor):
        super().__init__()
        self.net, self._indices, self._scale = net, indices, scale
        self.register_buffer("_offset", offset)
        self.eval()

    def forward(self, lq: torch.Tensor) -> torch.Tensor:
        """(N, 3, in_size, in_size) -> (N, 3, out_size, out_size)."""
        return self.net(lq, restyle=self._restyle)

    def _restyle(self, latents: torch.Tensor) -> torch.Tensor:
        changed = latents.clone()  # (N, num_latent, F)
        changed[:, self._indices] = latents[:, self._indices] * self._scale + self._offset.to(latents.dtype)
        return changed


@torch.inference_mode()
def _restyle_network(network: TorchNetwork, variation: Variation, index: int) -> _RestyledGPEN:
    net, strength = network.net, variation.strength
    if net.decoder.num_latent == 1:
        got, expected = (
            f"got a network on {type(net.decoder).__name__}",
            "one on a StyleGAN, with a latent code per layer",
        )
        raise OptionError("variants", got, expected, "Use another model.")
    indices = variation.layers.of(net.decoder.num_latent)
    if variation.reference is None:
        return _RestyledGPEN(net, indices, 1, strength * _sample_offset(net.decoder, variation.seed, index))
    code = net(network.to_tensor([to_float(variation.reference)]), return_latents=True).latents[:, 0]  # (1, F)
    return _RestyledGPEN(net, indices, 1 - strength, strength * code)


def _sample_offset(prior: GANPrior, seed: int, index: int) -> torch.Tensor:
    """Difference of a sample of the prior and its mean, (1, F)."""
    number = int(rng_from_key(seed, index).integers(2**63))
    generator = torch.Generator().manual_seed(number)  # on the CPU, where a seed means the same on every machine
    z = torch.randn(1, prior.num_style_feat, generator=generator).to(next(prior.parameters()))
    return prior.mapping(z) - prior.mean_latent(MEAN_SAMPLES, torch.Generator().manual_seed(SHARED_SEED))


def _check_reference(image: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ShapeError("reference", f"got {image.shape}", "(H, W, 3) in BGR order")
    if image.dtype not in (np.uint8, np.uint16, np.float32):
        raise ShapeError("reference", f"got {image.dtype}", "uint8, uint16 or float32")
