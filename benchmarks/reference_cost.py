"""Whether the plain reference, which the other benchmarks compare with, costs what the field's code costs.

    python benchmarks/reference_cost.py --threads 2

BasicSR's own StyleGAN2 generator, in pure PyTorch, stands for the field: GPEN's authors' code and BasicSR's descend
from one implementation, with grouped convolutions per sample and a FIR that stuffs zeros, pads and convolves.
"""

import torch
from basicsr.archs.stylegan2_arch import StyleGAN2Generator
from measure import Comparison, check_close, compare, parser, report

from gpen_plugin.archs.gan_prior_arch import GPENPrior
from gpen_plugin.host.patches import patch_missing_ops
from gpen_plugin.ops import force_implementation

SIZE, WIDTHS = 256, {"channel_multiplier": 1, "narrow": 0.5}
NOTE = (
    "About 1 says that the reference neither flatters nor handicaps; below 1, all ratios against it are too high by as "
    "much. The host has no bias and leaky ReLU for a CPU, and none for a GPU where its extension was not compiled; it "
    "is lent the reference's."
)


def generators(device: str) -> tuple[StyleGAN2Generator, GPENPrior]:
    """The host's generator, and a prior with its weights."""
    torch.manual_seed(0)
    host = StyleGAN2Generator(SIZE, **WIDTHS).eval().requires_grad_(False)
    prior = GPENPrior(SIZE, **WIDTHS, noise_mode="add").eval().requires_grad_(False)
    prior.load_state_dict(host.state_dict())
    return host.to(device), prior.to(device)


def image(batch: int, rounds: int, device: str) -> Comparison:
    """Draw `batch` images both ways; the noise is there but weighs nothing, as in every fresh network."""
    host, prior = generators(device)
    z, noise = torch.randn(batch, 512, device=device), prior.make_noise(batch)

    @torch.inference_mode()
    def theirs() -> torch.Tensor:
        with force_implementation("reference"):  # for what it is lent
            return host([z], randomize_noise=False)[0]

    @torch.inference_mode()
    def ours() -> torch.Tensor:
        with force_implementation("reference"):
            return prior(z, noise)

    return compare(
        f"generator of {SIZE} px, released width, batch {batch}, fp32",
        ("BasicSR's StyleGAN2Generator", theirs),
        ("reference ops", ours),
        rounds=rounds,
        device=device,
        items=batch,
        error=check_close(theirs(), ours()),
        note=NOTE if batch == 1 else "",
    )


def main() -> None:
    """Print one row per batch."""
    options = parser(__doc__, rounds=5).parse_args()
    torch.set_num_threads(options.threads)
    patch_missing_ops()
    report("The reference", [image(batch, options.rounds, options.device) for batch in (1, 4)], options)


if __name__ == "__main__":
    main()
