"""Fine-tuning GPEN with its embedded prior on degraded faces (paper, section 3.3)."""

from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import torch
from torch._functorch import config as compiled

from gpen_plugin.config.train_options import OptimOptions, TrainOptions
from gpen_plugin.errors import OptionError
from gpen_plugin.host import register
from gpen_plugin.images.grid import sheet
from gpen_plugin.models.adversarial_model import AdversarialModel
from gpen_plugin.models.gan_steps import Losses, generator_and_discriminator_step
from gpen_plugin.models.validation import MetricSums


@register("model")
class GPENModel(AdversarialModel):
    """Fine-tunes `GPEN` against `GPENDiscriminator` and validates its average (EMA)."""

    options_class = TrainOptions

    def model_to_device(self, net: torch.nn.Module) -> torch.nn.Module:
        """As in `AdversarialModel`. The decoder is frozen first, because DDP registers the parameters that learn."""
        if self.settings and self.settings.freeze_decoder and hasattr(net, "decoder"):
            net.decoder.requires_grad_(False)
        if self.settings and self.settings.compile:
            # `generator_and_discriminator_step` goes back through D's graph twice
            compiled.donated_buffer = False
        return super().model_to_device(net)

    def init_training_settings(self) -> None:
        super().init_training_settings()
        self.loss_pixel = self.build_loss(self.settings.pixel_opt)
        self.loss_feature_matching = self.build_loss(self.settings.feature_matching_opt)

    def start_from_files(self) -> None:
        """Load the prior as the decoder, unless a whole generator is loaded (as on resume)."""
        paths = self.opt["path"]
        if paths.get("pretrain_prior") and not paths.get("pretrain_network_g"):
            decoder = self.get_bare_model(self.net_g).decoder
            key = paths.get("param_key_prior")
            self.load_network(decoder, paths["pretrain_prior"], True, key, where="path:pretrain_prior")
        super().start_from_files()

    def setup_optimizers(self) -> None:
        """One Adam, three groups: encoder (with what a subclass adds), decoder, discriminator (paper, section 4.2)."""
        optim = OptimOptions(**self.settings.optim)
        generator = self.get_bare_model(self.net_g)
        encoder, decoder = list(generator.encoder.parameters()), list(generator.decoder.parameters())
        known = {id(parameter) for parameter in (*encoder, *decoder)}
        # after the encoder's own, so that a state of the encoder alone still fits
        encoder += [parameter for parameter in generator.parameters() if id(parameter) not in known]
        parts = {"encoder": encoder, "decoder": decoder, "discriminator": list(self.net_d.parameters())}
        groups = [
            {"name": name, "params": parameters, "lr": rate}
            for (name, parameters), rate in zip(parts.items(), optim.rates(), strict=True)
            if not (name == "decoder" and self.settings.freeze_decoder)
        ]
        if optim.lazy_lr_scaling and self.settings.r1_reg_weight > 0:
            groups[-1] |= optim.for_lazy(self.settings.net_d_reg_every, groups[-1]["lr"])
        self.optimizer = self.get_optimizer(optim.type, groups, optim.lr, betas=optim.betas, eps=optim.eps)
        self.optimizers.append(self.optimizer)

    def optimize_parameters(self, current_iter: int) -> None:
        """One iteration: a step of G, a step of D on the same images, at times R1, then the average."""
        with self.autocast():
            self.output = self.net_g(self.lq)
        losses = generator_and_discriminator_step(
            self.net_d,
            self.optimizer,
            self.output,
            self.gt,
            gan=self.loss_gan,
            guard=self.guard,
            content=self.content_losses,
            feature_matching=self.loss_feature_matching,
            autocast=self.autocast,
        )
        losses |= self.lazy_r1(current_iter, self.optimizer, self.gt)
        self.end_of_iteration(losses, self.settings.ema_decay)

    def content_losses(self, fake: torch.Tensor, real: torch.Tensor) -> Losses:
        """G's weighted losses besides Eq. 1 and 2, by their names in the log (``l_g_...``); a subclass adds its own.

        Images are (N, 3, H, W), in the value range of the generator.
        """
        term = loss_value(self.loss_pixel, fake, real) if self.loss_pixel is not None else None
        return {} if term is None else {"l_g_pix": term}

    def get_current_visuals(self) -> OrderedDict:
        """LQ, result and GT in [0, 1], converted from the generator's value range."""
        low, high = self.get_bare_model(self.net_g).value_range
        return OrderedDict((name, (v - low) / (high - low)) for name, v in super().get_current_visuals().items())

    def image_grid(self, sums: MetricSums) -> np.ndarray | None:
        """One row LQ | restored | GT per image."""
        if not sums.shown:
            return None
        rows = [sums.shown[index] for index in sorted(sums.shown)]
        columns = {"lq": "LQ", "result": "restored", "gt": "GT"}
        shown = [name for name in columns if name in rows[0]]
        tile = min(max(128, rows[0]["result"].shape[0]), 512)  # TensorBoard is slow with larger pages
        return sheet([[row[name] for name in shown] for row in rows], [columns[name] for name in shown], tile)


def loss_value(loss: Callable, fake: torch.Tensor, real: torch.Tensor) -> torch.Tensor | None:
    """The sum of the scalars that ``loss(fake, real)`` returns, None if all are None. OptionError: no scalars."""
    returned = loss(fake, real)  # BasicSR's PerceptualLoss: (content, style)
    terms = [term for term in (returned if isinstance(returned, (tuple, list)) else [returned]) if term is not None]
    for term in terms:
        if not torch.is_tensor(term) or term.numel() != 1:
            got = f"a tensor of shape {tuple(term.shape)}" if torch.is_tensor(term) else f"{type(term).__name__}"
            expected = "a scalar tensor, or several of which each may be None"
            raise OptionError(f"{type(loss).__name__}", f"returned {got}", expected, "Use reduction: mean.")
    return sum(term.reshape(()) for term in terms) if terms else None
