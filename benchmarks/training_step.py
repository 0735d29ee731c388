"""Time and memory of a fine-tuning step, against a plain implementation.

    python benchmarks/training_step.py --threads 2
    python benchmarks/training_step.py --size 32

On a GPU: benchmarks/gpu.py. Ours is `GPENModel` as in options/gpen_finetune_256.yml up to 256 px, above as in
options/gpen_finetune_512.yml. The plain implementation is StyleGAN2's usual loop on the reference ops, in fp32: every
step generates its images and applies D to them. Both start from the same weights and use the same images; their
gradients are compared in fp32. R1, of every 16th iteration, is timed separately, and a sixteenth of its time is added.
"""

import argparse
import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import yaml
from measure import DTYPES, Comparison, check_close, compare, flop_of, in_another_process, parser, peak_memory, report
from torch.nn import functional as F

from gpen_plugin.losses import r1_penalty
from gpen_plugin.models import adversarial_model
from gpen_plugin.models.gan_steps import Part
from gpen_plugin.models.gpen_model import GPENModel
from gpen_plugin.ops import force_implementation

OPTIONS = Path(__file__).parents[1] / "options"
PLAIN = "the usual loop on the reference ops, fp32"
TARGETS = {"cpu": 2.0, "cuda": 4.0}
# In fp32 a feature near a kink of the leaky ReLU may get another sign, which moves the gradients of its layer: at 32 px
# by 2e-4 of the range, at 256 px by 2e-6. In float64 both agree to 1e-9 of it.
KINKS = 1e-3
LEFT_OUT = (
    "the weights' gradients of strided convolutions on contiguous features: 8 instead of 31 ms for 64 channels of "
    "257 px, 7 instead of 9 for 128 of 129 px, 14 instead of 15 for 64 of 256 px without stride, where the features "
    "have that layout already; in a training they would have to be copied (2026-11-30, two cores with AVX-512)",
)
USUAL = "The usual loop samples images and runs the discriminator anew in every step, and has torch's default Adam."


@dataclass(frozen=True)
class Setting:
    """What is trained: the size, the precision of ours, and the wanted ratio, if any."""

    size: int  # pixels, a power of two
    precision: str
    target: float | None = None
    narrow: float | None = None  # factor of the channels; None is the option file's

    @property
    def what(self) -> str:
        """In words."""
        return f"fine-tuning at {self.size} px, {self.precision}"


def model_of(size: int, device: str, narrow: float | None = None) -> GPENModel:
    """The model of the option file, all of whose weights are random, fed with one batch; see `Setting`.

    Noise weights and biases start at zero, and a leaky ReLU has no one slope there: they are moved away.
    """
    opt = yaml.safe_load((OPTIONS / f"gpen_finetune_{256 if size <= 256 else 512}.yml").read_text())
    for name in ("network_g", "network_d"):
        opt[name] |= {"out_size": size} | ({"narrow": narrow} if narrow else {})
    opt |= {"num_gpu": int(device == "cuda"), "is_train": True, "dist": False, "rank": 0, "world_size": 1}
    opt["path"] = {"pretrain_network_g": None}
    torch.manual_seed(0)
    model = GPENModel(opt)
    with torch.no_grad():
        for net in (model.net_g, model.net_d):
            for name, parameter in net.named_parameters():
                if name.endswith(("bias", "noise_weight")):
                    parameter.add_(0.1 * torch.randn_like(parameter))
    batch = opt["datasets"]["train"]["batch_size_per_gpu"]
    model.feed_data({name: torch.rand(batch, 3, size, size) * 2 - 1 for name in ("lq", "gt")})
    return model


def in_precision(model: GPENModel, precision: str) -> GPENModel:
    """The model itself, whose forward passes run in a precision from here on."""
    model.settings = replace(model.settings, precision=precision)
    return model


