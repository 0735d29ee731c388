"""Training the GAN prior, as StyleGAN2 (paper, sections 3.3 and 4.2)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import cv2
import numpy as np
import torch
from basicsr.utils import tensor2img

from gpen_plugin.archs.gan_prior_arch import GANPrior
from gpen_plugin.config.train_options import OptimizerOptions, PriorTrainOptions
from gpen_plugin.errors import OptionError
from gpen_plugin.host import register
from gpen_plugin.host.distributed import all_reduce_mean
from gpen_plugin.images.grid import mosaic, sheet
from gpen_plugin.models.adversarial_model import AdversarialModel
from gpen_plugin.models.augment import Augmentation, AugmentOptions
from gpen_plugin.models.gan_steps import Part, discriminator_step, generator_step, path_length_step
from gpen_plugin.models.validation import Images, MetricSums

MEAN_LATENT_SAMPLES = 4096  # for the center of truncation
MAX_TILE = 256  # pixels of a sample in the grid: TensorBoard takes half a minute for a grid of 1024 px samples


@register("model")
class GPENPriorModel(AdversarialModel):
    """Trains a `GANPrior` against `GPENDiscriminator`: non-saturating logistic loss, lazy R1, path length, mixing.

    A validation generates one EMA sample per image of its set, from fixed latent codes, and compares the two sets.
    """

    options_class = PriorTrainOptions
    grid_shows_images = False  # but samples
    restores = False

    def init_training_settings(self) -> None:
        check_prior(self.get_bare_model(self.net_g), self.settings, self.opt.get("val"))
        super().init_training_settings()
        self.mean_path_length = torch.zeros((), device=self.device)
        self.last_path = torch.zeros((), device=self.device)
        options = self.settings.augment_opt
        self.augmentation = Augmentation(AugmentOptions(**options)) if options else None
        self.sign_sum, self.sign_count = torch.zeros((), device=self.device), 0

    def setup_optimizers(self) -> None:
        """Two Adams, with StyleGAN2's correction for lazy regularization (its appendix B)."""
        settings = self.settings
        for name, net, options, weight, every in (
            ("generator", self.net_g, settings.optim_g, settings.path_reg_weight, settings.net_g_reg_every),
            ("discriminator", self.net_d, settings.optim_d, settings.r1_reg_weight, settings.net_d_reg_every),
        ):
            optim = OptimizerOptions(**options)
            scaled = optim.for_lazy(every) if settings.lazy_lr_scaling and weight > 0 else {}
            arguments = {"lr": optim.lr, **optim.arguments} | scaled
            group = {"name": name, "params": list(net.parameters())}
            self.optimizers.append(self.get_optimizer(optim.type, [group], **arguments))
        self.optimizer_g, self.optimizer_d = self.optimizers

    def optimize_parameters(self, current_iter: int) -> None:
        """One iteration: D step, lazy R1, G step, lazy path length, EMA."""
        batch = len(self.gt)
        common = {"gan": self.loss_gan, "guard": self.guard, "autocast": self.autocast}
        losses = discriminator_step(self.net_d, self.optimizer_d, self._parts_for_d(current_iter), **common)
        # R1 with respect to the images as D sees them. StyleGAN2-ADA takes it with respect to those before the
        # augmentation, which would have to be differentiated twice.
        real_parts = (
            Part(self._augment("augmentation of D", current_iter, indices)(self.gt), fraction=fraction)
            for indices, fraction in self.micro_batches()
        )
        losses |= self.lazy_r1(current_iter, self.optimizer_d, real_parts)
        losses |= generator_step(self.net_d, self.optimizer_g, self._parts_for_g(current_iter), **common)
        losses |= self._lazy_path_length(current_iter, batch)
        losses = self._adapt(current_iter, batch, losses)
        self.end_of_iteration(losses, current_iter)

    def _parts_for_d(self, current_iter: int) -> Iterator[Part]:
        for indices, fraction in self.micro_batches():
            with torch.no_grad(), self.autocast():
                fake = self._generate("discriminator", current_iter, indices)
            augment = self._augment("augmentation of D", current_iter, indices)
            yield Part(augment(self.gt), augment(fake), fraction)

    def _parts_for_g(self, current_iter: int) -> Iterator[Part]:
        for indices, fraction in self.micro_batches():
            with self.autocast():
                fake = self._generate("generator", current_iter, indices)
                fake = self._augment("augmentation of G", current_iter, indices)(fake)
            yield Part(self.gt, fake, fraction)

    def _generate(self, purpose: str, iteration: int, indices: range, return_latents: bool = False):
        """Images of the training generator, with style mixing and new noise."""
        prior, generators = self.get_bare_model(self.net_g), self.step_rng.generators(purpose, iteration, indices)
        styles, indices = mix_styles(prior, generators, self.settings.mixing_prob)
        noise = noise_maps(prior, generators)
        return self.net_g(styles, noise, inject_index=indices, return_latents=return_latents)

    def _augment(self, purpose: str, iteration: int, indices: range) -> Callable[[torch.Tensor], torch.Tensor]:
        """The augmentation of what D sees, of these images of the batch; repeated calls use the same random numbers."""
        if self.augmentation is None:
            return lambda images: images
        return lambda images: self.augmentation(images, self.step_rng.generators(purpose, iteration, indices))

    def _lazy_path_length(self, current_iter: int, batch: int) -> dict[str, torch.Tensor]:
        weight, every = self.settings.path_reg_weight, self.settings.net_g_reg_every
        if weight <= 0:
            return {}
        if current_iter % every == 0:
            losses, self.mean_path_length = path_length_step(
                self._parts_for_path_length(current_iter, max(1, batch // self.settings.path_batch_shrink)),
                self.optimizer_g,
                self.mean_path_length,
                weight=weight,
                every=every,
                guard=self.guard,
            )
            self.last_path = losses["l_g_path"]
        return {"l_g_path": self.last_path, "mean_path_length": self.mean_path_length}

    def _parts_for_path_length(self, current_iter: int, count: int) -> Iterator[tuple[Callable, torch.Tensor, float]]:
        side = self.get_bare_model(self.net_g).out_size
        for indices in self.split(count):
            generate = partial(self._generate, "path length", current_iter, indices, return_latents=True)
            directions = normal((3, side, side), self.step_rng.generators("direction", current_iter, indices))
            yield generate, directions, len(indices) / count

    def _adapt(self, current_iter: int, batch: int, losses: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Adapt p of the augmentation to the signs of D's logits of real images, over all ranks."""
        if self.augmentation is None:
            return dict(losses)
        if self.augmentation.adaptive:
            self.sign_sum, self.sign_count = self.sign_sum + losses["d_sign_real"], self.sign_count + 1
            if current_iter % self.augmentation.every == 0:
                mean = all_reduce_mean(self.sign_sum / self.sign_count)
                images = self.sign_count * batch * self.opt["world_size"]
                self.augmentation.update(float(mean), images)
                self.sign_sum, self.sign_count = torch.zeros_like(self.sign_sum), 0
        return {**losses, "augment_p": torch.tensor(self.augmentation.p, device=self.device)}

    @property
    def value_range(self) -> tuple[float, float]:
        return -1.0, 1.0

    def to_images(self, batch: Mapping, index: int) -> Images:
        """An EMA sample as ``result``, and the image of the set as ``gt``."""
        self.feed_data(batch)
        (sample,) = self._samples(self.net_g_ema if self.is_train else self.net_g, [index])
        return {"result": sample, "gt": tensor2img([(self.gt + 1) / 2])}

    def image_grid(self, sums: MetricSums) -> np.ndarray | None:
        """The same latent codes in each panel: network, EMA, EMA truncated."""
        indices = range(self.opt["val"].get("grid_images", 16))
        if not indices:
            return None
        truncation = self.opt["val"].get("truncation", 0.7)
        averaged = self.net_g_ema if self.is_train else self.net_g
        panels = {"raw": self._samples(self.net_g, indices)} if self.is_train else {}
        panels["average (EMA)"] = self._samples(averaged, indices)
        if self.get_bare_model(averaged).has_mean_latent:
            panels[f"average, truncation {truncation:g}"] = self._samples(averaged, indices, truncation)
        mosaics = [mosaic([_shrink(sample, MAX_TILE) for sample in samples]) for samples in panels.values()]
        return sheet([mosaics], list(panels), tile=max(mosaics[0].shape[:2]))

    @torch.no_grad()
    def _samples(self, net: torch.nn.Module, indices: Sequence[int], truncation: float = 1.0) -> list[np.ndarray]:
        """One image per index, uint8 BGR, (H, W, 3), determined by the seed and the index."""
        prior = self.get_bare_model(net)
        center = None if truncation == 1 else prior.mean_latent(MEAN_LATENT_SAMPLES, self.step_rng.generator("mean"))
        images = []
        for index in indices:
            generators = [self.step_rng.generator("sample", index)]
            z, noise = normal((prior.num_style_feat,), generators), noise_maps(prior, generators)
            image = prior(z, noise, truncation=truncation, truncation_latent=center)
            images.append(tensor2img([(image + 1) / 2]))
        return images

    def extra_state(self) -> dict:
        own = {"mean_path_length": float(self.mean_path_length), "last_path": float(self.last_path)}
        if self.augmentation is not None:
            signs = {"sign_sum": float(all_reduce_mean(self.sign_sum)), "sign_count": self.sign_count}
            own["augmentation"] = self.augmentation.state_dict() | signs
        return super().extra_state() | own

    def resume_training(self, resume_state: dict) -> None:
        super().resume_training(resume_state)
        for name in ("mean_path_length", "last_path"):
            setattr(self, name, torch.tensor(resume_state[name], device=self.device))
        saved = resume_state.get("augmentation")
        if self.augmentation is not None and saved:
            self.sign_sum = torch.tensor(saved["sign_sum"], device=self.device)
            self.sign_count = saved["sign_count"]
            self.augmentation.load_state_dict({k: v for k, v in saved.items() if not k.startswith("sign_")})


def check_prior(prior: GANPrior, train: PriorTrainOptions, val: Mapping | None) -> None:
    """Raise an `OptionError` for a setting that this prior cannot have."""
    kind = type(prior).__name__
    if prior.num_latent == 1:
        for name in ("mixing_prob", "path_reg_weight"):
            if getattr(train, name):
                got, expected = f"got {getattr(train, name):g}", f"0: {kind} has a single latent code, and no space w"
                raise OptionError(f"train:{name}", got, expected, "Set it to 0.")
    truncation = (val or {}).get("truncation", 0.7)
    if val and truncation != 1 and not prior.has_mean_latent:
        raise OptionError("val:truncation", f"got {truncation:g}", f"1: {kind} has no mean latent code", "Set it to 1.")


def _shrink(image: np.ndarray, side: int) -> np.ndarray:
    if image.shape[0] <= side:
        return image
    return cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)


def normal(shape: Sequence[int], generators: Sequence[torch.Generator]) -> torch.Tensor:
    """N(0, 1), (N, *shape), each sample from its own generator."""
    return torch.stack([torch.randn(tuple(shape), generator=g, device=g.device) for g in generators])


def noise_maps(prior: GANPrior, generators: Sequence[torch.Generator]) -> list[torch.Tensor | None]:
    """As `GANPrior.make_noise`, each sample from its own generator."""
    maps_of_samples = zip(*(prior.make_noise(1, generator) for generator in generators), strict=True)
    return [None if maps[0] is None else torch.cat(maps) for maps in maps_of_samples]


def mix_styles(
    prior: GANPrior, generators: Sequence[torch.Generator], mixing_prob: float
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Style mixing (StyleGAN2): two codes, (N, F), and the index of the first layer that takes the second, (N,).

    With probability 1 - `mixing_prob` that is past the last layer.
    """
    first, second = normal((2, prior.num_style_feat), generators).unbind(dim=1)  # (N, 2, F) -> 2 x (N, F)
    u, position = torch.stack([torch.rand(2, generator=g, device=g.device) for g in generators]).unbind(dim=1)  # (N,)
    index = 1 + (position * (prior.num_latent - 1)).long()  # 1 to num_latent - 1
    return [first, second], index.where(u < mixing_prob, torch.full_like(index, prior.num_latent))
