"""Several results from one degraded face: the network's latent codes of some layers drawn towards others.

The paper leaves this to the future (section 5). The encoder's features, which are the noise inputs here, keep saying
where everything is; the codes say in what style it is drawn.
"""

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from gpen_plugin.archs.gan_prior_arch import GPENPrior
from gpen_plugin.archs.gpen_arch import GPEN
from gpen_plugin.data.rng import rng_from_key
from gpen_plugin.errors import OptionError, ShapeError
from gpen_plugin.images.color import to_float
from gpen_plugin.restore.network import FaceNetwork, TorchNetwork
from gpen_plugin.restore.prior_sampler import MEAN_OF, SHARED_SEED

CALLED = {"coarse": "0-2", "middle": "3-6", "fine": "7-"}


@dataclass(frozen=True)
class Layers:
    """A range of latent codes. Code 0 is of the block of 4 px; each further block has two: 1 and 2 are of 8 px, 3 and 4
    of 16 px, 7 and 8 of 64 px. The last one besides is of the image's colours alone.

    Args:
        first: the coarsest.
        last: the finest; ``None`` is the network's last.
    Raises:
        OptionError: there are none.
    """

    first: int
    last: int | None = None

    def __post_init__(self):
        if self.first < 0 or (self.last is not None and self.last < self.first):
            raise OptionError("layers", f"got {self}", "the smaller number first, from 0", "Write e.g. 7-9.")

    def of(self, num_latent: int) -> slice:
        """Their places among a network's codes; `OptionError` if it does not have them."""
        last = num_latent - 1 if self.last is None else self.last
        if max(self.first, last) >= num_latent:
            got = f"got {self}, and the network has {num_latent} latent codes"
            raise OptionError("layers", got, f"numbers up to {num_latent - 1}", f"Write e.g. 0-{num_latent - 1}.")
        return slice(self.first, last + 1)

    def __str__(self) -> str:
        if self.first == self.last:
            return f"{self.first}"
        return f"{self.first}-{'' if self.last is None else self.last}"


def parse_layers(text: str) -> Layers:
    """The layers that a user means.

    Args:
        text: ``4-9``, ``4``, ``4-`` (to the last one), or ``coarse``, ``middle`` or ``fine``: the blocks up to 8 px, up
            to 32 px, and from 64 px.
    Raises:
        OptionError: anything else.
    """
    match = re.fullmatch(r"(\d{1,3})(-)?(\d{1,3})?", CALLED.get(text.strip(), text.strip()))
    if match is None or (match[3] and not match[2]):
        expected = f"{', '.join(CALLED)}, or numbers of latent codes, such as 4-9"
        raise OptionError("layers", f"got {text!r}", expected, "Write e.g. fine.")
    first, dash, last = match.groups()
    return Layers(int(first), int(last) if last else None if dash else int(first))


@dataclass(frozen=True, eq=False)
class Variation:
    """How variants of a face differ from its restoration.

    A drawn variant adds to the face's codes what a draw of the prior differs from the prior's mean in. It does not go
    to the draw itself: under an encoder codes live elsewhere than those of the prior, and on the way from there to here
    all draws change a face in the same, ugly way.

    Args:
        layers: whose latent codes change.
        strength: how far, from 0, not at all, to 1: as far as draws of the prior are from its mean; or, with a
            reference, all the way to its codes.
        seed: of the draws.
        reference: a face whose codes are taken instead, aligned as the network wants its faces, (H, W, 3) BGR, uint8,
            uint16 or float32 in [0, 1].
    Raises:
        OptionError: a number is out of range.
        ShapeError: `reference` is no colour image.
    """

    layers: Layers = field(default_factory=lambda: parse_layers("fine"))
    strength: float = 0.5
    seed: int = 0
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
    """A `Variation` of what a command line gives; None stands for its defaults."""
    given = {"layers": None if layers is None else parse_layers(layers), "strength": strength}
    return Variation(
        seed=seed, reference=reference, **{key: value for key, value in given.items() if value is not None}
    )