class PlainTraining:
    """The usual loop on the reference ops, on copies of a model's networks and with its settings."""

    def __init__(self, model: GPENModel):
        nets = (model.net_g, model.net_g_ema, model.net_d)
        self.g, self.average, self.d = (copy.deepcopy(net).to(memory_format=torch.contiguous_format) for net in nets)
        self.lq, self.gt = model.lq.contiguous(), model.gt.contiguous()
        self.model, self.settings = model, model.settings
        rates = {group["name"]: group["lr"] for group in model.optimizer.param_groups}
        parts = ({"params": getattr(self.g, name).parameters(), "lr": rates[name]} for name in ("encoder", "decoder"))
        betas = tuple(map(float, self.settings.optim["betas"]))
        self.optimizer_g = torch.optim.Adam(parts, betas=betas)
        self.optimizer_d = torch.optim.Adam(self.d.parameters(), lr=rates["discriminator"], betas=betas)

    def iteration(self) -> None:
        """A step of G, one of D on the images from before it, and the average."""
        with force_implementation("reference"):
            with torch.no_grad():
                fake = self.g(self.lq)
            self._generator()
            move(self.optimizer_d, F.softplus(self.d(fake)).mean() + F.softplus(-self.d(self.gt)).mean())
            with torch.no_grad():
                for held, new in zip(self.average.parameters(), self.g.parameters(), strict=True):
                    held.mul_(self.settings.ema_decay).add_(new, alpha=1 - self.settings.ema_decay)

    def regularization(self) -> None:
        """R1."""
        with force_implementation("reference"):
            real = self.gt.clone().requires_grad_()
            logits = self.d(real)
            penalty = self.settings.net_d_reg_every * self.settings.r1_reg_weight / 2 * r1_penalty(logits, real)
            move(self.optimizer_d, penalty + 0 * logits.sum())  # the biases' zeros count as gradients

    def _generator(self) -> None:
        self.d.requires_grad_(False)
        fake = self.g(self.lq)
        logits, features = self.d(fake, return_features=True)
        with torch.no_grad():
            _, real_features = self.d(self.gt, return_features=True)
        loss = F.softplus(-logits).mean() + self.model.loss_terms["pix"].loss(fake, self.gt)
        move(self.optimizer_g, loss + self.model.loss_terms["feat"].loss(features, real_features))
        self.d.requires_grad_(True)


