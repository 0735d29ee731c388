"""Training of the methods that GPEN is compared with, on GPEN's data, with the losses of their authors."""

import inspect
from collections.abc import Iterator
from functools import partial

import torch

from gpen_plugin.config.train_options import OptimizerOptions, RestorationOptions
from gpen_plugin.data.gpen_face_dataset import data_range
from gpen_plugin.errors import OptionError
from gpen_plugin.host import register
from gpen_plugin.host.distributed import all_reduce_mean
from gpen_plugin.losses import gradient_penalty
from gpen_plugin.models.adversarial_model import AdversarialModel
from gpen_plugin.models.gan_steps import (
    Discriminate,
    Part,
    content_step,
    generator_and_discriminator_step,
    logits_and_features,
)
from gpen_plugin.models.loss_terms import Losses


@register("model")
class RestorationGANModel(AdversarialModel):
    """Trains any registered network that restores images against any registered discriminator; validates its EMA.

    The generator takes ``lq`` and, if its `forward` has a parameter ``ref``, the reference image of the batch. It
    returns the image, or a pair of the image and further outputs. If it has a method ``auxiliary_losses(outputs, gt)``,
    which returns weighted scalars by their names in the log (``l_g_...``), these are added to its loss.

    Images are in the generator's `value_range`; a network without one gets them as the data set gives them.
    """

    options_class = RestorationOptions
    # The gradient of an instance norm is wrong for one image in channels last (PyTorch 2.14).
    cpu_layout = torch.contiguous_format

    def setup_optimizers(self) -> None:
        """An optimizer each of generator and discriminator."""
        for name, net, options in (
            ("generator", self.net_g, self.settings.optim_g),
            ("discriminator", self.net_d, self.settings.optim_d),
        ):
            optim = OptimizerOptions(**options)
            learning = [parameter for parameter in net.parameters() if parameter.requires_grad]
            group = {"name": name, "params": learning}
            self.optimizers.append(self.get_optimizer(optim.type, [group], optim.lr, **optim.arguments))
        self.optimizer_g, self.optimizer_d = self.optimizers
        self.frozen = [
            (count, list(self.get_bare_model(self.net_g).get_submodule(name).parameters()))
            for name, count in self.settings.freeze_iter.items()
        ]
        self.optimizer_g.register_step_pre_hook(self._drop_frozen)

    def _drop_frozen(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        """Drop the gradients of modules that do not learn yet; DDP wants them computed."""
        for count, parameters in self.frozen:
            if self.current_iter <= count:
                for parameter in parameters:
                    parameter.grad = None

    @property
    def value_range(self) -> tuple[float, float]:
        of_network = getattr(self.get_bare_model(self.net_g), "value_range", None)
        data = next(iter(self.opt["datasets"].values()))
        return of_network or data_range(data) or (0, 1)

    def optimize_parameters(self, current_iter: int) -> None:
        """One iteration: a step of G, a step of D on the same images, at times R1, then the average."""
        self.current_iter = current_iter
        parts = self._restored_parts(current_iter)
        if current_iter <= self.settings.content_only_iter:
            content = partial(self.generator_losses, features=None)
            losses = content_step(self.optimizer_g, parts, guard=self.guard, losses=content)
        else:
            losses = generator_and_discriminator_step(
                self.net_d,
                self.optimizer_g,
                self.optimizer_d,
                parts,
                gan=self.loss_gan,
                guard=self.guard,
                losses=self.generator_losses,
                autocast=self.autocast,
            )
            real_parts = (
                Part(self.gt, fraction=fraction, discriminate=self.discriminate(self.gt.shape[2:]))
                for _, fraction in self.micro_batches()
            )
            losses |= self.lazy_r1(current_iter, self.optimizer_d, real_parts)
        self._average_statistics()
        self.end_of_iteration(losses, current_iter)

    def _restored_parts(self, current_iter: int) -> Iterator[Part]:
        for indices, fraction in self.micro_batches():
            with self.autocast():
                self.output, outputs = self.restore(self.net_g)
            yield Part(
                self.gt,
                self.output,
                fraction,
                self.discriminate(self.output.shape[2:]),
                self.auxiliary_losses(outputs),
                partial(self.gradient_penalty, current_iter=current_iter, indices=indices),
            )

    def _average_statistics(self) -> None:
        """Average the running statistics of batch norm over the ranks, so that all validate and save the same."""
        if self.opt["dist"]:
            for module in (*self.net_g.modules(), *self.net_d.modules()):
                if isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
                    for statistics in (module.running_mean, module.running_var):
                        statistics.copy_(all_reduce_mean(statistics))

    def restore(self, net: torch.nn.Module) -> tuple[torch.Tensor, object]:
        """A network's image of the batch, and its further outputs or None. OptionError: it needs a reference."""
        inputs = [self.lq]
        parameters = inspect.signature(self.get_bare_model(net).forward).parameters
        if "ref" in parameters:
            if hasattr(self, "ref"):
                inputs.append(self.ref)
            elif parameters["ref"].default is inspect.Parameter.empty:
                got, expected = "gives no reference image (ref)", "a data set that gives one"
                name = type(self.get_bare_model(net)).__name__
                raise OptionError("datasets", got, expected, f"{name} restores with a reference.")
        answer = net(*inputs)
        return answer if isinstance(answer, tuple) else (answer, None)

    def auxiliary_losses(self, outputs: object) -> Losses:
        """The losses that the generator defines for its own further outputs."""
        define = getattr(self.get_bare_model(self.net_g), "auxiliary_losses", None)
        return {} if define is None else define(outputs, self.gt)

    def discriminate(self, size: torch.Size) -> Discriminate:
        """D of images of a size; with the degraded image, if ``conditional_d`` is set."""
        if not self.settings.conditional_d:
            return lambda images: logits_and_features(self.net_d, images)
        condition = self.lq
        if condition.shape[2:] != size:
            condition = torch.nn.functional.interpolate(condition, size, mode="bilinear", align_corners=False)
        return lambda images: logits_and_features(self.net_d, torch.cat([condition, images], dim=1))

    def gradient_penalty(self, discriminate: Discriminate, current_iter: int, indices: range) -> Losses:
        """WGAN-GP's penalty of these images of the batch, weighted; nothing if its weight is 0."""
        if not self.settings.gp_weight:
            return {}
        generators = self.step_rng.generators("gradient penalty", current_iter, indices)
        fractions = [torch.rand(1, 1, 1, generator=each, device=each.device) for each in generators]
        with torch.compiler.set_stance("force_eager"):  # compiled networks cannot be differentiated twice
            penalty = gradient_penalty(
                lambda images: discriminate(images)[0], self.gt, self.output.float(), torch.stack(fractions)
            )
        return {"l_d_gp": self.settings.gp_weight * penalty}

    @torch.no_grad()
    def test(self) -> None:
        net = self.net_g_ema if self.is_train else self.net_g
        net.eval()
        self.output, _ = self.restore(net)
