"""Augmentation for a prior that learns from few pictures: the discriminator sees each only changed.

Adaptive (Karras et al. 2020, StyleGAN2-ADA): as much as keeps the discriminator from knowing its training set by heart.
Fixed, with p = 1 and color, translate and cutout: differentiable augmentation (Zhao et al. 2020).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from gpen_plugin.errors import OptionError
from gpen_plugin.models.augment_transforms import TRANSFORMS, Chances, TransformName


@dataclass(frozen=True)
class AugmentOptions:
    """``train:augment_opt``.

    Attributes:
        transforms: what may be done to a picture, in this order; the default is what the ADA paper recommends.
        p: probability of each transform, for each picture; where `target` is given, only the first value. Near 1 the
            generator learns the changes of all transforms but translate, color and cutout.
        target: of r_t, the mean sign of the discriminator's logits of real pictures, which p follows; ~ leaves p as
            it is. The ADA paper's is 0.6.
        ramp_images: real pictures in which p may go from 0 to 1. The ADA paper's is 500,000.
        every: iterations between two adjustments. The ADA paper's is 4.
    """

    transforms: Sequence[TransformName] = ("flip", "rotate90", "translate", "geometry", "color", "hue")
    p: float = 0.0
    target: float | None = 0.6
    ramp_images: int = 500_000
    every: int = 4

    def __post_init__(self):
        if not self.transforms or len(set(self.transforms)) < len(self.transforms):
            expected = "one transform or several, each once"
            raise OptionError("transforms", f"got {list(self.transforms)}", expected, f"There are {_known()}.")
        for name in self.transforms:
            if name not in TRANSFORMS:
                raise OptionError("transforms", f"got {name!r}", f"some of {_known()}")
        if not 0 <= self.p <= 1:
            raise OptionError("p", f"got {self.p}", "a probability from 0 to 1", "Start at 0 where target is given.")
        if self.target is not None and not -1 < self.target < 1:
            way_out = "The ADA paper's is 0.6; ~ fixes p."
            raise OptionError("target", f"got {self.target}", "a mean sign, above -1 and below 1", way_out)
        for name, usual in (("ramp_images", "500,000 images"), ("every", "4 iterations")):
            if getattr(self, name) < 1:
                came = f"got {getattr(self, name)}"
                raise OptionError(name, came, "a whole number from 1", f"The ADA paper's is {usual}.")


class Augmentation:
    """Changes pictures at random before the discriminator sees them.

    Gradients pass through it once, not twice: R1 is to be taken at the changed pictures.

    Args:
        options: see `AugmentOptions`.

    Attributes:
        p: the present probability of each transform.
        every: iterations between two calls of `update`.
    """

    def __init__(self, options: AugmentOptions):
        self.p, self.every = float(options.p), options.every
        self._target, self._ramp_images = options.target, options.ramp_images
        self._transforms = [TRANSFORMS[name] for name in options.transforms]

    @property
    def adaptive(self) -> bool:
        """Whether p follows the discriminator."""
        return self._target is not None

    def __call__(self, pictures: torch.Tensor, streams: Sequence[torch.Generator]) -> torch.Tensor:
        """Change pictures.

        Args:
            pictures: (N, 3, S, S), float32, in [-1, 1].
            streams: N generators on any device: all that is drawn for a picture comes from its own one, so that its
                change does not depend on the batch.
        Returns:
            (N, 3, S, S), about [-1, 1]; `pictures` itself where p is 0, and then nothing is drawn.
        """
        assert len(streams) == len(pictures)
        assert pictures.shape[2] == pictures.shape[3]
        if self.p == 0:
            return pictures
        chances = Chances(streams, pictures.device)
        for transform in self._transforms:
            pictures = transform(pictures, chances, self.p)
        return pictures

    def update(self, sign_mean: float, images: int) -> None:
        """Adjust an adaptive p: more where the discriminator is surer of real pictures than the target, else less.

        Args:
            sign_mean: r_t, the mean sign of its logits of the real pictures seen since the last adjustment.
            images: how many these were, on all ranks together.
        """
        assert self.adaptive
        direction = (sign_mean > self._target) - (sign_mean < self._target)
        self.p = min(max(self.p + direction * images / self._ramp_images, 0.0), 1.0)

    def state_dict(self) -> dict[str, float]:
        """What a resumed training needs."""
        return {"p": self.p}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on from a state; a fixed p is the option file's, also where that was changed in between."""
        if self.adaptive:
            self.p = float(state["p"])


def _known() -> str:
    return ", ".join(TRANSFORMS)
