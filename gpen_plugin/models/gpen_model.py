"""Stage two of the paper: the embedded prior is fine-tuned on degraded faces (section 3.3)."""

from collections import OrderedDict
from copy import deepcopy
from os import path as osp

import torch
from basicsr.archs import build_network
from basicsr.losses import build_loss
from basicsr.models.sr_model import SRModel
from basicsr.utils import get_root_logger, imwrite, tensor2img
from basicsr.utils.dist_util import master_only

from gpen_plugin import checkpoint
from gpen_plugin.host import register
from gpen_plugin.models.gan_steps import discriminator_step, generator_step, r1_step
from gpen_plugin.models.train_options import OptimOptions, TrainOptions
from gpen_plugin.sheet import sheet


@register("model")
class GPENModel(SRModel):
    """Fine-tunes `GPEN` against `GPENDiscriminator` and validates its average (EMA).

    Everything that is not GPEN is the host's: options, loaders, logging, metrics, schedulers, validation.

    Args:
        opt: parsed options; ``train`` holds the keys of `TrainOptions`.
    """

    def __init__(self, opt: dict):
        self.validated: set[tuple] = set()  # (data set, iteration)
        self.saved_at: tuple[int, int] | None = None  # epoch and iteration of the last training state
        self.num_skipped = 0  # unreadable pictures that the data set replaced, since the start of this process
        super().__init__(opt)

    def model_to_device(self, net: torch.nn.Module) -> torch.nn.Module:
        """As the host does. Convolutions on a CPU are faster with the channels last; on a GPU they are not."""
        if self.device.type == "cpu":
            net = net.to(memory_format=torch.channels_last)
        return super().model_to_device(net)

    def feed_data(self, data: dict) -> None:
        """Take a batch: ``lq`` and, where there is any, ``gt``, (N, 3, H, W), in the network's value range."""
        if "gt" not in data:
            self.__dict__.pop("gt", None)  # the host would show and measure the last batch's
        super().feed_data(data)
        if "skipped" in data:
            self.num_skipped += int(data["skipped"].sum())
        if self.device.type == "cpu":
            self.lq = self.lq.contiguous(memory_format=torch.channels_last)

    def init_training_settings(self) -> None:
        """Build D, the average, the losses and the optimiser; called by the host's constructor when training."""
        self.settings = TrainOptions(**self.opt["train"])
        self.net_d = self.model_to_device(build_network(self.opt["network_d"]))
        self.print_network(self.net_d)
        # never wrapped for several GPUs: it is for validation and saving
        self.net_g_ema = build_network(self.opt["network_g"]).to(self.device).requires_grad_(False)
        self.model_ema(decay=0)  # what a partial file leaves open is the same in both
        paths = self.opt["path"]
        if paths.get("pretrain_network_d"):
            key = paths.get("param_key_d", "params")
            self.load_network(self.net_d, paths["pretrain_network_d"], paths.get("strict_load_d", True), key)
        if paths.get("pretrain_network_g"):
            # without a key: the averaged weights if the file has any
            self.load_network(self.net_g_ema, paths["pretrain_network_g"], paths.get("strict_load_g", True), None)
        self.net_g.train()
        self.net_d.train()
        self.net_g_ema.eval()
        self.loss_pixel, self.loss_gan, self.loss_feature_matching = (
            build_loss(options).to(self.device) if options else None
            for options in (self.settings.pixel_opt, self.settings.gan_opt, self.settings.feature_matching_opt)
        )
        self.last_r1 = torch.zeros((), device=self.device)
        self.setup_optimizers()
        self.setup_schedulers()

    def setup_optimizers(self) -> None:
        """One Adam, three groups: encoder, decoder, discriminator (paper, section 4.2)."""
        optim = OptimOptions(**self.settings.optim)
        generator = self.get_bare_model(self.net_g)
        parts = {"encoder": generator.encoder, "decoder": generator.decoder, "discriminator": self.net_d}
        groups = [
            {"name": name, "params": list(net.parameters()), "lr": rate}
            for (name, net), rate in zip(parts.items(), optim.rates(), strict=True)
        ]
        if optim.lazy_lr_scaling and self.settings.r1_reg_weight > 0:
            share = self.settings.net_d_reg_every / (self.settings.net_d_reg_every + 1)
            groups[-1]["lr"] *= share
            groups[-1]["betas"] = tuple(beta**share for beta in optim.betas)
        self.optimizer = self.get_optimizer(optim.type, groups, optim.lr, betas=optim.betas, eps=optim.eps)
        self.optimizers.append(self.optimizer)

    def optimize_parameters(self, current_iter: int) -> None:
        """One iteration: a step of G, a step of D on the same pictures, at times R1, then the average."""
        self.output = self.net_g(self.lq)
        losses = generator_step(
            self.net_d,
            self.optimizer,
            self.output,
            self.gt,
            gan=self.loss_gan,
            pixel=self.loss_pixel,
            feature_matching=self.loss_feature_matching,
        )
        losses |= discriminator_step(self.net_d, self.optimizer, self.output, self.gt, gan=self.loss_gan)
        gamma, every = self.settings.r1_reg_weight, self.settings.net_d_reg_every
        if gamma > 0:
            if current_iter % every == 0:
                self.last_r1 = r1_step(self.net_d, self.optimizer, self.gt, gamma=gamma, every=every)["l_d_r1"]
            losses["l_d_r1"] = self.last_r1
        self.model_ema(decay=self.settings.ema_decay)
        self.log_dict = self.reduce_loss_dict(losses)

    @torch.no_grad()
    def model_ema(self, decay: float = 0.999) -> None:
        """Move the average towards the network: parameters by 1 - decay, buffers altogether."""
        source, average = self.get_bare_model(self.net_g), self.net_g_ema
        parameters = dict(source.named_parameters())
        for name, parameter in average.named_parameters():
            parameter.lerp_(parameters[name], 1 - decay)
        buffers = dict(source.named_buffers())
        for name, buffer in average.named_buffers():
            buffer.copy_(buffers[name])

    def get_current_log(self) -> OrderedDict:
        """Losses of the last iteration, the three learning rates, and how many pictures were unreadable, if any."""
        rates = {f"lr_{group['name']}": group["lr"] for group in self.optimizer.param_groups}
        skipped = {"skipped": self.num_skipped} if self.num_skipped else {}
        return OrderedDict(self.log_dict, **rates, **skipped)

    def get_current_visuals(self) -> OrderedDict:
        """LQ, result and GT in [0, 1]: here pictures leave the model's value range."""
        low, high = self.get_bare_model(self.net_g).value_range
        visuals = OrderedDict((k, (v - low) / (high - low)) for k, v in super().get_current_visuals().items())
        if len(self.grid_rows) < self.opt["val"].get("grid_images", 8):
            self.grid_rows.append({name: tensor2img([picture]) for name, picture in visuals.items()})
        return visuals

    def validation(self, dataloader, current_iter, tb_logger, save_img=False) -> None:
        """The host's validation. After the last iteration it counts one too far and comes twice; not here."""
        if self.is_train:
            current_iter = min(current_iter, self.settings.total_iter)
        done = (dataloader.dataset.opt["name"], current_iter)
        if done in self.validated:
            return
        self.validated.add(done)
        super().validation(dataloader, current_iter, tb_logger, save_img)
        if self.saved_at is not None and self.saved_at[1] == current_iter:
            self.save_training_state(*self.saved_at)  # the host saves first: the state must know the new best metric

    def nondist_validation(self, dataloader, current_iter, tb_logger, save_img) -> None:
        """The host's loop over the set, and a grid LQ | restored | GT on disk and in TensorBoard."""
        self.grid_rows = []
        super().nondist_validation(dataloader, current_iter, tb_logger, save_img)
        if not self.grid_rows:
            return
        columns = {"lq": "LQ", "result": "restored", "gt": "GT"}
        shown = [name for name in columns if name in self.grid_rows[0]]
        tile = max(128, self.grid_rows[0]["result"].shape[0])
        page = sheet([[row[name] for name in shown] for row in self.grid_rows], [columns[name] for name in shown], tile)
        dataset = dataloader.dataset.opt["name"]
        imwrite(page, osp.join(self.opt["path"]["visualization"], f"grid_{dataset}_{current_iter}.png"))
        if tb_logger:
            tb_logger.add_image(f"grid/{dataset}", page[..., ::-1].copy(), current_iter, dataformats="HWC")

    def load_network(self, net, load_path, strict=True, param_key="params") -> None:
        """Load weights, and weights only; a file of another network is named together with this one.

        Raises:
            CheckpointError: unreadable, unsafe, or of another kind, size or width; without `strict`, of a network
                that shares no tensor with this one.
        """
        where = next((f"path:{key}" for key, value in self.opt["path"].items() if value == load_path), "path")
        left = checkpoint.load_into(self.get_bare_model(net), load_path, param_key, where=where, strict=strict)
        logger = get_root_logger()
        logger.info(f"Loaded {load_path} [{param_key or 'the averaged weights, or a flat file'}].")
        if left:
            logger.warning(f"{len(left)} tensors are not in the file and stay as they were: {', '.join(left)}")

    def save(self, epoch: int, current_iter: int) -> None:
        """Networks first, the training state last: where a state lies, its networks are complete."""
        self.save_network([self.net_g, self.net_g_ema], "net_g", current_iter, ["params", "params_ema"])
        self.save_network(self.net_d, "net_d", current_iter)
        self.save_training_state(epoch, current_iter)

    @master_only
    def save_network(self, net, net_label, current_iter, param_key="params") -> None:
        """Write networks under the host's names and keys, whole or not at all.

        Raises:
            CheckpointError: the file could not be written; an earlier one of its name is still there.
        """
        nets, keys = (net, param_key) if isinstance(net, list) else ([net], [param_key])
        states = {key: self.get_bare_model(one).state_dict() for one, key in zip(nets, keys, strict=True)}
        states = {key: {name: tensor.cpu() for name, tensor in state.items()} for key, state in states.items()}
        number = "latest" if current_iter == -1 else current_iter
        checkpoint.write(osp.join(self.opt["path"]["models"], f"{net_label}_{number}.pth"), states)

    @master_only
    def save_training_state(self, epoch: int, current_iter: int) -> None:
        """Write what resuming needs beside the networks: optimiser, scheduler, place in the run, best metrics."""
        if current_iter == -1:
            return
        self.saved_at = (epoch, current_iter)
        state = {
            "epoch": epoch,
            "iter": current_iter,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "schedulers": [scheduler.state_dict() for scheduler in self.schedulers],
            "best_metric_results": _plain(getattr(self, "best_metric_results", {})),
            "last_r1": float(self.last_r1),
        }
        checkpoint.write(osp.join(self.opt["path"]["training_states"], f"{current_iter}.state"), state)

    def resume_training(self, resume_state: dict) -> None:
        """Take up optimiser, scheduler and best metrics where the state left them."""
        super().resume_training(resume_state)
        if resume_state.get("best_metric_results"):
            self.best_metric_results = deepcopy(resume_state["best_metric_results"])
        self.last_r1 = torch.tensor(resume_state.get("last_r1", 0.0), device=self.device)


def _plain(value: object) -> object:
    """Nested dicts with NumPy's scalars turned into Python's, which a safe loader takes."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value.item() if hasattr(value, "item") else value
