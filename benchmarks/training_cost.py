"""How long a training would take on machines that are not here: operations of its option file over a measured rate.

    python benchmarks/training_cost.py -opt options/gpen_prior_1024.yml options/gpen_finetune.yml --rate 2e13 --gpus 1 8

``--rate`` is what one GPU achieves in a training like this, in operations (a multiply-add as two) a second: not what is
printed on it. No network is run; the estimate leaves out communication, data and validation.
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import yaml
from measure import flop_of

from gpen_plugin.archs.gan_prior_arch import GPENPrior
from gpen_plugin.archs.gpen_arch import GPEN
from gpen_plugin.archs.gpen_discriminator_arch import GPENDiscriminator

NETWORKS = {"GPEN": GPEN, "GPENPrior": GPENPrior, "GPENDiscriminator": GPENDiscriminator}


@dataclass(frozen=True)
class Cost:
    """What a training does.

    Attributes:
        images: it is shown, the iterations of the option file times its batch on one GPU.
        per_image: operations for one of them.
        parameters: of G and D, whose gradients GPUs exchange at each iteration.
    """

    images: int
    per_image: float
    parameters: int

    def hours(self, rate: float, gpus: int = 1) -> float:
        """Hours on so many GPUs that achieve `rate` operations a second each."""
        return self.images * self.per_image / rate / gpus / 3600


def cost_of(opt: dict) -> Cost:
    """The cost of a training, from its option file.

    A backward pass costs a forward pass for the features and one for the weights. In fine-tuning G runs forward, and
    back for both; D runs forward twice, back for both twice, and back to the images once. In a prior's training D
    evaluates two sets of fakes, the first of which needs no backward pass through G. R1 runs D forward, back to the
    images, back through that, and back for both; path length does the same with G on a part of the batch.
    """
    with torch.device("meta"):
        net_g, net_d = (NETWORKS[opt[name]["type"]](**_arguments(opt[name])) for name in ("network_g", "network_d"))
        size = opt["network_d"]["out_size"]
        image, code = torch.zeros(1, 3, size, size), torch.zeros(1, opt["network_g"].get("num_style_feat", 512))
        is_prior = isinstance(net_g, GPENPrior)
        of_g = flop_of(lambda: net_g(code if is_prior else image))
        of_d = flop_of(lambda: net_d(image))
    train = opt["train"]
    per_image = 4 * of_g + 8 * of_d if is_prior else 3 * of_g + 7 * of_d
    per_image += 6 * of_d / train["net_d_reg_every"]
    if is_prior and train.get("path_reg_weight"):
        per_image += 6 * of_g / train["net_g_reg_every"] / train.get("path_batch_shrink", 1)
    images = train["total_iter"] * opt["datasets"]["train"]["batch_size_per_gpu"]
    return Cost(images, per_image, sum(p.numel() for net in (net_g, net_d) for p in net.parameters()))


def _arguments(section: dict) -> dict:
    return {key: value for key, value in section.items() if key != "type"}


def main() -> None:
    """Print a line per option file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-opt", type=Path, nargs="+", required=True, metavar="FILE", help="option files of trainings")
    parser.add_argument("--rate", type=float, required=True, help="operations a second that one GPU achieves")
    parser.add_argument("--gpus", type=int, nargs="+", default=[1], help="numbers of GPUs (default 1)")
    parser.add_argument(
        "--images", type=float, metavar="N", help="shown images (default: the file's iterations by one GPU's batch)"
    )
    options = parser.parse_args()
    for file in options.opt:
        opt = yaml.safe_load(file.read_text())
        if "network_g" not in opt:
            parser.error(f"{file} is no training: it has no network_g. Name the option file of one training.")
        cost = cost_of(opt)
        if options.images:
            cost = replace(cost, images=round(options.images))
        hours = ", ".join(f"{cost.hours(options.rate, gpus):,.1f} h on {gpus}" for gpus in options.gpus)
        print(
            f"{file}: {cost.images / 1e6:.2f} M images, {cost.per_image / 1e12:.3g} Tera operations each, "
            f"{cost.parameters / 1e6:.1f} M parameters: {hours}"
        )


if __name__ == "__main__":
    main()
