"""Base of both trainings: networks, precision, EMA, validation, checkpoints, resume."""

import hashlib
import os
import platform
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from os import path as osp
from pathlib import Path
from typing import ClassVar
from weakref import WeakMethod, finalize

import numpy as np
import torch
from basicsr.archs import build_network
from basicsr.losses import build_loss
from basicsr.models.sr_model import SRModel
from basicsr.utils import get_root_logger, imwrite, tensor2img
from basicsr.utils.dist_util import master_only

from gpen_plugin.checkpoints import checkpoint, metadata
from gpen_plugin.checkpoints.metadata import Conventions, Metadata
from gpen_plugin.config.train_options import AdversarialOptions, optimizer_class
from gpen_plugin.data.gpen_face_dataset import data_range
from gpen_plugin.errors import OptionError
from gpen_plugin.host import (
    EXIT_CODE,
    batch_index,
    before_each_batch,
    resolve,
    stop_signal,
    unwatch_signals,
    watch_signals,
)
from gpen_plugin.host.distributed import all_gather_object
from gpen_plugin.images.grid import sheet
from gpen_plugin.models import train_state
from gpen_plugin.models.gan_steps import NaNGuard, Part, r1_step
from gpen_plugin.models.loss_terms import CONTENT, Features, Losses, LossTerm, in_range, list_losses
from gpen_plugin.models.monitors import DataWaitMonitor, IterationProfiler, peak_memory
from gpen_plugin.models.train_state import Change, changes_between, load_optimizers, recorded_options
from gpen_plugin.models.validation import ImageNames, Images, MetricSums, compute_metrics, image_path
from gpen_plugin.nets.vgg import vgg19_of
from gpen_plugin.ops.memory import keep_freed_memory

STREAMS = (
    "generator",
    "discriminator",
    "path length",
    "direction",
    "augmentation of G",
    "augmentation of D",
    "sample",
    "mean",
    "gradient penalty",
)
BATCH = ("lq", "gt", "ref")
FUSED_ADAM = {"fused": True, "foreach": None}  # arguments that choose the kernel


def use_deterministic_algorithms() -> None:
    """Let PyTorch use only operations that give the same bits each time; others raise an error that names them."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False  # BasicSR switches it on


def separate_kernel_caches() -> None:
    """Give each kind of processor its own cache of torch.compile's kernels, unless the user set one."""
    # Inductor compiles for the current processor but finds kernels by their source. Where different machines share the
    # folder, kernels of one crash or compute wrong numbers on another.
    # imported here, because it takes seconds
    from torch._inductor.runtime.runtime_utils import cache_dir, default_cache_dir

    folder = default_cache_dir()
    if cache_dir() == osp.abspath(folder):
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = f"{folder}_{processor_digest()}"


def processor_digest() -> str:
    """Eight hexadecimal digits that differ between processors with different instructions."""
    described = [platform.machine(), platform.processor(), torch.backends.cpu.get_cpu_capability()]
    listed = Path("/proc/cpuinfo")  # Linux only
    if listed.is_file():
        first = listed.read_text(errors="replace").partition("\n\n")[0]
        keys = ("vendor_id", "cpu family", "model", "model name", "flags", "CPU part", "Features", "isa", "uarch")
        described += [line for line in first.splitlines() if line.partition(":")[0].strip() in keys]
    return hashlib.sha256("\n".join(described).encode()).hexdigest()[:8]


@torch.no_grad()
def update_ema(average: torch.nn.Module, source: torch.nn.Module, decay: float) -> None:
    """In place: parameters = decay * average + (1 - decay) * source, buffers are copied. Networks without DDP."""
    parameters, buffers = dict(source.named_parameters()), dict(source.named_buffers())
    names, averaged = zip(*average.named_parameters(), strict=True)
    torch._foreach_lerp_(averaged, [parameters[name] for name in names], 1 - decay)
    averaged_buffers = dict(average.named_buffers())
    if averaged_buffers:
        torch._foreach_copy_([*averaged_buffers.values()], [buffers[name] for name in averaged_buffers])


