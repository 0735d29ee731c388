"""``python benchmarks/variant_effect.py -m net_g_latest.pth -i FACES -o table.md``: what variants change."""

import argparse
import csv
import io
import itertools
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np
from tqdm import tqdm

from gpen_plugin.data.image_source import decode_image, open_folder_or_zip
from gpen_plugin.errors import DataError, handle_errors
from gpen_plugin.images.files import write_image, write_whole
from gpen_plugin.images.grid import sheet
from gpen_plugin.metrics.identity import calculate_identity
from gpen_plugin.metrics.lmd import calculate_lmd
from gpen_plugin.metrics.lpips import LPIPS_MIN_SIDE, calculate_lpips
from gpen_plugin.restore.alignment import parse_template, scale_template
from gpen_plugin.restore.network import FaceNetwork, TorchNetwork, open_network
from gpen_plugin.restore.variants import LAYER_NAMES, Variation, VariedNetwork, parse_layers

BATCH = 8
ROWS, TILE = 8, 128  # of the sheet


@dataclass(frozen=True)
class Effect:
    """What variants of one setting change, against the restorations without any: means over faces and variants.

    Attributes:
        setting: layers, strength, and seed or reference.
        identity: cosine between the two faces in a recognition network's space; 1 is the same person.
        landmarks: shift of eyes, nose and corners of the mouth, in pixels of a 512 px face.
        lpips: perceptual distance.
        inside: mean absolute difference of the values from 0 to 255, in the face.
        outside: the same around it.
        diversity: the same in the face, between the variants of one face.
    """

    setting: str
    identity: float
    landmarks: float
    lpips: float
    inside: float
    outside: float
    diversity: float


def measure_effect(
    network: TorchNetwork,
    faces: Sequence[np.ndarray],
    variations: Sequence[Variation],
    draws: int = 3,
    template: str | None = None,
) -> list[Effect]:
    """Measure what variants change.

    Args:
        network: whose variants.
        faces: degraded faces, aligned, (H, W, 3) BGR float32 in [0, 1].
        variations: the settings.
        draws: variants per face; a reference gives one.
        template: how the faces are aligned, see `parse_template`; None is the network's own.
    Returns:
        One entry per setting. NaN is what cannot be measured: for want of a metric's weights (the log says where to get
        them), because no face is found, or because one variant has no diversity.
    """
    region = face_region(parse_template(template or network.template), network.out_size)
    plain = _restored(network, faces)
    effects = []
    for variation in tqdm(variations, unit="setting", disable=len(variations) < 2):
        count = draws if variation.reference is None else 1
        varied = [_restored(VariedNetwork(network, variation, index + 1), faces) for index in range(count)]
        effects.append(_effect(str(variation), plain, varied, region))
    return effects


def face_region(template: np.ndarray, size: int) -> np.ndarray:
    """Where the face is in an aligned one: an ellipse from the hair to the chin.

    Args:
        template: of the alignment, (5, 2), fractions of the side.
        size: side of the face in pixels.
    Returns:
        (size, size) bool.
    """
    points = scale_template(template, size)
    eyes, mouth = points[:2].mean(axis=0), points[3:].mean(axis=0)
    radii = 1.1 * np.linalg.norm(points[1] - points[0]), 1.4 * np.linalg.norm(mouth - eyes)
    down, across = np.indices((size, size))
    middle = (eyes + mouth) / 2
    return np.hypot((across - middle[0]) / radii[0], (down - middle[1]) / radii[1]) <= 1


def _restored(network: FaceNetwork, faces: Sequence[np.ndarray]) -> list[np.ndarray]:
    """uint8."""
    results = []
    for start in range(0, len(faces), BATCH):
        results += [np.rint(face * 255).astype(np.uint8) for face in network(faces[start : start + BATCH])]
    return results


def _effect(
    setting: str, plain: Sequence[np.ndarray], varied: Sequence[Sequence[np.ndarray]], region: np.ndarray
) -> Effect:
    pairs = [(variant, face) for variants in varied for variant, face in zip(variants, plain, strict=True)]
    among = [
        (one, other)
        for first, second in itertools.combinations(varied, 2)
        for one, other in zip(first, second, strict=True)
    ]
    return Effect(
        setting,
        identity=_mean(calculate_identity(*pair) for pair in pairs),
        landmarks=_mean(calculate_lmd(*pair, detector="yunet") for pair in pairs),
        lpips=_mean(calculate_lpips(*pair, net="alex") for pair in pairs)
        if len(region) >= LPIPS_MIN_SIDE["alex"]
        else math.nan,
        inside=_mean(_difference(*pair, region) for pair in pairs),
        outside=_mean(_difference(*pair, ~region) for pair in pairs),
        diversity=_mean(_difference(*pair, region) for pair in among),
    )


