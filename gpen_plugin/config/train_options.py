"""The sections of an option file as dataclasses: their fields are the schema, under the host's names."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from typing import Literal

import torch

from gpen_plugin.config.imports import import_module_of
from gpen_plugin.config.schema import build, one_line, unknown_key
from gpen_plugin.errors import GPENError, OptionError


def at_least_one(options: object, *names: str, unit: str = "iterations") -> None:
    """Raise an `OptionError` unless each of these fields is 1 or more."""
    for name in names:
        if getattr(options, name) < 1:
            raise OptionError(name, f"got {getattr(options, name)}", f"1 or more {unit}", "Count in " + unit + ".")


ADAN_PACKAGES = ("adan", "adan_pytorch")  # of its authors, and of lucidrains


def optimizer_class(name: str) -> type[torch.optim.Optimizer]:
    """A class of torch.optim, ``Adan`` of an installed package, or ``module.Class``. OptionError: there is none."""
    found = getattr(torch.optim, name, None)
    if inspect.isclass(found) and issubclass(found, torch.optim.Optimizer):
        return found
    module, _, attribute = name.rpartition(".")
    if module:
        with suppress(AttributeError):
            return getattr(import_module_of(module, "type"), attribute)
    for package in ADAN_PACKAGES if name == "Adan" else ():
        with suppress(ImportError, AttributeError):
            return getattr(import_module(package), attribute)
    hint = "Run: pip install adan-pytorch." if name == "Adan" else "AdamW and SGD are of torch.optim."
    raise OptionError("type", f"got {name!r}", "an optimizer of torch.optim, Adan if installed, or module.Class", hint)


class OptimizerOptions:
    """An optimizer: ``train:optim_g`` and ``train:optim_d``. Further keys are arguments of its class."""

    def __init__(
        self,
        # optimizer: a class of torch.optim such as `AdamW`; `Adan`, if its package is installed; or `module.Class`. The
        # paper's is Adam
        type: str = "Adam",
        lr: float = 0.002,  # learning rate; 0.002 in the paper and in StyleGAN2
        # betas of the optimizer. ~: 0 and 0.99, StyleGAN2's, where it has two; the paper does not give them
        betas: Sequence[float] | None = None,
        **arguments: object,  # further arguments of the class
    ):
        known = inspect.signature(optimizer_class(type)).parameters
        if betas is None and "betas" in known and len(known["betas"].default) == 2:
            betas = (0.0, 0.99)
        if betas is not None:
            betas = tuple(float(beta) for beta in betas)  # Adam takes no whole numbers
            if not all(0 <= beta < 1 for beta in betas):
                raise OptionError("betas", f"got {list(betas)}", "numbers from 0 up to 1", "Try [0, 0.99].")
            arguments["betas"] = betas
        if lr <= 0:
            raise OptionError("lr", f"got {lr}", "a rate above 0", "The paper's is 0.002.")
        for key in arguments:
            if key not in known or key == "params":
                raise unknown_key(key, [name for name in known if name != "params"], "")
        self.type, self.lr, self.arguments = type, lr, arguments

    def for_lazy(self, every: int, lr: float | None = None) -> dict[str, float | tuple[float, ...]]:
        """Rate and betas of StyleGAN2's correction: a penalty at every k-th step adds one step in k (appendix B).

        Args:
            every: k.
            lr: the rate to correct, where it is not `self.lr`.
        """
        ratio = every / (every + 1)
        corrected = {"lr": (self.lr if lr is None else lr) * ratio}
        if "betas" in self.arguments:
            corrected["betas"] = tuple(beta**ratio for beta in self.arguments["betas"])
        return corrected


PARTS = ("encoder", "decoder", "discriminator")


class OptimOptions(OptimizerOptions):
    """``train:optim``: one optimizer with a group per part of the networks (paper, section 4.2)."""

    def __init__(
        self,
        type: str = "Adam",
        lr: float = 0.002,  # learning rate of the encoder; 0.002 in the paper
        betas: Sequence[float] | None = None,
        # learning rates of encoder : decoder : discriminator; 100 : 10 : 1 in the paper. Parameters of a `network_g` of
        # your own outside encoder and decoder need a rate by the name of their module:
        # `{encoder: 100, decoder: 10, discriminator: 1, head: 50}`
        lr_ratio: Sequence[float] | Mapping = (100, 10, 1),
        # StyleGAN2's correction for lazy R1: with a penalty at every k-th step and c = k / (k + 1), multiply the
        # discriminator's rate by c and raise its betas to the power c. Off by default, so that the log shows the ratio
        # above
        lazy_lr_scaling: bool = False,
        **arguments: object,  # further arguments of the class
    ):
        super().__init__(type, lr, betas, **arguments)
        ratio = dict(lr_ratio) if isinstance(lr_ratio, Mapping) else dict(zip(PARTS, lr_ratio, strict=False))
        listed = isinstance(lr_ratio, Mapping) or len(lr_ratio) == len(PARTS)
        numbers = all(isinstance(part, int | float) and part >= 0 for part in ratio.values())
        if not (listed and {*PARTS} <= {*ratio} and numbers and ratio["encoder"]):
            raise OptionError(
                "lr_ratio",
                f"got {ratio if isinstance(lr_ratio, Mapping) else list(lr_ratio)}",
                "three numbers, encoder : decoder : discriminator, none below 0 and the first above it",
                "The paper's is [100, 10, 1].",
            )
        self.lr_ratio, self.lazy_lr_scaling = ratio, lazy_lr_scaling

    def rates(self) -> dict[str, float]:
        """Learning rates by part: encoder, decoder, discriminator, and modules of a network of the user's."""
        return {name: self.lr * part / self.lr_ratio["encoder"] for name, part in self.lr_ratio.items()}


