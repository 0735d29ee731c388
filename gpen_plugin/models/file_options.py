"""The sections of an option file beside ``train:``, as data classes: their fields are the schema.

The names are the host's wherever the host has one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from gpen_plugin.errors import OptionError
from gpen_plugin.models.train_options import at_least_one


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
        at_least_one(self, "val_freq")
        if self.grid_images < 0:
            raise OptionError("grid_images", f"got {self.grid_images}", "0 or more pictures", "0 writes no page.")


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
    """The top level of an option file with a model of ours: the host's keys."""

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