def restore_fused_state(optimizer: torch.optim.Optimizer) -> None:
    """Make a loaded state of an Adam built with `FUSED_ADAM` fit the fused kernel; a hook after ``load_state_dict``."""
    # A state contains the kernel that wrote it and the memory layout of its tensors. With another kernel's flag the
    # fused kernel would be replaced silently; and because it reads memory linearly, moments in another layout than
    # their weights (a GPU's state on a CPU with channels last) would be applied to the wrong weights.
    for group in optimizer.param_groups:
        group.update(FUSED_ADAM)
        for parameter in group["params"]:
            held = optimizer.state.get(parameter, {})
            for name, value in held.items():
                like = value if name == "step" else parameter
                held[name] = torch.empty_like(like, device=parameter.device).copy_(value)


class LinearDecayLR(torch.optim.lr_scheduler.LRScheduler):
    """Rates that stay until iteration `start` and then fall linearly to 0 at iteration `end`, as Pix2PixHD's."""

    def __init__(self, optimizer: torch.optim.Optimizer, start: int, end: int):
        if not 0 <= start < end:
            raise OptionError("start, end", f"got {start} and {end}", "two iterations, the earlier one first")
        self.start, self.end = start, end
        super().__init__(optimizer)

    def get_lr(self) -> list[float]:
        left = min(max((self.end - self.last_epoch) / (self.end - self.start), 0), 1)
        return [rate * left for rate in self.base_lrs]


TORCH_SCHEDULERS = (  # those that scale each group's own rate and step without a metric
    "StepLR",
    "ExponentialLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "ConstantLR",
    "LinearLR",
    "PolynomialLR",
)


def scheduler_class(name: str) -> type[torch.optim.lr_scheduler.LRScheduler] | None:
    """A scheduler that is not BasicSR's; None for BasicSR's."""
    if name in TORCH_SCHEDULERS:
        return getattr(torch.optim.lr_scheduler, name)
    return LinearDecayLR if name == LinearDecayLR.__name__ else None


class StepRNG:
    """The random generators of a run, on `device`. Images of the ranks are numbered as by BasicSR's sampler.

    The numbers of image n in iteration i are seeded with (seed, purpose, i, n). So a resumed training has the numbers
    of an uninterrupted one, and two ranks together those of one rank with twice the batch.
    """

    def __init__(self, seed: int, rank: int, world_size: int, device: torch.device):
        self.seed, self.rank, self.world_size = seed, rank, world_size
        own_gpu = device.type == "cuda" and device.index is None
        self.device = torch.device("cuda", torch.cuda.current_device()) if own_gpu else device

    def generators(self, purpose: str, iteration: int, batch: int | range) -> list[torch.Generator]:
        """One generator for each of this rank's `batch` images, or for those of these indices."""
        indices = range(batch) if isinstance(batch, int) else batch
        return [self.generator(purpose, iteration, self.rank + n * self.world_size) for n in indices]

    def generator(self, purpose: str, *index: int) -> torch.Generator:
        """The generator of one index, the same on every rank."""
        sequence = np.random.SeedSequence((self.seed, STREAMS.index(purpose), *index))
        generator = torch.Generator(self.device)
        return generator.manual_seed(int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1)))


