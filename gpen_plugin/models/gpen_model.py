"""Fine-tuning GPEN with its embedded prior on degraded faces (paper, section 3.3)."""

import torch
from torch._functorch import config as compiled

from gpen_plugin.config.train_options import OptimOptions, TrainOptions
from gpen_plugin.host import register
from gpen_plugin.models.adversarial_model import AdversarialModel
from gpen_plugin.models.gan_steps import generator_and_discriminator_step


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
            losses=self.generator_losses,
            autocast=self.autocast,
        )
        losses |= self.lazy_r1(current_iter, self.optimizer, self.gt)
        self.end_of_iteration(losses, self.settings.ema_decay)
