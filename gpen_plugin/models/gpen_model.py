"""Fine-tuning GPEN with its embedded prior on degraded faces (paper, section 3.3)."""

from collections.abc import Iterator, Sequence

import torch
from torch._functorch import config as compiled

from gpen_plugin.config.schema import unknown_key
from gpen_plugin.config.train_options import PARTS, OptimOptions, TrainOptions
from gpen_plugin.errors import OptionError
from gpen_plugin.host import register
from gpen_plugin.models.adversarial_model import AdversarialModel
from gpen_plugin.models.gan_steps import Part, generator_and_discriminator_step


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
        """One optimizer with a group each for encoder, decoder, what a subclass adds, and D (paper, section 4.2)."""
        optim = OptimOptions(**self.settings.optim)
        rates = optim.rates()
        parts = generator_parts(self.get_bare_model(self.net_g), [name for name in rates if name not in PARTS])
        parts["discriminator"] = list(self.net_d.parameters())
        groups = [
            {"name": name, "params": parameters, "lr": rates[name]}
            for name, parameters in parts.items()
            if not (name == "decoder" and self.settings.freeze_decoder)
        ]
        if optim.lazy_lr_scaling and self.settings.r1_reg_weight > 0:
            groups[-1] |= optim.for_lazy(self.settings.net_d_reg_every, groups[-1]["lr"])
        self.optimizer = self.get_optimizer(optim.type, groups, optim.lr, **optim.arguments)
        self.optimizers.append(self.optimizer)

    def optimize_parameters(self, current_iter: int) -> None:
        """One iteration: a step of G, a step of D on the same images, at times R1, then the average."""
        losses = generator_and_discriminator_step(
            self.net_d,
            self.optimizer,
            self.optimizer,
            self._restored_parts(),
            gan=self.loss_gan,
            guard=self.guard,
            losses=self.generator_losses,
            autocast=self.autocast,
        )
        parts = (Part(self.gt, fraction=fraction) for _, fraction in self.micro_batches())
        losses |= self.lazy_r1(current_iter, self.optimizer, parts)
        self.end_of_iteration(losses, current_iter)

    def _restored_parts(self) -> Iterator[Part]:
        for _, fraction in self.micro_batches():
            with self.autocast():
                self.output = self.net_g(self.lq)
            yield Part(self.gt, self.output, fraction)


def generator_parts(net_g: torch.nn.Module, others: Sequence[str]) -> dict[str, list[torch.nn.Parameter]]:
    """Parameters of a `GPEN` by encoder, decoder, and modules or parameters of a subclass by their names, `others`.

    OptionError: a parameter that learns is in none of them, or a name has no parameters.
    """
    parts = {name: list(getattr(net_g, name).parameters()) for name in ("encoder", "decoder")}
    parts |= {name: [] for name in others}
    known, without = {id(parameter) for part in parts.values() for parameter in part}, []
    for name, parameter in net_g.named_parameters():
        if id(parameter) not in known and parameter.requires_grad:
            owners = [other for other in others if name == other or name.startswith(f"{other}.")]
            if owners:
                parts[max(owners, key=len)].append(parameter)
            else:
                without.append(name)
    where = "train:optim:lr_ratio"
    if without:
        modules = dict.fromkeys(name.partition(".")[0] for name in without)
        hint = "Write lr_ratio: {encoder: 100, decoder: 10, discriminator: 1, " + ": 100, ".join(modules) + ": 100}."
        expected = "a rate for every parameter of network_g outside encoder and decoder"
        raise OptionError(where, f"got none for {', '.join(without)}", expected, hint)
    for name in others:
        if not parts[name]:
            known = [child for child, _ in net_g.named_children()]
            raise unknown_key(name, known, where)
    return parts