class AdversarialModel(SRModel):
    """A generator, its EMA and a discriminator. Options, loaders, logging, metrics and schedulers are BasicSR's."""

    options_class: ClassVar[type[AdversarialOptions]]  # keys of ``train``
    cpu_layout: ClassVar[torch.memory_format] = torch.channels_last  # faster on a CPU; a GPU keeps its own
    restores: ClassVar[bool] = True  # whether the generator takes faces and restores them
    grid_shows_images: ClassVar[bool] = True  # whether `image_grid` needs the images of a validation

    def __init__(self, opt: dict):
        self.validated: set[tuple] = set()  # (data set, iteration)
        self.last_state: dict | None = None  # the training state that was written or read last
        self.started_from: dict[str, Metadata] = {}  # metadata of the files that the networks started from
        self.num_skipped = 0  # unreadable images that the data set replaced, since the start of this process
        self.settings = self.options_class(**opt["train"]) if opt["is_train"] else None
        # value range of the batches: of the training set, and during a validation of its set; None: the networks'
        self.data_range = data_range(opt["datasets"]["train"]) if opt["is_train"] else None
        # for the training state; now, because the host removes the scheduler's type when it builds it
        self.recorded = recorded_options(opt, self.settings) if opt["is_train"] else None
        self.iteration: int | None = None  # the last one that this process trained
        self.validations: dict[str, dict] = {}  # of checkpoints on the disk: data set -> metric -> iteration -> value
        if opt["is_train"] and self.settings.deterministic:
            use_deterministic_algorithms()
        super().__init__(opt)
        if self.device.type == "cpu":
            keep_freed_memory()
        self.step_rng = StepRNG(opt["manual_seed"] or 0, opt["rank"], opt["world_size"], self.device)
        if not self.is_train and not opt["path"].get("pretrain_network_g"):
            get_root_logger().warning("path:pretrain_network_g names no weights: the network is untrained.")

    def model_to_device(self, net: torch.nn.Module) -> torch.nn.Module:
        """BasicSR's, in the layout of the device, and compiled if ``train:compile`` says so."""
        if self.device.type == "cpu":
            net = net.to(memory_format=self.cpu_layout)
        if self.settings and self.settings.gradient_checkpointing:
            for module in net.modules():
                if hasattr(module, "checkpointing"):
                    module.checkpointing = True
        if self.settings and self.settings.compile:
            separate_kernel_caches()
            get_root_logger().info("The networks are compiled in the first steps, which takes minutes.")
            net.compile(backend=self.settings.compile)
        net = super().model_to_device(net)
        if self.opt["dist"]:
            net.broadcast_buffers = False  # constant filters; a rank that runs alone would wait for others
        return net

    def autocast(self) -> AbstractContextManager:
        """The precision of the forward passes."""
        on = self.settings is not None and self.settings.precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=on)

    def init_training_settings(self) -> None:
        """Build D, EMA, losses and optimizers; called by BasicSR's constructor when training."""
        self.net_d = self.model_to_device(build_network(self.opt["network_d"]))
        self.print_network(self.net_d)
        # not wrapped in DDP: it is for validation and saving
        self.net_g_ema = build_network(self.opt["network_g"]).to(self.device).requires_grad_(False)
        self.start_from_files()
        self.net_g.train()
        self.net_d.train()
        self.net_g_ema.eval()
        entries = list_losses(self.opt)
        self.loss_gan = self.build_loss(next(entry.options for entry in entries if entry.on == "logits"))
        self.loss_terms = {
            entry.name: LossTerm(entry, self.build_loss(entry.options)) for entry in entries if entry.on != "logits"
        }
        self.guard = NaNGuard(self.settings.nonfinite_patience, self.settings.max_grad_norm)
        self.data_wait = DataWaitMonitor(self.opt["datasets"]["train"].get("num_worker_per_gpu", 0))
        folder = osp.join(self.opt["path"].get("experiments_root", ""), "profile")
        self.profiler = IterationProfiler(self.opt["logger"].get("profile"), folder, self.opt["rank"])
        self.last_r1 = torch.zeros((), device=self.device)
        self.setup_optimizers()
        self.setup_schedulers()
        unwatch_signals()  # of an earlier training in this process
        before_each_batch(WeakMethod(self.stop_if_asked))

    def setup_schedulers(self) -> None:
        """BasicSR's schedulers, torch's, and `LinearDecayLR`."""
        options = dict(self.opt["train"]["scheduler"])
        cls = scheduler_class(options.pop("type"))
        if cls is None:
            return super().setup_schedulers()
        self.schedulers += [cls(optimizer, **options) for optimizer in self.optimizers]

    def update_learning_rate(self, current_iter: int, warmup_iter: int = -1) -> None:
        """BasicSR's, except that a scheduler does not continue from the rates of the warm-up but from its own."""
        if 1 < current_iter <= warmup_iter:
            for scheduler in self.schedulers:
                for group, rate in zip(scheduler.optimizer.param_groups, scheduler.get_last_lr(), strict=True):
                    group["lr"] = rate
        super().update_learning_rate(current_iter, warmup_iter)

    def start_from_files(self) -> None:
        """Load the weights that ``path:`` names, except the generator's, which BasicSR has loaded."""
        self.model_ema(decay=0)  # tensors that a partial file lacks are the same in both
        paths = self.opt["path"]
        if paths.get("pretrain_network_d"):
            key = paths.get("param_key_d", "params")
            self.load_network(self.net_d, paths["pretrain_network_d"], paths.get("strict_load_d", True), key)
        if paths.get("pretrain_network_g"):
            # without a key: the averaged weights if the file has any
            self.load_network(self.net_g_ema, paths["pretrain_network_g"], paths.get("strict_load_g", True), None)
        # a prior's file is not read, and may be gone, where a whole generator is loaded
        sources = {"net_g": paths.get("pretrain_network_g") or paths.get("pretrain_prior")}
        sources["net_d"] = paths.get("pretrain_network_d")
        for label, path in sources.items():
            if path:
                stated = metadata.read(path)
                self.started_from[label] = replace(stated, license=stated.license or checkpoint.license_of(path))

    def build_loss(self, options: Mapping) -> torch.nn.Module:
        """A registered loss on this device."""
        with vgg19_of(options):
            loss = build_loss(options)
        return loss.to(self.device) if isinstance(loss, torch.nn.Module) else loss

    def generator_losses(self, fake: torch.Tensor, real: torch.Tensor, features: Features | None) -> Losses:
        """G's weighted losses besides L_A, by their names in the log (``l_g_...``); a subclass adds its own.

        Args:
            fake: G's images, (N, 3, H, W), float32, in `value_range`.
            real: the ground truth, likewise.
            features: D's of fake and of real images, a list of layers each; None in a step without D.
        """
        terms = {}
        for term in self.loss_terms.values():
            if features is not None or term.entry.where in CONTENT:
                terms |= term(fake, real, features, self.value_range)
        return terms

    def get_optimizer(self, optim_type: str, params: list[dict], lr: float, **arguments: object):
        """An optimizer of any class that `optimizer_class` finds; of Adam and AdamW the fused kernel."""
        cls = optimizer_class(optim_type)
        if cls not in (torch.optim.Adam, torch.optim.AdamW) or {"fused", "foreach"} & {*arguments}:
            return cls(params, lr=lr, **arguments)
        optimizer = cls(params, lr=lr, **arguments, **FUSED_ADAM)
        optimizer.register_load_state_dict_post_hook(restore_fused_state)
        return optimizer

    def ema_decay(self, current_iter: int) -> float:
        """The decay of the average in this iteration."""
        settings, images = self.settings, len(self.gt) * self.opt["world_size"]
        if settings.ema_half_life is None:
            return 0.999 if settings.ema_decay is None else settings.ema_decay
        half_life = settings.ema_half_life
        if settings.ema_rampup is not None:
            half_life = min(half_life, settings.ema_rampup * current_iter * images)
        return 0.5 ** (images / half_life)

    def model_ema(self, decay: float = 0.999) -> None:
        """An update of the EMA, under BasicSR's name."""
        update_ema(self.net_g_ema, self.get_bare_model(self.net_g), decay)

    def feed_data(self, data: dict) -> None:
        """Take a batch: ``gt`` and, if present, ``lq`` and ``ref``, (N, 3, H, W), in `data_range`, or uint8.

        They are converted to `value_range`.
        """
        for name in BATCH:
            self.__dict__.pop(name, None)  # BasicSR would show and measure the last batch's
            if name in data:
                layout = self.cpu_layout if self.device.type == "cpu" else torch.preserve_format
                images = data[name].to(self.device, memory_format=layout)
                if images.dtype == torch.uint8:
                    images = in_range(images.float(), (0, 255), self.data_range or (-1, 1))
                setattr(self, name, in_range(images, self.data_range, self.value_range))
        if "skipped" in data:
            self.num_skipped += int(data["skipped"].sum())

    def split(self, count: int) -> Iterator[range]:
        """Indices of the parts of `count` images. DDP exchanges gradients in the last part only."""
        size = self.settings.micro_batch or count
        for start in range(0, count, size):
            part = range(start, min(start + size, count))
            with ExitStack() as stack:
                for net in (self.net_g, self.net_d):
                    if part.stop < count and hasattr(net, "no_sync"):
                        stack.enter_context(net.no_sync())
                yield part

    def micro_batches(self) -> Iterator[tuple[range, float]]:
        """Indices of the images of each part of the batch, and its fraction of it.

        Meanwhile ``lq``, ``gt`` and ``ref`` are those of the part.
        """
        whole = {name: getattr(self, name) for name in BATCH if hasattr(self, name)}
        count = len(self.gt)
        try:
            for part in self.split(count):
                for name, images in whole.items():
                    setattr(self, name, images[part.start : part.stop])
                yield part, len(part) / count
        finally:
            for name, images in whole.items():
                setattr(self, name, images)

    def lazy_r1(self, current_iter: int, optimizer: torch.optim.Optimizer, parts: Iterable[Part]) -> Losses:
        """R1 at every ``net_d_reg_every``-th iteration; in between its last value, for the log."""
        gamma, every = self.settings.r1_reg_weight, self.settings.net_d_reg_every
        if gamma <= 0:
            return {}
        if current_iter % every == 0:
            self.last_r1 = r1_step(self.net_d, optimizer, parts, gamma=gamma, every=every, guard=self.guard)["l_d_r1"]
        return {"l_d_r1": self.last_r1}

    def end_of_iteration(self, losses: Losses, current_iter: int) -> None:
        """Update the EMA and the log."""
        self.model_ema(decay=self.ema_decay(current_iter))
        self.losses = losses  # not read yet: that would synchronise with the GPU at each iteration
        self.data_wait.update()
        self.profiler.update(current_iter)
        self.iteration = current_iter

    def stop_if_asked(self) -> None:
        """After SIGTERM or SIGUSR1 on any rank, save and end the process with `EXIT_CODE`; between two iterations."""
        if watch_signals():
            finalize(self, unwatch_signals)
        name = stop_signal()
        if name is None:
            return
        saved = "No iteration was trained."
        if self.iteration is not None:
            if self.last_state is None or self.last_state["iter"] != self.iteration:
                self.save(batch_index()["epoch"], self.iteration)
            saved = f"The state of iteration {self.iteration} is saved. --auto_resume continues from it."
        get_root_logger().info(f"Stopped by {name}. {saved}")
        if torch.distributed.is_initialized():
            torch.distributed.barrier()  # a launcher kills the other ranks as soon as one has ended
        raise SystemExit(EXIT_CODE)

    def get_current_log(self) -> OrderedDict:
        """Losses of the last iteration, learning rates, counts of skipped images and steps. Called on every rank."""
        groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        rates = {f"lr_{group['name']}": group["lr"] for group in groups}
        skipped = sum(all_gather_object(self.num_skipped))
        counts = {"skipped": skipped, "nonfinite_steps": self.guard.skipped}
        counts = {name: count for name, count in counts.items() if count}
        return OrderedDict(self.reduce_loss_dict(self.losses), **rates, **counts, **peak_memory(self.device))

    def validation(self, dataloader, current_iter, tb_logger, save_img=False) -> None:
        """BasicSR's, but once after the last iteration, where BasicSR validates twice and counts one too far."""
        if self.is_train:
            current_iter = min(current_iter, self.settings.total_iter)
        done = (dataloader.dataset.opt["name"], current_iter)
        if done in self.validated:
            return
        self.validated.add(done)
        with train_state.preserve_rng_state():
            super().validation(dataloader, current_iter, tb_logger, save_img)
        if self.last_state is not None and self.last_state["iter"] == current_iter:
            # BasicSR saved before this validation: add the new best metrics to that state
            self.last_state["best_metric_results"] = train_state.to_builtin(getattr(self, "best_metric_results", {}))
            self._write_last_state()

    def dist_validation(self, dataloader, current_iter, tb_logger, save_img) -> None:
        """The ranks share the set; in BasicSR rank 0 validates alone."""
        self.nondist_validation(dataloader, current_iter, tb_logger, save_img)

    def nondist_validation(self, dataloader, current_iter, tb_logger, save_img) -> None:
        """Restore and measure a set, log the results, record the best, write the grid."""
        name = dataloader.dataset.opt["name"]
        options = self.opt["val"]
        names = ImageNames(dataloader.dataset) if save_img else None
        of_training, self.data_range = self.data_range, data_range(dataloader.dataset.opt)

        def restore(batch: Mapping, index: int) -> Images:
            images = self.to_images(batch, index)
            if save_img:
                imwrite(images["result"], image_path(self.opt, names.of(batch), name, current_iter))
            return images

        sums = compute_metrics(
            dataloader,
            restore,
            options.get("metrics") or {},
            options.get("grid_images", 8) if self.grid_shows_images else 0,
            rank=self.opt["rank"],
            world_size=self.opt["world_size"],
            progress=options.get("pbar", False),
        )
        self.data_range = of_training
        if sums.values:
            self._initialize_best_metric_results(name)
            self.metric_results = sums.results()
            for metric, value in self.metric_results.items():
                self._update_best_metric_result(name, metric, value, current_iter)
                if self._keeps_best and self.last_state is not None and self.last_state["iter"] == current_iter:
                    self.validations.setdefault(name, {}).setdefault(metric, {})[current_iter] = float(value)
            self._log_validation_metric_values(current_iter, name, tb_logger)
        page = self.image_grid(sums) if self.opt["rank"] == 0 else None
        if page is not None:
            imwrite(page, osp.join(self.opt["path"]["visualization"], f"grid_{name}_{current_iter}.png"))
            if tb_logger:
                tb_logger.add_image(f"grid/{name}", page[..., ::-1].copy(), current_iter, dataformats="HWC")

    def to_images(self, batch: Mapping, index: int) -> Images:
        """Restore a batch of one image, number `index` of its set. Returns result, gt and lq, uint8 BGR, (H, W, 3)."""
        self.feed_data(batch)
        self.test()
        return {name: tensor2img([image]) for name, image in self.get_current_visuals().items()}

    @property
    def value_range(self) -> tuple[float, float]:
        """The lowest and highest value of the generator's images."""
        return self.get_bare_model(self.net_g).value_range

    def get_current_visuals(self) -> OrderedDict:
        """LQ, result and GT in [0, 1], converted from the generator's value range."""
        low, high = self.value_range
        return OrderedDict((name, (v - low) / (high - low)) for name, v in super().get_current_visuals().items())

    def image_grid(self, sums: MetricSums) -> np.ndarray | None:
        """The image grid of a validation: uint8 BGR, (H, W, 3), rows LQ | restored | GT. On rank 0 only."""
        if not sums.shown:
            return None
        rows = [sums.shown[index] for index in sorted(sums.shown)]
        columns = {"lq": "LQ", "result": "restored", "gt": "GT"}
        shown = [name for name in columns if name in rows[0]]
        tile = min(max(128, rows[0]["result"].shape[0]), 512)  # TensorBoard is slow with larger pages
        return sheet([[row[name] for name in shown] for row in rows], [columns[name] for name in shown], tile)

    def load_network(self, net, load_path, strict=True, param_key="params", where: str | None = None) -> None:
        """Load weights, and weights only. CheckpointError: unreadable, unsafe, or of another kind, size or width;
        without `strict`, of a network that has no tensor in common with this one.
        """
        where = where or next((f"path:{key}" for key, value in self.opt["path"].items() if value == load_path), "path")
        net = self.get_bare_model(net)
        left = checkpoint.load_into(net, load_path, param_key, where=where, strict=strict)
        entry, number = param_key or "the averaged weights, or a flat file", len(net.state_dict())
        logger = get_root_logger()
        logger.info(f"{where}: {number - len(left)} of {number} tensors from {load_path} [{entry}].")
        if left:
            logger.warning(f"{len(left)} tensors are not in the file and stay as they were: {', '.join(left)}")

    def save(self, epoch: int, current_iter: int) -> None:
        """Networks first, the training state last: a state on the disk always has its networks."""
        if current_iter != -1 and self.opt["rank"] == 0:
            train_state.delete_checkpoint(self.opt["path"], current_iter)
        self.save_network([self.net_g, self.net_g_ema], "net_g", current_iter, ["params", "params_ema"])
        self.save_network(self.net_d, "net_d", current_iter)
        if current_iter != -1:
            self.save_training_state(epoch, current_iter)
        else:  # the end of the training
            self.profiler.finish(self.settings.total_iter)
            before_each_batch(lambda: None)
            unwatch_signals()

    @master_only
    def save_network(self, net, net_label, current_iter, param_key="params") -> None:
        """Write networks under BasicSR's names and keys; after a CheckpointError an earlier file is still intact."""
        nets, keys = (net, param_key) if isinstance(net, list) else ([net], [param_key])
        states = {key: self.get_bare_model(one).state_dict() for one, key in zip(nets, keys, strict=True)}
        states = {key: {name: tensor.cpu() for name, tensor in state.items()} for key, state in states.items()}
        number = "latest" if current_iter == -1 else current_iter
        path = osp.join(self.opt["path"]["models"], f"{net_label}_{number}.pth")
        stated = self.describe_network(nets[-1], net_label)
        checkpoint.write(path, states, stated, hint=train_state.AFTER_A_FULL_DISK)

    def describe_network(self, net: torch.nn.Module, net_label: str) -> Metadata:
        """What the file of a network states of it."""
        start = self.started_from.get(net_label, Metadata())
        faces = self.opt["datasets"]["train"]
        conventions = {}
        if net_label == "net_g" and self.restores:
            conventions = {
                "value_range": tuple(self.value_range),
                "task": getattr(resolve("dataset", faces["type"]), "task", "restore"),
                "template": faces.get("template") or start.conventions.get("template", Conventions.template),
                "alpha": start.conventions.get("alpha", Conventions.alpha),
            }
        facts = {"title": self.opt["name"], "license": start.license, "data": faces.get("name") or start.data}
        return checkpoint.describe(self.get_bare_model(net), conventions=conventions, **facts)

    def save_training_state(self, epoch: int, current_iter: int) -> None:
        """Write what resume needs besides the networks, then prune old checkpoints. Call it on every rank."""
        self.last_state = {
            "epoch": epoch,
            "iter": current_iter,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "optimizer_classes": train_state.class_names(self.optimizers),
            "schedulers": [scheduler.state_dict() for scheduler in self.schedulers],
            "best_metric_results": train_state.to_builtin(getattr(self, "best_metric_results", {})),
            "sampler": batch_index(),
            "random": all_gather_object(train_state.rng_state()),
            "options": self.recorded,
            **self.extra_state(),
        }
        self._write_last_state()

    @master_only
    def _write_last_state(self) -> None:
        self.last_state["validations"] = self.validations
        train_state.write_state(self.opt["path"], self.last_state)
        train_state.prune_checkpoints(self.opt["path"], self.last_state["iter"], *self._kept_checkpoints())
        self.validations = train_state.validations_on_disk(self.opt["path"], self.validations)

    @property
    def _keeps_best(self) -> bool:
        return bool((self.opt.get("logger") or {}).get("keep_best"))

    def _kept_checkpoints(self) -> tuple[int | None, set[int]]:
        """How many of the last checkpoints stay, and the iterations of the best."""
        logger, metrics = self.opt["logger"], (self.opt.get("val") or {}).get("metrics") or {}
        return logger.get("keep_last"), train_state.best_iterations(
            self.validations, metrics, logger.get("keep_best") or 0
        )

    def extra_state(self) -> dict:
        """Further entries of the training state. Every rank has to call this."""
        return {"last_r1": float(self.last_r1), "guard": self.guard.state_dict()}

    def resume_training(self, resume_state: dict) -> None:
        """Restore a training state, but use changed settings of the option file. CheckpointError: of another model."""
        path = self.opt["path"].get("resume_state")
        train_state.check_complete(resume_state, path, self.extra_state())
        held = resume_state.get("options", self.recorded)  # states of earlier versions have none
        changes = changes_between(held, self.recorded)
        self._check_unfinished(resume_state["iter"], changes)
        applied = load_optimizers(
            resume_state,
            self.optimizers,
            self.schedulers,
            lambda: self._advance_schedules(resume_state["iter"]),
            where=f"path:resume_state: {path}",
            same_warmup=held["train"]["warmup_iter"] == self.settings.warmup_iter,
        )
        for change in changes if "options" in resume_state else applied:
            get_root_logger().warning(f"The option file was changed since the state was saved: {change}")
        self.last_state = resume_state  # an interrupted validation is added to it
        self.validations = resume_state.get("validations", {})
        if self.opt["rank"] == 0:
            train_state.finish_interrupted_save(self.opt["path"], resume_state["iter"], *self._kept_checkpoints())
        metrics = (self.opt.get("val") or {}).get("metrics") or {}
        self.best_metric_results = train_state.best_iteration(resume_state["best_metric_results"], metrics)
        self.last_r1 = torch.tensor(resume_state["last_r1"], device=self.device)
        self.guard.load_state_dict(resume_state["guard"])
        train_state.restore_rng_states(resume_state["random"], self.opt["rank"], self.opt["world_size"])

    def _check_unfinished(self, iteration: int, changes: Sequence[Change]) -> None:
        """OptionError: the training has ended, so that the changed options would have no effect."""
        changed = [each for each in changes if not each.key.startswith(("val:", "datasets:val", "train:total_iter"))]
        if changed and iteration >= self.settings.total_iter:
            got = f"{self.opt['name']} has ended at iteration {iteration} with other options: {changed[0]}"
            got += f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            hint = "Give the run another name, or raise train:total_iter to continue it."
            raise OptionError("resumed run", got, "the options that it was trained with", hint)

    def _advance_schedules(self, iteration: int) -> None:
        """Step new schedulers to an iteration."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # no optimizer steps in between
            for i in range(1, iteration + 1):
                self.update_learning_rate(i, warmup_iter=self.settings.warmup_iter)