@dataclass(frozen=True, kw_only=True)
class AdversarialOptions:
    """What ``train:`` holds in both stages."""

    total_iter: int  # iterations of the whole training
    # learning-rate scheduler with its keys, for all groups of the optimizers; it steps at each iteration. BasicSR's;
    # torch's StepLR, ExponentialLR, CosineAnnealingLR, CosineAnnealingWarmRestarts, ConstantLR, LinearLR, PolynomialLR;
    # or `LinearDecayLR` with `start` and `end`, between which the rates fall to 0
    scheduler: Mapping
    gan_opt: Mapping  # adversarial loss L_A (Eq. 1): BasicSR's GANLoss with `gan_type: wgan_softplus`
    warmup_iter: int = -1  # iterations of BasicSR's linear warm-up; -1 for none. After it the rate is the scheduler's
    # images per forward and backward pass of a rank: the gradients of a batch are added up over its parts, with the
    # memory of one part. ~: the whole batch. D's minibatch deviation is taken within a part
    micro_batch: int | None = None
    # gradient checkpointing: compute the features inside each block of G and D again in the backward pass, instead of
    # storing them: less memory, more time. The same gradients
    gradient_checkpointing: bool = False
    # largest norm of the gradients of a step of G or D; larger ones are scaled down to it. ~: no limit
    max_grad_norm: float | None = None
    # warm-up of the averaged generator: the half-life is at most this fraction of the images so far; 0.05 in
    # StyleGAN2-ADA. It needs `ema_half_life`. ~: none
    ema_rampup: float | None = None
    r1_reg_weight: float = 10.0  # weight gamma of StyleGAN2's R1 penalty; 0 for none
    net_d_reg_every: int = 16  # interval of R1 in iterations, by which its weight is multiplied
    # precision of the networks' forward passes: `fp32`, or `bf16` for bfloat16 where it does no harm. Weights, losses,
    # R1 and path length stay in single precision
    precision: Literal["fp32", "bf16"] = "fp32"
    # backend of torch.compile, such as `inductor`; ~ for none. R1 and path length run uncompiled
    compile: str | None = None
    # use only operations that give the same bits each time, on a GPU, too (torch.use_deterministic_algorithms, without
    # cuDNN's benchmark). Slower; an operation that has no such form is an error
    deterministic: bool = False
    # number of steps in a row with a loss or gradient that is not finite after which the training ends; such steps are
    # skipped. 0 never ends it
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
        if self.micro_batch is not None:
            at_least_one(self, "micro_batch", unit="images")
        for name in ("max_grad_norm", "ema_rampup"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise OptionError(name, f"got {value:g}", "a number above 0, or ~", "Write ~ for none.")
        if self.nonfinite_patience < 0:
            raise OptionError("nonfinite_patience", f"got {self.nonfinite_patience}", "0 or more steps", "Try 10.")
        if self.compile is not None:
            known = torch.compiler.list_backends(exclude_tags=())
            if self.compile not in known:
                expected = "~ or a backend of torch.compile, such as inductor or aot_eager"
                raise OptionError("compile", f"got {self.compile!r}", expected, "inductor is the usual one.")


@dataclass(frozen=True, kw_only=True)
class LossOptions:
    """An entry of ``train:losses``. Its other keys are the arguments of the class that `type` names."""

    type: str  # a registered loss: of this package, of BasicSR or your own
    # factor of what the loss returns. A class that takes `weight` itself gets it instead
    weight: float = 1.0
    # what the loss gets: `pixel` (output, ground truth), images (N, 3, H, W); `feature` the discriminator's features of
    # both: layer by layer, the results are added up, or, if the class has the attribute `on = "feature"`, as two lists;
    # `output` the output alone, as for a total variation. ~: by the class's attribute `on`, else `output` if its
    # `forward` requires one input, else `pixel`
    on: Literal["pixel", "feature", "output"] | None = None
    # name in the log: `l_g_NAME` and `share_NAME`. ~: `type` in lower case without "Loss"
    name: str | None = None
    # lowest and highest value of the images that the loss gets. ~: the class's attribute `value_range`, else the
    # generator's, [-1, 1]
    value_range: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class GeneratorOptions(AdversarialOptions):
    """Losses of G besides L_A, and its average, of `GPENModel` and `RestorationGANModel`.

    Losses get images in G's range, [-1, 1].
    """

    pixel_opt: Mapping | None = None  # loss of the images, such as BasicSR's L1Loss; the paper's L_C (Eq. 3). ~: none
    # BasicSR's PerceptualLoss, on VGG-19, with `range_norm: true` for images in [-1, 1]; ~ for none. Logged as
    # `l_g_percep` and `l_g_style`
    perceptual_opt: Mapping | None = None
    # loss of the discriminator's features, see `DiscriminatorFeatureMatchingLoss`; the paper's L_F (Eq. 2). ~: none
    feature_matching_opt: Mapping | None = None
    # loss of the heat maps of landmarks, see `HeatmapLoss`; ~ for none. It gets images in [0, 1]
    heatmap_opt: Mapping | None = None
    # loss of the embeddings of faces, see `IdentityLoss`; ~ for none. It gets images in [0, 1]
    identity_opt: Mapping | None = None
    # GFPGAN's form of an `identity_opt`: the weight, with the top level's `network_identity` and
    # `path: pretrain_network_identity`
    identity_weight: float | None = None
    L1_opt: Mapping | None = None  # GFPGAN's loss of two embeddings; ~ for one minus their cosine
    losses: Sequence[Mapping] | None = None  # any number of further losses, see `LossOptions`
    # decay per iteration of the averaged generator, which is validated and saved as `params_ema`; 0 to below 1.
    # ~: 0.999, or by `ema_half_life`
    ema_decay: float | None = None
    # the decay as the half-life of a network's weight in the average, in images over all ranks; 10000 in StyleGAN2.
    # ~: `ema_decay` counts
    ema_half_life: float | None = None

    def __post_init__(self):
        super().__post_init__()
        check_ema(self)


@dataclass(frozen=True, kw_only=True)
class TrainOptions(GeneratorOptions):
    """``train:`` of an option file with ``model_type: GPENModel``."""

    optim: Mapping  # optimizers, see `OptimOptions`
    freeze_decoder: bool = False  # train only the encoder and keep the embedded prior as it is (GPEN-w/o-ft, Table 1)


def check_ema(options: GeneratorOptions) -> None:
    """Raise an `OptionError` unless the average is defined by one of decay and half-life."""
    decay, half_life = options.ema_decay, options.ema_half_life
    if decay is not None and not 0 <= decay < 1:
        raise OptionError("ema_decay", f"got {decay}", "a number from 0 up to 1", "Try 0.999.")
    if half_life is not None:
        at_least_one(options, "ema_half_life", unit="images")
        if decay is not None:
            raise OptionError("ema_half_life", "given beside ema_decay", "one of the two", "Remove one of them.")
    elif options.ema_rampup is not None:
        raise OptionError("ema_rampup", "given without ema_half_life", "both", "Give ema_half_life: 10000.")


@dataclass(frozen=True, kw_only=True)
class RestorationOptions(GeneratorOptions):
    """``train:`` of an option file with ``model_type: RestorationGANModel``: the methods that GPEN is compared with."""

    optim_g: Mapping  # optimizer of the generator, see `OptimizerOptions`
    optim_d: Mapping  # optimizer of the discriminator, see `OptimizerOptions`
    # adversarial loss: BasicSR's GANLoss with `gan_type` `lsgan`, `hinge`, `vanilla`, `wgan` or `wgan_softplus`. The
    # losses of the discriminator's scales are added up
    gan_opt: Mapping
    conditional_d: bool = False  # give the discriminator the degraded image as well, in the first three channels
    gp_weight: float = 0.0  # weight lambda of WGAN-GP's gradient penalty (10 in its paper); 0 for none
    # number of first iterations on `pixel_opt` and `perceptual_opt` only, without a discriminator
    content_only_iter: int = 0
    # modules of the generator by name, with the number of first iterations in which they do not learn, e.g.
    # `{model: 50000}` for the global generator of a Pix2PixHD with its enhancer
    freeze_iter: Mapping = field(default_factory=dict)
    r1_reg_weight: float = 0.0  # weight gamma of R1, at every `net_d_reg_every`-th iteration; 0 for none

    def __post_init__(self):
        super().__post_init__()
        if self.gp_weight < 0:
            raise OptionError("gp_weight", f"got {self.gp_weight}", "0 or more", "WGAN-GP's is 10.")
        if self.content_only_iter < 0:
            raise OptionError("content_only_iter", f"got {self.content_only_iter}", "0 or more iterations")
        if not all(isinstance(count, int) and count >= 0 for count in self.freeze_iter.values()):
            expected = "modules with numbers of iterations"
            raise OptionError("freeze_iter", f"got {dict(self.freeze_iter)}", expected, "Write e.g. {model: 50000}.")
        if self.content_only_iter and not (self.pixel_opt or self.perceptual_opt):
            got = f"got {self.content_only_iter}, but neither pixel_opt nor perceptual_opt is given"
            raise OptionError("content_only_iter", got, "a loss to train on", "Give pixel_opt, or set it to 0.")


@dataclass(frozen=True, kw_only=True)
class PriorTrainOptions(AdversarialOptions):
    """``train:`` of an option file with ``model_type: GPENPriorModel``: StyleGAN2's training (its section 4).

    The mapping network's lower rate is ``network_g: lr_mlp``.
    """

    optim_g: Mapping  # optimizer of the generator, see `OptimizerOptions`
    optim_d: Mapping  # optimizer of the discriminator, see `OptimizerOptions`
    lazy_lr_scaling: bool = True  # StyleGAN2's correction of learning rates and betas for lazy regularization
    mixing_prob: float = 0.9  # fraction of the samples whose style is mixed from two codes, 0 to 1
    path_reg_weight: float = 2.0  # weight of the path length penalty; 0 for none
    net_g_reg_every: int = 4  # interval of the path length penalty in iterations, by which its weight is multiplied
    path_batch_shrink: int = 2  # divisor of the batch size for the path length penalty, to save memory
    ema_half_life: float = 10000  # half-life of a network's weight in the average, in images over all ranks
    augment_opt: Mapping | None = None  # adaptive augmentation, see `AugmentOptions`; ~ for none

    def __post_init__(self):
        super().__post_init__()
        at_least_one(self, "net_g_reg_every")
        at_least_one(self, "path_batch_shrink", unit="times fewer images")
        at_least_one(self, "ema_half_life", unit="images")
        if not 0 <= self.mixing_prob <= 1:
            raise OptionError("mixing_prob", f"got {self.mixing_prob}", "a number from 0 to 1", "StyleGAN2's is 0.9.")


@dataclass(frozen=True)
class MultiStepOptions:
    """Keys of the host's MultiStepRestartLR, in iterations."""

    milestones: Sequence[float]
    gamma: float = 0.1
    restarts: Sequence[float] = (0,)
    restart_weights: Sequence[float] = (1,)


@dataclass(frozen=True)
class CosineOptions:
    """Keys of the host's CosineAnnealingRestartLR, in iterations."""

    periods: Sequence[float]
    restart_weights: Sequence[float] = (1,)
    eta_min: float = 0


@dataclass(frozen=True)
class LinearDecayOptions:
    """Keys of our LinearDecayLR, in iterations."""

    start: int
    end: int


@dataclass(frozen=True)
class ValOptions:
    """``val:``: the host's keys, and the size of the image grid."""

    save_img: bool  # write every restored image to disk, as BasicSR does
    val_freq: int = 5000  # iterations between validations
    suffix: str | None = None  # suffix of the names of those images when testing
    pbar: bool = False  # show a progress bar
    metrics: Mapping | None = None  # metrics in BasicSR's form: name -> {type, ..., better}
    grid_images: int = 8  # rows of the grid LQ | restored | GT on disk and in TensorBoard; 0 for none

    def __post_init__(self):
        at_least_one(self, "val_freq")
        if self.grid_images < 0:
            raise OptionError("grid_images", f"got {self.grid_images}", "0 or more images", "0 writes no page.")


@dataclass(frozen=True)
class PriorValOptions(ValOptions):
    """``val:`` of a prior's training."""

    grid_images: int = 16  # samples in each panel of the grid raw | average | average, truncated; 0 for none
    # truncation of the third panel: 1 leaves the latent codes as they are, 0 replaces them by their mean
    truncation: float = 0.7

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.truncation <= 1:
            raise OptionError("truncation", f"got {self.truncation}", "a number from 0 to 1", "StyleGAN's is 0.7.")


@dataclass(frozen=True)
class LoggerOptions:
    """``logger:``: the host's keys, and how many checkpoints are kept."""

    print_freq: int  # iterations between lines of the log
    save_checkpoint_freq: int  # iterations between checkpoints: networks and training state
    use_tb_logger: bool  # write TensorBoard files
    wandb: Mapping | None = None  # BasicSR's section for Weights & Biases
    keep_last: int | None = None  # number of checkpoints to keep; a complete new one replaces the oldest. ~ keeps all
    # number of checkpoints to keep besides, of each metric of `val` on each data set those with the best values. A
    # checkpoint counts if it was validated in its iteration, since this key is set
    keep_best: int | None = None
    profile: Mapping | None = None  # profile some iterations, see `ProfileOptions`; ~ for none

    def __post_init__(self):
        at_least_one(self, "print_freq", "save_checkpoint_freq")
        for name in ("keep_last", "keep_best"):
            if getattr(self, name) is not None:
                at_least_one(self, name, unit="checkpoints")
        if self.keep_best is not None and self.keep_last is None:
            raise OptionError("keep_best", "given without keep_last", "both", "Without keep_last nothing is deleted.")
        if self.profile is not None:
            build(ProfileOptions, self.profile, "profile")
        known, wandb = ("project", "resume_id"), self.wandb or {}
        for key in wandb:
            if key not in known:
                raise unknown_key(key, known, "wandb")
        if wandb.get("resume_id") and not wandb.get("project"):
            raise OptionError("wandb:project", "missing, and resume_id is given", "the name of a project", "Name it.")


@dataclass(frozen=True)
class ProfileOptions:
    """``logger:profile``: a trace of some iterations in ``experiments/NAME/profile``, by torch.profiler."""

    start: int = 10  # the first of these iterations, from 2
    iterations: int = 5  # how many; a trace of one has some megabytes

    def __post_init__(self):
        at_least_one(self, "iterations")
        if self.start < 2:
            raise OptionError("start", f"got {self.start}", "2 or more", "The first iteration is not like the others.")


def check_loggers(opt: Mapping) -> Iterator[GPENError]:
    """Packages for TensorBoard and Weights & Biases, which BasicSR imports after it has created the experiment."""
    section = opt.get("logger")
    if not opt["is_train"] or not isinstance(section, Mapping) or "debug" in str(opt.get("name")):
        return
    uses_tensorboard, wandb = section.get("use_tb_logger"), section.get("wandb")
    if isinstance(wandb, Mapping) and wandb.get("project") is not None:
        if uses_tensorboard is not True:
            expected = "true, as wandb receives what TensorBoard's files hold"
            hint = "Set it to true, or logger:wandb:project to ~."
            yield OptionError("logger:use_tb_logger", f"got {uses_tensorboard}", expected, hint)
        yield from _importable("wandb", "init", "logger:wandb:project", "wandb")
    if uses_tensorboard:
        yield from _importable("torch.utils.tensorboard", "SummaryWriter", "logger:use_tb_logger", "tensorboard")


def _importable(module: str, attribute: str, where: str, package: str) -> Iterator[GPENError]:
    try:
        getattr(__import__(module, fromlist=[attribute]), attribute)  # a folder of that name has no attributes
    except Exception as error:  # of any kind: a broken installation
        got = f"{module} cannot be imported ({one_line(error)})"
        yield OptionError(where, got, f"the package {package}", f"Run: pip install {package}. Or switch it off.")


@dataclass(frozen=True)
class PathOptions:
    """``path:``: the host's keys, and the prior's."""

    pretrain_prior: str | None = None  # weights of a `GPENPrior` in any layout, for the decoder of a new `GPEN`
    param_key_prior: str | None = None  # entry of that file; ~ takes the averaged weights
    pretrain_network_g: str | None = None  # weights of the generator
    param_key_g: str | None = "params"  # entry of that file; ~ for a flat file
    strict_load_g: bool = True  # require that the names and shapes of all its tensors match
    pretrain_network_d: str | None = None  # weights of the discriminator
    param_key_d: str | None = "params"  # entry of that file; ~ for a flat file
    strict_load_d: bool = True  # require that the names and shapes of all its tensors match
    pretrain_network_identity: str | None = None  # weights of `network_identity`; ~ searches for arcface_resnet18.pth
    resume_state: str | None = None  # training state (`.state`) to resume from
    # networks that do not load their weights on resume, e.g. [network_d]
    ignore_resume_networks: Sequence[str] | None = None
    experiments_root: str | None = None  # folder of the runs, `experiments` by default; BasicSR 1.4.2 ignores it
    results_root: str | None = None  # folder of test results, `results` by default; BasicSR 1.4.2 ignores it


@dataclass(frozen=True)
class FileOptions:
    """The top level of an option file with a model of ours: the host's keys."""

    name: str  # name of the run and of its folder
    # `GPENModel`, `GPENPriorModel`, `RestorationGANModel` or a class derived from one
    model_type: str
    num_gpu: int | Literal["auto"]  # number of GPUs: `auto` for all that are visible, 0 for the CPU
    datasets: Mapping  # `train` and `val`; for a test, any number of sets
    network_g: Mapping  # type and arguments of the generator
    path: Mapping  # weights to start from
    # the user's modules, whose classes the file names: names of modules, or paths from the folder of the file
    imports: Sequence[str] | None = None
    scale: int = 1  # always 1; BasicSR requires the key
    manual_seed: int | None = None  # seed of all random numbers; ~ samples one
    network_d: Mapping | None = None  # type and arguments of the discriminator (training only)
    # GFPGAN's recognition network, for `train: identity_weight`: type and arguments. Images are gray, of 128 px
    network_identity: Mapping | None = None
    train: Mapping | None = None  # losses, learning rates and schedule (training only)
    val: Mapping | None = None  # validation
    logger: Mapping | None = None  # log and checkpoints (training only)
    dist_params: Mapping | None = None  # `backend` and `port` of a distributed run
    # always false, for DistributedDataParallel: no parameter is unused, and to look would cut the graph of path length
    find_unused_parameters: Literal[False] = False
