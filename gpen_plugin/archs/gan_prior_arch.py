"""GAN priors: the interface that GPEN asks, and StyleGAN2's generator (section 3.2)."""

import inspect
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import nn

from gpen_plugin.archs.key_maps import accept_authors_layout
from gpen_plugin.archs.layers import (
    EqualLinear,
    NoiseMode,
    StyledConv,
    ToRGB,
    channels_of,
    check_noise_mode,
    check_positive,
    check_size,
    check_taps,
    normalize_2nd_moment,
    resolutions,
    run_layer,
)
from gpen_plugin.archs.pretrained import Pretrained
from gpen_plugin.config import schema
from gpen_plugin.errors import OptionError, join_errors
from gpen_plugin.host import register, resolve
from gpen_plugin.ops.dispatch import check_shape


class MappingNetwork(nn.Sequential):
    """z (N, F) -> w (N, F): normalization, then fully connected layers (Figure 3a)."""

    def __init__(
        self,
        num_style_feat: int,  # F
        num_mlp: int,  # number of layers
        lr_mlp: float,  # factor of their learning rate
    ):
        super().__init__(
            *[EqualLinear(num_style_feat, num_style_feat, lr_mul=lr_mlp, activate=True) for _ in range(num_mlp)]
        )

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return super().forward(normalize_2nd_moment(z))


