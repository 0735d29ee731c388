"""The options of ``gpen-restore``. Nothing heavy is imported here."""

import argparse
from pathlib import Path

DESCRIPTION = "Restore the faces of photographs and videos. Input files are never changed."
EPILOG = """
examples:
  gpen-restore old.jpg -o restored                           every face of a photograph
  gpen-restore album/ 'scans/*.tif' -o restored --compare    folders and globs, with before/after images
  gpen-restore film.mp4 -o restored                          a video, with its sound and subtitles
  gpen-restore faces/ -o restored --aligned -m net_g_latest.pth

exit status: 0 all was done, 1 something failed (what it does not stop is done), 2 unknown or missing options,
3 no face in any photograph, 130 stopped by hand, 143 stopped by SIGTERM (each written file is whole)
"""


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog="gpen-restore",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="photographs, videos, folders, globs")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        help="a folder; or a file name, for a single photograph or video",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there; else they are errors")
    _network(parser.add_argument_group("network"))
    _faces(parser.add_argument_group("faces"))
    _result(parser.add_argument_group("result"))
    _variants(parser.add_argument_group("several results for one face (see docs/RESTORING.md)"))
    _outputs(parser.add_argument_group("what is written"))
    return parser


def _network(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "-m",
        "--model",
        help="a name, a weight file or an ONNX file (default: GPEN-FairFace-128, which is here, or the task's own)",
    )
    group.add_argument("--key", help="entry of the weight file, e.g. params_ema; default: the averaged weights")
    group.add_argument(
        "--task", choices=("restore", "colorize", "inpaint", "seg2face"), help="default: what the model is for"
    )
    group.add_argument("--inpaint-mask", type=Path, help="of --task inpaint --aligned: what is white in it is filled")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default %(default)s)")
    group.add_argument(
        "--precision", default="fp32", choices=("fp32", "bf16"), help="of the network (default %(default)s)"
    )
    group.add_argument("--batch", type=int, default=8, help="faces that it takes at once (default %(default)s)")
    group.add_argument(
        "--weights-dir", type=Path, help="a folder to look into for published weights, before all others"
    )


def _faces(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--aligned", action="store_true", help="each image shows one aligned face; nothing is looked for"
    )
    group.add_argument(
        "--detector",
        default="auto",
        choices=("auto", "retinaface", "yunet"),
        help="default: retinaface if its weights are on this machine, else yunet",
    )
    group.add_argument("--detector-file", type=Path, help="RetinaFace's weights, if they are not to be looked for")
    group.add_argument(
        "--min-face", type=float, default=16, help="leave smaller faces alone, in pixels (default %(default)s)"
    )
    group.add_argument(
        "--max-face",
        type=float,
        help="leave larger ones alone (default: 160 without --model, which sees 128; else none)",
    )
    group.add_argument(
        "--template",
        help="how faces are aligned: ffhq, gpen, arcface, dlib, or ten numbers (default: as the model wants it)",
    )


def _result(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--alpha", type=float, help="how much of the restoration is blended in, 0 to 1 (default 1)")
    group.add_argument("--mask", default="auto", choices=("auto", "soft", "parsing"), help="what of a face is pasted")
    group.add_argument("--upscale", type=float, default=1, help="enlarge the photograph by this factor (default 1)")
    group.add_argument(
        "--background",
        help="what enlarges the rest: RealESRGAN_x2plus, RealESRGAN_x4plus, or an option file of BasicSR",
    )
    group.add_argument(
        "--tile", type=int, default=512, help="side of the pieces in which it does (default %(default)s)"
    )
    group.add_argument("--keep-color", action="store_true", help="keep the low frequencies of the input's colour")
    group.add_argument(
        "--identity",
        type=float,
        metavar="COSINE",
        help="leave a face alone whose restored one is less like it than this",
    )
    group.add_argument(
        "--identity-model",
        type=Path,
        metavar="FILE.onnx",
        help="the network that judges this (default: gfpgan's ArcFace)",
    )


def _variants(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--variants", type=int, default=0, metavar="N", help="write N more results with other latent styles"
    )
    group.add_argument("--variant-layers", metavar="A-B", help="latents that are changed, 0 being the coarsest")
    group.add_argument("--variant-strength", type=float, help="how far, 0 to 1")
    group.add_argument("--reference", type=Path, help="write one more result, with styles of this face mixed in")
    group.add_argument("--seed", type=int, default=0, help="of the draws (default %(default)s)")


def _outputs(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--suffix", help="format of the written images, e.g. .png (default: that of the input)")
    group.add_argument("--save-faces", action="store_true", help="write each face before and after to OUTPUT/faces")
    group.add_argument("--compare", action="store_true", help="write photographs side by side to OUTPUT/compare")
    group.add_argument("--report", type=Path, metavar="FILE.json", help="write what was found and done")