def move(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    """One step of gradient descent."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def moments(optimizers: Sequence[torch.optim.Optimizer]) -> Iterator[torch.Tensor]:
    """What Adam remembers of all parameters: with a first beta of 0 the last gradients, then the squares' average."""
    states = [one.state[p] for one in optimizers for group in one.param_groups for p in group["params"]]
    for name in ("exp_avg", "exp_avg_sq"):
        yield torch.cat([state[name].flatten() for state in states])


IN_OWN_PROCESS = """
import sys, torch
from training_step import PlainTraining, in_precision, iteration_of, model_of
arm, size, device, threads = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
torch.set_num_threads(threads)
model = model_of(size, device, float(sys.argv[6]))
steps = iteration_of(in_precision(model, sys.argv[5])) if arm == "ours" else iteration_of(PlainTraining(model))
mark()
for step in steps:
    step()
"""


def iteration_of(training: GPENModel | PlainTraining) -> tuple[Callable[[], None], Callable[[], None]]:
    """What is timed of either arm: an iteration without R1, and R1."""
    if isinstance(training, PlainTraining):
        return training.iteration, training.regularization
    every = training.settings.net_d_reg_every
    return (
        lambda: training.optimize_parameters(every + 1),
        lambda: training.lazy_r1(every, training.optimizer, [Part(training.gt)]),
    )


def comparisons(setting: Setting, options: argparse.Namespace) -> list[Comparison]:
    """What an iteration takes on average, without R1, and R1."""
    device, size, precision = options.device, setting.size, setting.precision
    model = model_of(size, device, setting.narrow)
    plain = PlainTraining(model)
    for step in (*iteration_of(plain), *iteration_of(model)):
        step()
    of_plain, of_ours = moments([plain.optimizer_g, plain.optimizer_d]), moments(model.optimizers)
    errors = [check_close(expected, result, KINKS) for expected, result in zip(of_plain, of_ours, strict=True)]
    error = f"in fp32, gradients of G and D: {errors[0]}; their squares: {errors[1]}"
    what, operations = f"{setting.what}, batch of {len(model.gt)}", arithmetic(model)
    in_precision(model, precision)
    with contextlib.ExitStack() as stack:
        stack.enter_context(searched_kernels())
        baselines = iteration_of(plain)
        if device == "cpu":  # as other programs run it
            baselines = [stack.enter_context(in_another_process(usual_step, size, setting.narrow, i)) for i in (0, 1)]
        rows = [
            compare(
                f"{what}: {name}",
                (PLAIN, base),
                (f"GPENModel, {precision}", own),
                rounds=options.rounds,
                device=device,
                flop=flop,
                dtype=precision,
            )
            for name, base, own, flop in zip(
                ("an iteration without R1", "R1"),
                baselines,
                iteration_of(model),
                operations,
                strict=True,
            )
        ]
    whole = averaged(what, *rows, model.settings.net_d_reg_every)
    return [replace(whole, target=setting.target, error=error, note=USUAL), *rows]


def usual_step(size: int, narrow: float | None, which: int) -> Callable[[], None]:
    """One of `iteration_of` the usual loop, in a process that does not keep freed memory."""
    adversarial_model.keep_freed_memory = lambda: None  # `GPENModel`, of which the loop has its networks, would
    return iteration_of(PlainTraining(model_of(size, "cpu", narrow)))[which]


@contextlib.contextmanager
def searched_kernels() -> Iterator[None]:
    """cuDNN tries its kernels and takes the fastest, as in a training: BasicSR switches that on."""
    before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def memory_of(setting: Setting, options: argparse.Namespace) -> tuple[int, int]:
    """Peak bytes of an iteration and R1 above the networks, of the plain implementation and of ours."""
    settings = (setting.size, options.device, options.threads, setting.precision, setting.narrow or 0)
    return tuple(peak_memory(IN_OWN_PROCESS, arm, *settings) for arm in ("plain", "ours"))


def arithmetic(model: GPENModel) -> tuple[float, float]:
    """Operations of a usual iteration and of R1, from those of a forward pass.

    A backward pass costs a forward pass for the features and one for the weights. G runs forward, and back for both. D
    runs forward twice, back for both twice, and back to the images once. R1 runs D forward, back to the images,
    back through that for features and weights, and back for both.
    """
    of_g, of_d = (flop_of(lambda net=net: net(model.lq)) for net in (model.net_g, model.net_d))
    return 3 * of_g + 7 * of_d, 6 * of_d


def averaged(what: str, usual: Comparison, lazy: Comparison, every: int) -> Comparison:
    """A usual iteration, and its share of what comes at every so many."""

    def sums(name: str) -> list[float]:
        return [a + b / every for a, b in zip(getattr(usual, name), getattr(lazy, name), strict=True)]

    return replace(
        usual,
        what=f"{what}: an iteration, R1 at every {every}th",
        baseline_seconds=sums("baseline_seconds"),
        our_seconds=sums("our_seconds"),
        flop=usual.flop + lazy.flop / every,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and tell."""
    made = parser(__doc__, rounds=2)
    made.add_argument("--size", type=int, default=256, help="pixels, a power of two")
    made.add_argument("--precision", default="fp32", choices=DTYPES, help="of ours")
    options = made.parse_args(argv)
    torch.set_num_threads(options.threads)
    setting = Setting(options.size, options.precision, TARGETS[options.device])
    whole, *rows = comparisons(setting, options)
    whole = replace(whole, memory=memory_of(setting, options))
    report("A step of fine-tuning", [whole, *rows], options, left_out=LEFT_OUT)


if __name__ == "__main__":
    main()