class GANBlock(nn.Module):
    """The convolutions of one resolution and its image (Figure 3b)."""

    def __init__(
        self,
        in_channels: int | None,  # of the block before; None for the first block, which starts from the constant
        out_channels: int,  # C, before noise is concatenated
        num_style_feat: int,  # F
        noise_mode: NoiseMode,
        resample_kernel: Sequence[float],  # taps of the upsampling filter
    ):
        super().__init__()
        width = out_channels
        self.conv0 = None
        if in_channels is not None:
            self.conv0 = StyledConv(in_channels, out_channels, num_style_feat, noise_mode, resample_kernel)
            width = self.conv0.out_channels
        self.conv1 = StyledConv(width, out_channels, num_style_feat, noise_mode)
        self.to_rgb = ToRGB(self.conv1.out_channels, num_style_feat, None if in_channels is None else resample_kernel)
        self.noise_channels = self.sampled_channels = out_channels
        self.out_channels = self.conv1.out_channels

    @property
    def convs(self) -> list[StyledConv]:
        """The styled convolutions. Each takes one latent code; `to_rgb` takes one more, the next block's first."""
        return [self.conv1] if self.conv0 is None else [self.conv0, self.conv1]

    @property
    def num_latent(self) -> int:
        """The number of codes before those of the next block."""
        return len(self.convs)

    def forward(
        self,
        x: torch.Tensor,  # features of the block before, (N, C', H / 2, W / 2), or the constant, (N, C, 4, 4)
        latents: torch.Tensor,  # (N, len(convs) + 1, F), one per convolution and one for the image
        noise: torch.Tensor | None,  # (N or 1, C, H, W), for all convolutions; None is zeros
        earlier: torch.Tensor | None,  # image of the block before, (N, 3, H / 2, W / 2)
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the features (N, out_channels, H, W) and the image (N, 3, H, W)."""
        for index, conv in enumerate(self.convs):
            x = conv(x, latents[:, index], noise)
        return x, self.to_rgb(x, latents[:, len(self.convs)], earlier)


class GANPrior(Pretrained, nn.Module):
    """A GAN prior: latent codes and one map per resolution in, image out. Raises OptionError.

    `GPEN` calls `to_latents` and `synthesize`, whose maps are the encoder's features. Training and inversion also
    sample noise for the maps, mix codes, and run some of the blocks. A subclass defines

    - `blocks`: modules by resolution, "4" to `out_size`. Each has `noise_channels` (C of its map), `sampled_channels`
      (of sampled noise: C, or 1 for all channels), `out_channels`, `num_latent` (codes before those of the next block)
      and ``forward(x, latents, noise, earlier)``, which returns features and image; `latents` are its codes and the
      next one, `earlier` is the image of the block before;
    - `first_features`: what the first block takes;
    - `mapping`: z (N, F) -> w (N, F).
    """

    blocks: nn.ModuleDict
    mapping: nn.Module
    has_mean_latent: ClassVar[bool] = True  # whether codes have a mean that is a face, for truncation
    checkpointing = False  # whether training computes the features inside each block again in the backward pass

    def __init__(
        self,
        out_size: int,  # height and width of the image, a power of two from 16 to 2048
        num_style_feat: int,  # F, length of z and w
        noise_mode: NoiseMode,  # how the maps enter: `concat`, `add` or `none`
    ):
        super().__init__()
        check_size("out_size", out_size)
        check_positive("num_style_feat", num_style_feat)
        check_noise_mode(noise_mode)
        self.out_size, self.num_style_feat, self.noise_mode = out_size, num_style_feat, noise_mode

    def first_features(self, latents: torch.Tensor) -> torch.Tensor:
        """Codes (N, num_latent, F) -> features (N, C, 4, 4)."""
        raise NotImplementedError

    @property
    def num_latent(self) -> int:
        """The number of latent codes that the blocks take together."""
        return sum(block.num_latent for block in self.blocks.values()) + 1

    def make_noise(
        self,
        batch: int,  # N
        generator: torch.Generator | None = None,  # on any device; None takes this device's default one
    ) -> list[torch.Tensor | None]:
        """Sample N(0, 1): one map (N, C, r, r) per resolution, coarse to fine; ``None`` in `noise_mode` ``none``."""
        if self.noise_mode == "none":
            return [None] * len(self.blocks)
        return [
            self._sample((batch, block.sampled_channels, int(resolution), int(resolution)), generator)
            for resolution, block in self.blocks.items()
        ]

    @torch.no_grad()
    def mean_latent(self, n: int, generator: torch.Generator | None = None) -> torch.Tensor:
        """The mean w of `n` random z, (1, F): the center of truncation."""
        return self.mapping(self._sample((n, self.num_style_feat), generator)).mean(dim=0, keepdim=True)

    def forward(
        self,
        styles: torch.Tensor | Sequence[torch.Tensor],
        noise: Sequence[torch.Tensor | None] | None = None,  # None samples fresh noise
        *,
        input_is_latent: bool = False,
        truncation: float = 1.0,
        truncation_latent: torch.Tensor | None = None,
        inject_index: int | torch.Tensor | None = None,
        return_latents: bool = False,  # return a pair of the image and the latent codes, (N, num_latent, F)
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Generate images (N, 3, `out_size`, `out_size`), about [-1, 1], with `to_latents` and `synthesize`."""
        latents = self.to_latents(
            styles,
            input_is_latent=input_is_latent,
            truncation=truncation,
            truncation_latent=truncation_latent,
            inject_index=inject_index,
        )
        image = self.synthesize(latents, self.make_noise(latents.shape[0]) if noise is None else noise)[-1]
        return (image, latents) if return_latents else image

    def to_latents(
        self,
        # z, (N, F); or a list of two, mixed at `inject_index`; or, with `input_is_latent`, (N, num_latent, F)
        styles: torch.Tensor | Sequence[torch.Tensor],
        *,
        input_is_latent: bool = False,  # whether `styles` is w already
        truncation: float = 1.0,  # 1 leaves w as it is, 0 gives `truncation_latent`
        truncation_latent: torch.Tensor | None = None,  # (1, F), from `mean_latent`; required unless `truncation` is 1
        # first code of the second style: 1 to num_latent - 1 for all, or one number per sample, (N,), up to num_latent,
        # which leaves a sample unmixed; None samples one for all
        inject_index: int | torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Map z to w and repeat it for each layer: (N, num_latent, F).

        ShapeError, or OptionError: more than two styles, truncation without its center, `inject_index` out of range.
        """
        if truncation != 1.0 and not self.has_mean_latent:
            raise OptionError("truncation", f"got {truncation}", f"1: {type(self).__name__} has no mean latent code")
        styles = [styles] if isinstance(styles, torch.Tensor) else list(styles)
        if not 1 <= len(styles) <= 2:
            raise OptionError("styles", f"got {len(styles)} codes", "one, or two to be mixed")
        codes = styles if input_is_latent else [self._map(z) for z in styles]
        if truncation != 1.0:
            if truncation_latent is None:
                hint = "Pass the prior's mean_latent(4096)."
                raise OptionError(
                    "truncation_latent", "got nothing", f"a latent code for truncation {truncation}", hint
                )
            codes = [torch.lerp(truncation_latent.expand_as(w), w, truncation) for w in codes]
        codes = [self._broadcast(w) for w in codes]
        return codes[0] if len(codes) == 1 else self._mix(codes[0], codes[1], inject_index)

    def synthesize(
        self,
        latents: torch.Tensor,  # (N, num_latent, F)
        # one map (N or 1, C, r, r) per resolution r from 4 to `out_size`; None is zeros
        noise: Sequence[torch.Tensor | None],
    ) -> list[torch.Tensor]:
        """Images (N, 3, r, r), coarse to fine; the last is the result, about [-1, 1]. ShapeError, OptionError.

        A prior whose image is no sum over resolutions gives only the last.
        """
        check_shape("latents", latents, {"N": None, "codes": self.num_latent, "F": self.num_style_feat})
        self._check_noise(noise, latents.shape[0])
        images = self.run_blocks(0, None, self.first_features(latents), None, latents, noise)[1]
        return [image for image in images if image is not None]

    def run_blocks(
        self,
        first: int,  # index of the first block
        end: int | None,  # index after the last; None runs all that follow
        x: torch.Tensor,  # features that the first one takes, (N, C, r, r)
        image: torch.Tensor | None,  # of the block before it, (N, 3, r, r)
        latents: torch.Tensor,  # all codes, (N, num_latent, F)
        noise: Sequence[torch.Tensor | None],  # one map per block of the prior
    ) -> tuple[torch.Tensor, list[torch.Tensor | None]]:
        """Run some of the blocks. Returns the features and the image of each block that has one."""
        blocks, images = list(self.blocks.values()), []
        start = sum(block.num_latent for block in blocks[:first])
        for block, shared in zip(blocks[first:end], noise[first:end], strict=True):
            codes = latents[:, start : start + block.num_latent + 1]
            x, image = run_layer(block, x, codes, shared, image, checkpointing=self.checkpointing)
            images.append(image)
            start += block.num_latent
        return x, images

    def features_to_sum(
        self,
        end: int,  # number of blocks to run
        latents: torch.Tensor,  # (N, num_latent, F)
        noise: Sequence[torch.Tensor | None],  # one map per block of the prior
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Features (N, C, r, r) of the first blocks, and their image, that can be summed over codes (mGANprior)."""
        x, images = self.run_blocks(0, end, self.first_features(latents), None, latents, noise)
        return x, images[-1]

    def finish_sum(self, end: int, x: torch.Tensor, noise: Sequence[torch.Tensor | None]) -> torch.Tensor:
        """A sum of `features_to_sum` in the form that the next block takes."""
        return x

    def channels_to_sum(self, resolution: int) -> int:
        """C of `features_to_sum` where the last block is that of `resolution`."""
        return self.blocks[str(resolution)].out_channels

    def _sample(self, shape, generator):
        like = next(self.parameters())
        source = like.device if generator is None else generator.device
        return torch.randn(shape, generator=generator, device=source).to(like.device, like.dtype)

    def _map(self, z):
        check_shape("styles", z, {"N": None, "F": self.num_style_feat})
        return self.mapping(z)

    def _broadcast(self, w):
        return w if w.ndim == 3 else w.unsqueeze(1).expand(-1, self.num_latent, -1)  # (N, num_latent, F)

    def _mix(self, first, second, inject_index):
        if isinstance(inject_index, torch.Tensor):
            check_shape("inject_index", inject_index, {"N": len(first)})
            index = torch.arange(self.num_latent, device=first.device)
            return torch.where((index < inject_index[:, None])[:, :, None], first, second)  # (N, num_latent, F)
        if self.num_latent == 1:
            raise OptionError("styles", "got 2 codes", f"one: {type(self).__name__} has a single latent code")
        if inject_index is None:
            inject_index = int(torch.randint(1, self.num_latent, ()))
        if not 1 <= inject_index < self.num_latent:
            raise OptionError("inject_index", f"got {inject_index}", f"a whole number from 1 to {self.num_latent - 1}")
        return torch.cat([first[:, :inject_index], second[:, inject_index:]], dim=1)  # (N, num_latent, F)

    def _check_noise(self, noise, batch):
        if len(noise) != len(self.blocks):
            last = f"one map per resolution 4 to {self.out_size}, {len(self.blocks)} in all"
            raise OptionError("noise", f"got {len(noise)} maps", last)
        for (resolution, block), shared in zip(self.blocks.items(), noise, strict=True):
            if shared is None:
                continue
            if self.noise_mode == "none":
                raise OptionError("noise", f"got a map of {resolution} px", "None, for noise_mode is 'none'")
            size, samples = int(resolution), 1 if shared.shape[0] == 1 else batch
            channels = 1 if shared.shape[1:2] == (block.sampled_channels,) == (1,) else block.noise_channels
            check_shape(f"noise of {size} px", shared, {"N": samples, "C": channels, "H": size, "W": size})


@register("arch")
class GPENPrior(GANPrior):
    """The decoder of GPEN with its mapping network: StyleGAN2. Also registered as `StyleGAN2Prior`.

    As in StyleGAN2, the noise weights start at zero: a fresh prior, also under a fresh encoder, generates from its
    latent code only. Noise is one map per resolution, which the convolutions there share (section 3.2).
    """

    def __init__(
        self,
        out_size: int,  # height and width of the image, a power of two from 16 to 2048
        num_style_feat: int = 512,  # F, length of z and w
        num_mlp: int = 8,  # layers of the mapping network
        # factor of the channels above 32 px; 2 for the paper's and the released 512 model
        channel_multiplier: float = 2,
        narrow: float = 1,  # factor of all channels
        lr_mlp: float = 0.01,  # factor of the mapping network's learning rate
        resample_kernel: Sequence[float] = (1, 3, 3, 1),  # taps of the upsampling filter
        noise_mode: NoiseMode = "concat",  # `concat` (the paper's), `add` (GPEN-noise-add) or `none` (GPEN-w/o-noise)
    ):
        super().__init__(out_size, num_style_feat, noise_mode)
        check_positive("num_mlp", num_mlp)
        check_taps(resample_kernel)
        self.mapping = MappingNetwork(num_style_feat, num_mlp, lr_mlp)
        self.constant = nn.Parameter(torch.randn(1, channels_of(4, channel_multiplier, narrow), 4, 4))
        self.blocks = nn.ModuleDict()
        width = None
        for resolution in resolutions(out_size):
            channels = channels_of(resolution, channel_multiplier, narrow)
            block = GANBlock(width, channels, num_style_feat, noise_mode, resample_kernel)
            self.blocks[str(resolution)], width = block, block.out_channels
        self.register_load_state_dict_pre_hook(accept_authors_layout)

    def first_features(self, latents: torch.Tensor) -> torch.Tensor:
        """The learned constant, (N, C, 4, 4)."""
        return self.constant.expand(latents.shape[0], -1, -1, -1)


StyleGAN2Prior = register("arch", name="StyleGAN2Prior")(GPENPrior)


def build_prior(
    options: Mapping | None,  # `type`, and arguments that only its class has; None is a `GPENPrior`
    shared: Mapping,  # arguments of `GPEN` that its prior takes too, where its class has them
) -> GANPrior:
    """The prior of a `GPEN`. OptionError: it is not registered, or does not take these arguments."""
    own = {} if options is None else dict(options)
    # nothing to look up: importing BasicSR takes longer than restoring a photograph
    cls = GPENPrior if options is None else resolve("arch", own.pop("type", None))
    if not (inspect.isclass(cls) and issubclass(cls, GANPrior)):
        got = f"got {(options or {}).get('type')!r}"
        raise OptionError("prior:type", got, "the name of a GAN prior", "Write e.g. {type: PGGANPrior}.")
    parameters = inspect.signature(cls).parameters
    for key in own.keys() & shared.keys():
        raise OptionError(f"prior:{key}", "given in prior", "a key of GPEN itself", "Write it beside prior, not in it.")
    defaults = inspect.signature(GPENPrior).parameters
    for key, value in shared.items():
        if key not in parameters and key != "resample_kernel" and value != defaults[key].default:
            raise OptionError(key, f"got {value}", f"no such key: {cls.__name__} has no use for it", "Leave it out.")
    arguments = {key: value for key, value in shared.items() if key in parameters} | own
    # what is shared was checked with GPEN's own keys, or is by the class
    problems = [error for error in schema.validate(cls, arguments, "prior") if error.where.split(":")[1] not in shared]
    if problems:
        raise join_errors(problems)
    return cls(**arguments)
