"""The keys of an option file that `GPENModel` reads, as data classes: their fields are the schema.

The names are the host's wherever the host has one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from gpen_plugin.errors import OptionError


def _at_least_one(options: object, *names: str) -> None:
    for name in names:
        if getattr(options, name) < 1:
            raise OptionError(name, f"got {getattr(options, name)}", "a whole number from 1", "Count in iterations.")


@dataclass(frozen=True)
class OptimOptions:
    """``train:optim``: one Adam with three groups (paper, section 4.2).

    Attributes:
        type: the optimiser; the paper's is Adam.
        lr: base rate: that of the encoder. The paper's is 0.002.
        lr_ratio: encoder : decoder : discriminator. The paper's is 100 : 10 : 1.
        betas: Adam's; StyleGAN2's are 0 and 0.99, the paper names none.
        eps: Adam's.
        lazy_lr_scaling: StyleGAN2's correction for lazy R1, c = k / (k + 1) for a penalty at every k-th step: the
            discriminator's rate is multiplied by c, its betas are raised to the power c. Off, so that the ratio
            above is what the log shows.
    """

    type: Literal["Adam"] = "Adam"
    lr: float = 0.002
    lr_ratio: tuple[float, float, float] = (100, 10, 1)
    betas: tuple[float, float] = (0.0, 0.99)
    eps: float = 1e-8
    lazy_lr_scaling: bool = False

    def __post_init__(self):
        if len(self.lr_ratio) != 3 or any(part < 0 for part in self.lr_ratio) or not self.lr_ratio[0]:
            raise OptionError(
                "lr_ratio",
                f"got {list(self.lr_ratio)}",
                "three numbers, encoder : decoder : discriminator, none below 0 and the first above it",
                "The paper's is [100, 10, 1].",
            )
        object.__setattr__(self, "betas", tuple(float(beta) for beta in self.betas))  # Adam takes no whole numbers
        if not all(0 <= beta < 1 for beta in self.betas):
            raise OptionError("betas", f"got {list(self.betas)}", "two numbers from 0 up to 1", "Try [0, 0.99].")
        if self.lr <= 0:
            raise OptionError("lr", f"got {self.lr}", "a rate above 0", "The paper's is 0.002.")

    def rates(self) -> tuple[float, float, float]:
        """Learning rates of encoder, decoder and discriminator."""
        first = self.lr_ratio[0]
        return tuple(self.lr * part / first for part in self.lr_ratio)


@dataclass(frozen=True)
class TrainOptions:
    """``train:`` of an option file with ``model_type: GPENModel``.

    Attributes:
        total_iter: iterations of the whole training.
        warmup_iter: iterations of the host's linear warm-up; -1 for none.
        ema_decay: of the averaged network that is validated and saved as ``params_ema``.
        optim: see `OptimOptions`.
        scheduler: one of the host's, with its own keys; it acts on all three groups.
        pixel_opt: content loss L_C, weight alpha (Eq. 3); ~ for none.
        gan_opt: adversarial loss L_A (Eq. 1): the host's GANLoss with ``gan_type: wgan_softplus``.
        feature_matching_opt: L_F (Eq. 2), weight beta; ~ for none.
        r1_reg_weight: gamma of StyleGAN2's R1 penalty; 0 for none.
        net_d_reg_every: R1 is computed at every so many iterations, with so many times the weight.
    """

    total_iter: int
    scheduler: Mapping
    gan_opt: Mapping
    optim: Mapping
    warmup_iter: int = -1
    ema_decay: float = 0.999
    pixel_opt: Mapping | None = None
    feature_matching_opt: Mapping | None = None
    r1_reg_weight: float = 10.0
    net_d_reg_every: int = 16

    def __post_init__(self):
        _at_least_one(self, "total_iter")
        if not 0 <= self.ema_decay < 1:
            raise OptionError("ema_decay", f"got {self.ema_decay}", "a number from 0 up to 1", "Try 0.999.")
        if self.net_d_reg_every < 1:
            raise OptionError(
                "net_d_reg_every",
                f"got {self.net_d_reg_every}",
                "a whole number from 1",
                "StyleGAN2's is 16; r1_reg_weight: 0 switches the penalty off.",
            )


@dataclass(frozen=True)
class ValOptions:
    """``val:``: the host's keys, and the size of the picture grid.

    Attributes:
        val_freq: iterations between validations.
        save_img: write every restored picture to disk, as the host does.
        suffix: of those pictures' names when testing.
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
        _at_least_one(self, "val_freq")


@dataclass(frozen=True)
class LoggerOptions:
    """``logger:``: the host's keys."""

    print_freq: int
    save_checkpoint_freq: int
    use_tb_logger: bool
    wandb: Mapping | None = None

    def __post_init__(self):
        _at_least_one(self, "print_freq", "save_checkpoint_freq")


@dataclass(frozen=True)
class PathOptions:
    """``path:``: the host's keys. Only names with pretrain_network, strict_load, resume or param_key are no folders."""

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
    """The top level of an option file with ``model_type: GPENModel``: the host's keys."""

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
    find_unused_parameters: bool = False
