"""Take what a network has learnt into a larger one, or into one of another noise mode, so that its training goes on.

    python -m gpen_plugin.grow net_g_latest.pth -o grown.pth --out-size 128
    python -m gpen_plugin.grow stylegan2.pth -o prior.pth --noise-mode concat

The output is named as ``pretrain_network_g`` (``pretrain_network_d`` for a discriminator) of a new training.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from gpen_plugin.cli.convert import check_output
from gpen_plugin.errors import handle_errors

NOISE_MODES = ("concat", "add", "none")


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(prog="python -m gpen_plugin.grow", description=__doc__.partition("\n")[0])
    parser.add_argument("input", type=Path, help="weights of a GPEN, GAN prior, GPENDiscriminator or StyleGAN")
    parser.add_argument("-o", "--output", type=Path, required=True, help="file to write: .pth or .pt")
    parser.add_argument("--out-size", type=int, help="height and width of the images, a power of two up to 2048")
    parser.add_argument("--noise-mode", choices=NOISE_MODES, help="of a generator")
    multiplier = "factor of the channels above 32 px, where the input has none (default 2)"
    parser.add_argument("--channel-multiplier", type=float, help=multiplier)
    parser.add_argument("--key", help="entry of the input, e.g. params; default: the weights and their average")
    parser.add_argument("--seed", type=int, default=0, help="of the layers that are new (default 0)")
    parser.add_argument("--force", action="store_true", help="overwrite the output if it exists")
    return parser


@handle_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Write one file.

    Args:
        argv: command line without the program's name; None for the real one.
    Returns:
        Exit status.
    """
    options = parser().parse_args(argv)
    check_output(options.output, [options.input], options.force)
    from gpen_plugin.checkpoints.grow import grow_file

    grow_file(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