class VariedNetwork(FaceNetwork):
    """One variant that a network gives, as a network.

    All faces of a call go towards the same codes, and a variant is a function of weights, variation and index alone, on
    any device and in any batch.

    Args:
        network: the network.
        variation: how it varies.
        index: which variant: 0 is the network's own restoration, bit for bit, and each further number another draw. A
            reference gives the variant 1 alone.
    Raises:
        OptionError: the network is no `TorchNetwork`, or has not got these layers; or there is no such variant.
    """

    def __init__(self, network: TorchNetwork, variation: Variation, index: int):
        if not isinstance(network, TorchNetwork):
            got = "an ONNX file gives one result alone"
            raise OptionError("variants", got, "a weight file", "Name the one that it was made of.")
        if index < 0:
            raise OptionError("variants", f"got number {index}", "a whole number from 0")
        if variation.reference is not None and index > 1:
            got, hint = f"got number {index}, and a reference gives one", "Take a reference for each variant."
            raise OptionError("variants", got, "0 or 1", hint)
        self.in_size, self.out_size = network.in_size, network.out_size
        self.template, self.alpha, self.task = network.template, network.alpha, network.task
        self.description = f"{network.description}; variant {index}: {variation}" if index else network.description
        self._network = network
        if index:
            self._network = copy.copy(network)
            self._network.net = _restyled(network, variation, index)

    def __call__(self, faces: Sequence[np.ndarray]) -> list[np.ndarray]:
        """See `FaceNetwork`."""
        return self._network(faces)


class _Restyled(nn.Module):
    """A GPEN whose latent codes of some layers are scaled and moved.

    Args:
        net: the network.
        places: of the codes.
        kept: what they are multiplied by.
        added: what is added then, (1, F).
    """

    def __init__(self, net: GPEN, places: slice, kept: float, added: torch.Tensor):
        super().__init__()
        self.net, self._places, self._kept = net, places, kept
        self.register_buffer("_added", added)
        self.eval()

    def forward(self, lq: torch.Tensor) -> torch.Tensor:
        """(N, 3, in_size, in_size) -> (N, 3, out_size, out_size)."""
        return self.net(lq, restyle=self._restyle)

    def _restyle(self, latents: torch.Tensor) -> torch.Tensor:
        changed = latents.clone()  # (N, num_latent, F)
        changed[:, self._places] = latents[:, self._places] * self._kept + self._added.to(latents.dtype)
        return changed


@torch.inference_mode()
def _restyled(network: TorchNetwork, variation: Variation, index: int) -> _Restyled:
    net, strength = network.net, variation.strength
    places = variation.layers.of(net.decoder.num_latent)
    if variation.reference is None:
        return _Restyled(net, places, 1, strength * _draw(net.decoder, variation.seed, index))
    code = net(network.to_tensor([to_float(variation.reference)]), return_latents=True).latents[:, 0]  # (1, F)
    return _Restyled(net, places, 1 - strength, strength * code)


def _draw(prior: GPENPrior, seed: int, index: int) -> torch.Tensor:
    """What a draw of the prior differs from its mean in, (1, F)."""
    number = int(rng_from_key(seed, index).integers(2**63))
    generator = torch.Generator().manual_seed(number)  # on the CPU, where a seed means the same on every machine
    z = torch.randn(1, prior.num_style_feat, generator=generator).to(prior.constant)
    return prior.mapping(z) - prior.mean_latent(MEAN_OF, torch.Generator().manual_seed(SHARED_SEED))


def _check_reference(image: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ShapeError("reference", f"got {image.shape}", "(H, W, 3) in BGR order")
    if image.dtype not in (np.uint8, np.uint16, np.float32):
        raise ShapeError("reference", f"got {image.dtype}", "uint8, uint16 or float32")