def _difference(one: np.ndarray, other: np.ndarray, region: np.ndarray) -> float:
    return float(np.abs(one[region].astype(np.int16) - other[region]).mean()) if region.any() else math.nan


def _mean(values: Iterable[float]) -> float:
    """Of those that are numbers; NaN if there are none."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def csv_table(effects: Sequence[Effect]) -> str:
    """A line of heads, and one per setting; NaN is an empty field."""
    page = io.StringIO()
    writer = csv.writer(page, lineterminator="\n")
    writer.writerow(_HEADS)
    writer.writerows(["" if cell == "-" else cell for cell in _cells(effect)] for effect in effects)
    return page.getvalue()


def markdown_table(effects: Sequence[Effect]) -> str:
    """The same for reading."""
    rows = [_HEADS, ["---"] + ["---:"] * (len(_HEADS) - 1), *map(_cells, effects)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _cells(effect: Effect) -> list[str]:
    setting, *numbers = astuple(effect)
    return [setting, *("-" if math.isnan(number) else f"{number:.3f}" for number in numbers)]


_HEADS = [field.name for field in fields(Effect)]
TABLES = {".md": markdown_table, ".csv": csv_table}


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        prog="python benchmarks/variant_effect.py",
        description="Measure what variants of a restoration change: person, landmarks, face and background.",
    )
    parser.add_argument("-m", "--model", required=True, help="weights, or a released name; see gpen-restore")
    parser.add_argument("-i", "--input", type=Path, required=True, help="folder or zip of degraded, aligned faces")
    parser.add_argument("-o", "--output", type=Path, required=True, help="table, .md or .csv")
    parser.add_argument(
        "--layers", nargs="+", default=[*LAYER_NAMES, "0-"], help="see gpen-restore (default: all of them)"
    )
    parser.add_argument("--strength", type=float, nargs="+", default=[0.25, 0.5, 1.0], help="default 0.25 0.5 1")
    parser.add_argument("--draws", type=int, default=3, help="variants per face (default 3)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default 0)")
    parser.add_argument(
        "--reference", type=Path, help="a face whose styles are taken instead, aligned as the others are"
    )
    parser.add_argument("--template", help="how the faces are aligned, see gpen-restore (default: the model's own)")
    parser.add_argument("--sheet", type=Path, help=f"image file: variants of the first {ROWS} faces")
    parser.add_argument("--key", help="entry of the weight file; default: the averaged weights")
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps (default: a GPU where there is one)")
    return parser


@handle_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write.

    Args:
        argv: command line without the program's name; None for the real one.
    Returns:
        Exit status: 0 if the table was written, 1 otherwise.
    """
    options = parser().parse_args(argv)
    if options.output.suffix.lower() not in TABLES:
        parser().error(f"--output: got {options.output}; expected a file that ends in {' or '.join(TABLES)}")
    if options.draws < 1:
        parser().error(f"--draws: got {options.draws}; expected a number from 1")
    reference = None
    if options.reference is not None:
        if not options.reference.is_file():
            raise DataError("--reference", f"{options.reference} is not there", "an image of a face", "Check the path.")
        reference = decode_image(options.reference.read_bytes(), str(options.reference))
    variations = [
        Variation(parse_layers(layers), strength, options.seed, reference)
        for layers in options.layers
        for strength in options.strength
    ]
    network = open_network(options.model, key=options.key, device=options.device, runtime="torch")
    for variation in variations:
        VariedNetwork(network, variation, 1)  # raises for options that exclude each other, before anything is measured
    source = open_folder_or_zip(options.input, "--input")
    faces = [source.read(key).astype(np.float32) / 255 for key in source.keys]
    effects = measure_effect(network, faces, variations, options.draws, options.template)
    write_whole(options.output, TABLES[options.output.suffix.lower()](effects).encode())
    if options.sheet is not None:
        write_image(options.sheet, variant_sheet(network, faces[:ROWS], variations))
    print(f"{len(variations)} settings measured on {len(faces)} faces by {network.description}: {options.output}")
    return 0


def variant_sheet(network: TorchNetwork, faces: Sequence[np.ndarray], variations: Sequence[Variation]) -> np.ndarray:
    """A row for each face: as it came, restored, and the first variant of each setting; see `sheet`."""
    given = [np.rint(face * 255).astype(np.uint8) for face in faces]
    varied = [_restored(VariedNetwork(network, variation, 1), faces) for variation in variations]
    rows = zip(given, _restored(network, faces), *varied, strict=True)
    titles = [f"{variation.layers} by {variation.strength:g}" for variation in variations]
    return sheet(list(rows), ["degraded", "restored", *titles], max(network.out_size, TILE))


if __name__ == "__main__":
    sys.exit(main())
