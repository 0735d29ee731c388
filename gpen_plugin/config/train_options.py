"""The sections of an option file as dataclasses: their fields are the schema, under the host's names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from gpen_plugin.errors import OptionError


def at_least_one(options: object, *names: str, unit: str = "iterations") -> None:
    """Raise an `OptionError` unless each of these fields is 1 or more."""
    for name in names:
        if getattr(options, name) < 1:
            raise OptionError(name, f"got {getattr(options, name)}", f"1 or more {unit}", "Count in " + unit + ".")


@dataclass(frozen=True)
class AdamOptions:
    """An Adam: ``train:optim_g`` and ``train:optim_d`` of a prior.

    Attributes:
        type: the optimiser; the paper's is Adam.
        lr: the rate; the paper's and StyleGAN2's is 0.002.
        betas: StyleGAN2's are 0 and 0.99, the paper names none.
        eps: Adam's.
    """

    type: Literal["Adam"] = "Adam"
    lr: float = 0.002
    betas: tuple[float, float] = (0.0, 0.99)
    eps: float = 1e-8

    def __post_init__(self):
        object.__setattr__(self, "betas", tuple(float(beta) for beta in self.betas))  # Adam takes no whole numbers
        if not all(0 <= beta < 1 for beta in self.betas):
            raise OptionError("betas", f"got {list(self.betas)}", "two numbers from 0 up to 1", "Try [0, 0.99].")
        if self.lr <= 0:
            raise OptionError("lr", f"got {self.lr}", "a rate above 0", "The paper's is 0.002.")

    def for_lazy(self, every: int, lr: float | None = None) -> dict[str, float | tuple[float, float]]:
        """Rate and betas of StyleGAN2's correction: a penalty at every k-th step adds one step in k (appendix B).

        Args:
            every: k.
            lr: the rate to correct, where it is not `self.lr`.
        """
        share = every / (every + 1)
        return {"lr": (self.lr if lr is None else lr) * share, "betas": tuple(beta**share for beta in self.betas)}


@dataclass(frozen=True)
class OptimOptions(AdamOptions):
    """``train:optim``: one Adam with three groups (paper, section 4.2). The rate is that of the encoder.

    Attributes:
        lr_ratio: encoder : decoder : discriminator. The paper's is 100 : 10 : 1.
        lazy_lr_scaling: StyleGAN2's correction for lazy R1, c = k / (k + 1) for a penalty at every k-th step: the
            discriminator's rate is multiplied by c, its betas are raised to the power c. Off, so that the ratio
            above is what the log shows.
    """

    lr_ratio: tuple[float, float, float] = (100, 10, 1)
    lazy_lr_scaling: bool = False

    def __post_init__(self):
        if len(self.lr_ratio) != 3 or any(part < 0 for part in self.lr_ratio) or not self.lr_ratio[0]:
            raise OptionError(
                "lr_ratio",
                f"got {list(self.lr_ratio)}",
                "three numbers, encoder : decoder : discriminator, none below 0 and the first above it",
                "The paper's is [100, 10, 1].",
            )
        super().__post_init__()

    def rates(self) -> tuple[float, float, float]:
        """Learning rates of encoder, decoder and discriminator."""
        first = self.lr_ratio[0]
        return tuple(self.lr * part / first for part in self.lr_ratio)


@dataclass(frozen=True, kw_only=True)
class AdversarialOptions:
    """What ``train:`` holds in both stages.

    Attributes:
        total_iter: iterations of the whole training.
        warmup_iter: iterations of the host's linear warm-up; -1 for none.
        scheduler: one of the host's, with its own keys; it acts on all groups of the optimisers.
        gan_opt: adversarial loss L_A (Eq. 1): the host's GANLoss with ``gan_type: wgan_softplus``.
        r1_reg_weight: gamma of StyleGAN2's R1 penalty; 0 for none.
        net_d_reg_every: R1 is computed at every so many iterations, with so many times the weight.
        precision: of the networks' forward passes: ``fp32``, or ``bf16`` for bfloat16 where it does no harm. Weights,
            losses, R1 and path length stay in single precision.
        compile: ~, or a backend of torch.compile, such as ``inductor``. R1 and path length run uncompiled.
        nonfinite_patience: a step whose losses or gradients are not finite is left out; so many in a row end the
            training. 0 never does.
    """

    total_iter: int
    scheduler: Mapping
    gan_opt: Mapping
    warmup_iter: int = -1
    r1_reg_weight: float = 10.0
    net_d_reg_every: int = 16
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: str | None = None
    nonfinite_patience: int = 10

    def __post_init__(self):
        at_least_one(self, "total_iter")
        if self.net_d_reg_every < 1:
            raise OptionError(
                "net_d_reg_every",
                f"got {self.net_d_reg_every}",
                "a whole number from 1",
                "StyleGAN2's is 16; r1_reg_weight: 0 switches the penalty off.",
            )
        if self.nonfinite_patience < 0:
            raise OptionError("nonfinite_patience", f"got {self.nonfinite_patience}", "0 or more steps", "Try 10.")
        if self.compile is not None:
            known = torch.compiler.list_backends(exclude_tags=())
            if self.compile not in known:
                expected = "~ or a backend of torch.compile, such as inductor or aot_eager"
                raise OptionError("compile", f"got {self.compile!r}", expected, "inductor is the usual one.")


@dataclass(frozen=True, kw_only=True)
class TrainOptions(AdversarialOptions):
    """``train:`` of an option file with ``model_type: GPENModel``.

    Attributes:
        optim: see `OptimOptions`.
        ema_decay: of the averaged network that is validated and saved as ``params_ema``.
        pixel_opt: content loss L_C, weight alpha (Eq. 3); ~ for none.
        feature_matching_opt: L_F (Eq. 2), weight beta; ~ for none.
        freeze_decoder: whether the embedded prior stays as it is and only the encoder learns (GPEN-w/o-ft, Table 1).
    """

    optim: Mapping
    ema_decay: float = 0.999
    pixel_opt: Mapping | None = None
    feature_matching_opt: Mapping | None = None
    freeze_decoder: bool = False

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.ema_decay < 1:
            raise OptionError("ema_decay", f"got {self.ema_decay}", "a number from 0 up to 1", "Try 0.999.")


@dataclass(frozen=True, kw_only=True)
class PriorTrainOptions(AdversarialOptions):
    """``train:`` of an option file with ``model_type: GPENPriorModel``: StyleGAN2's training (its section 4).

    The mapping network's lower rate is ``network_g: lr_mlp``.

    Attributes:
        optim_g: see `AdamOptions`.
        optim_d: the same.
        lazy_lr_scaling: StyleGAN2's correction of rates and betas for lazy regularisation.
        mixing_prob: share of the samples whose style is mixed of two codes.
        path_reg_weight: weight of the path length penalty; 0 for none.
        net_g_reg_every: it is computed at every so many iterations, with so many times the weight.
        path_batch_shrink: on so many times fewer images, to save memory.
        ema_half_life: images, over all ranks, after which a network's part in the average is halved.
        augment_opt: see `Augmentation`; ~ for none.
    """

    optim_g: Mapping
    optim_d: Mapping
    lazy_lr_scaling: bool = True
    mixing_prob: float = 0.9
    path_reg_weight: float = 2.0
    net_g_reg_every: int = 4
    path_batch_shrink: int = 2
    ema_half_life: float = 10000
    augment_opt: Mapping | None = None

    def __post_init__(self):
        super().__post_init__()
        at_least_one(self, "net_g_reg_every")
        at_least_one(self, "path_batch_shrink", unit="times fewer images")
        at_least_one(self, "ema_half_life", unit="images")
        if not 0 <= self.mixing_prob <= 1:
            raise OptionError("mixing_prob", f"got {self.mixing_prob}", "a number from 0 to 1", "StyleGAN2's is 0.9.")


@dataclass(frozen=True)
class ValOptions:
    """``val:``: the host's keys, and the size of the image grid.

    Attributes:
        val_freq: iterations between validations.
        save_img: write every restored image to disk, as the host does.
        suffix: of those images' names when testing.
        pbar: show a progress bar.
        metrics: the host's: name -> {type, ..., better}.
        grid_images: rows of the grid LQ | restored | GT that is written to disk and TensorBoard; 0 for none.
    """

    save_img: bool
    val_freq: int = 5000
    suffix: str | None = None
    pbar: bool = False
    metrics: Mapping | None = None
    grid_images: int = 8

    def __post_init__(self):
        at_least_one(self, "val_freq")
        if self.grid_images < 0:
            raise OptionError("grid_images", f"got {self.grid_images}", "0 or more images", "0 writes no page.")


@dataclass(frozen=True)
class PriorValOptions(ValOptions):
    """``val:`` of a prior's training.

    Attributes:
        grid_images: samples in each panel of the grid raw | average | average, truncated; 0 for none.
        truncation: of the third panel: 1 leaves the latent code as it is, 0 gives its mean.
    """

    grid_images: int = 16
    truncation: float = 0.7

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.truncation <= 1:
            raise OptionError("truncation", f"got {self.truncation}", "a number from 0 to 1", "StyleGAN's is 0.7.")


@dataclass(frozen=True)
class LoggerOptions:
    """``logger:``: the host's keys, and how many checkpoints are kept.

    Attributes:
        print_freq: iterations between lines of the log.
        save_checkpoint_freq: iterations between checkpoints: networks and training state.
        use_tb_logger: whether TensorBoard's files are written.
        wandb: the host's.
        keep_last: checkpoints kept; older ones are deleted once a newer one is complete. ~ keeps all.
    """

    print_freq: int
    save_checkpoint_freq: int
    use_tb_logger: bool
    wandb: Mapping | None = None
    keep_last: int | None = None

    def __post_init__(self):
        at_least_one(self, "print_freq", "save_checkpoint_freq")
        if self.keep_last is not None:
            at_least_one(self, "keep_last", unit="checkpoints")


@dataclass(frozen=True)
class PathOptions:
    """``path:``: the host's keys, and the prior's.

    Attributes:
        pretrain_prior: a `GPENPrior` of any layout, which becomes the decoder of a new `GPEN`.
        param_key_prior: its entry of the file; ~ takes the averaged weights.
        pretrain_network_g: weights of the generator.
        param_key_g: entry of that file; ~ for a flat file.
        strict_load_g: whether names and shapes of all its tensors have to match.
        pretrain_network_d: weights of the discriminator.
        param_key_d: entry of that file; ~ for a flat file.
        strict_load_d: whether names and shapes of all its tensors have to match.
        resume_state: a training state (``.state``) to resume from.
        ignore_resume_networks: networks whose weights are not loaded on resume, e.g. [network_d].
        experiments_root: folder that holds the runs; ``experiments`` if left out. BasicSR 1.4.2 ignores it.
        results_root: folder that holds the results of tests; ``results`` if left out. BasicSR 1.4.2 ignores it.
    """

    pretrain_prior: str | None = None
    param_key_prior: str | None = None
    pretrain_network_g: str | None = None
    param_key_g: str | None = "params"
    strict_load_g: bool = True
    pretrain_network_d: str | None = None
    param_key_d: str | None = "params"
    strict_load_d: bool = True
    resume_state: str | None = None
    ignore_resume_networks: Sequence[str] | None = None
    experiments_root: str | None = None
    results_root: str | None = None


@dataclass(frozen=True)
class FileOptions:
    """The top level of an option file with a model of ours: the host's keys.

    Attributes:
        name: of the run, and of its folder.
        model_type: ``GPENModel``, ``GPENPriorModel`` or a class derived from one.
        num_gpu: GPUs to use: ``auto`` for all that are visible, 0 for the CPU.
        datasets: ``train`` and ``val``, or for a test any number of sets.
        network_g: the generator's ``type`` and arguments.
        path: weights to start from.
        scale: 1; the host wants the key.
        manual_seed: seed of everything random; ~ draws one.
        network_d: the discriminator's ``type`` and arguments; training only.
        train: losses, rates and schedule; training only.
        val: validation.
        logger: log and checkpoints; training only.
        dist_params: ``backend`` and ``port`` of a distributed run.
        find_unused_parameters: of DistributedDataParallel; no parameter is unused.
    """

    name: str
    model_type: str
    num_gpu: int | Literal["auto"]
    datasets: Mapping
    network_g: Mapping
    path: Mapping
    scale: int = 1
    manual_seed: int | None = None
    network_d: Mapping | None = None
    train: Mapping | None = None
    val: Mapping | None = None
    logger: Mapping | None = None
    dist_params: Mapping | None = None
    find_unused_parameters: Literal[False] = False  # none is unused; to look would cut the graph of path length
