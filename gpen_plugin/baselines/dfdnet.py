"""DFDNet (Li et al., ECCV 2020), which needs the positions of eyes, nose and mouth."""

import hashlib
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from gpen_plugin.baselines.method import RANDOM, RANDOM_NOTE, describe_file
from gpen_plugin.checkpoints import checkpoint, sha256_of
from gpen_plugin.errors import CheckpointError, OptionError
from gpen_plugin.host.patches import vgg_offline
from gpen_plugin.restore.network import build_network, load_network_weights, seeded_init

SIZE = 512  # of the trained weights
CHANNELS = {256: 128, 128: 256, 64: 512, 32: 512}  # of the dictionary, by the size of the features
PART_SIDES = {"left_eye": 80, "right_eye": 80, "nose": 50, "mouth": 110}  # of the dictionary, in pixels of the face
PARTS = tuple(PART_SIDES)

FFHQ_POINTS = ((193.0, 239.9), (318.9, 240.2), (256.6, 314.0), (201.3, 371.4), (313.1, 371.2))
"""Eyes, tip of the nose and corners of the mouth of an FFHQ face of 512 px, (x, y)."""

# The authors' box of a part is a square around the mean of its points among 68 landmarks; half its side is half the
# part's longer extent. An eye includes its brow. Fitted to five points, the mean face of the 68 landmarks gives: the
# points whose mean is nearest, the offset from there to the center (x, y), and the side, both in eye distances.
_BOXES = {
    "left_eye": ((0,), (-0.03, -0.14), 0.75),
    "right_eye": ((1,), (0.03, -0.14), 0.75),
    "nose": ((2,), (0.0, 0.09), 0.47),
    "mouth": ((3, 4), (0.0, 0.04), 0.89),
}


@dataclass(frozen=True)
class DFDNetOptions:
    """The keys of a method of type ``dfdnet``."""

    weights: str  # BasicSR's file or the authors' (``latest_net_G.pth``); ``random`` for a test run
    # BasicSR's file of parts, or the authors' folder (``DictionaryCenter512``) of ``PART_SIZE_center.npy``; ``random``
    # for a test run
    dictionary: str
    param_key: str | None = None  # entry of the file of weights; ~ takes params
    # left eye, right eye, tip of the nose, left and right corner of the mouth of the aligned faces, (x, y) in pixels of
    # a face of 512 px; left in the image.
    points: Sequence[tuple[float, float]] = FFHQ_POINTS


class AlignedDFDNet(nn.Module):
    """The host's `DFDNet` for faces that all have their parts in the same boxes (see `part_boxes`)."""

    def __init__(self, net: nn.Module, boxes: torch.Tensor):
        super().__init__()
        self.net, self._boxes = net, boxes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, 3, S, S) in [-1, 1] -> the same; S is 512 for trained weights."""
        boxes = self._boxes * x.shape[-1] // SIZE  # (4, 4)
        return self.net(x, [box[None] for box in boxes])


def load_dfdnet(options: DFDNetOptions, where: str) -> tuple[AlignedDFDNet, str, dict]:
    """Build DFDNet with its dictionary; return it with its description and identity (see `Method`).

    GPENError: a file cannot be read or holds something else, or the points are not five.
    """
    boxes = part_boxes(options.points, f"{where}:points")
    identity = {"type": "dfdnet", "param_key": options.param_key, "boxes": boxes.tolist()}
    dictionary, dictionary_origin, identity["dictionary"] = _dictionary(options.dictionary, where)
    with tempfile.TemporaryDirectory() as folder, vgg_offline():
        empty = Path(folder) / "dictionary.pth"  # which the network's own reader, of any pickle, may open
        torch.save({}, empty)
        section = {"type": "DFDNet", "num_feat": 64, "dict_path": str(empty)}
        net = seeded_init(lambda: build_network(section, where))
    net.dict = dictionary
    origin, identity["weights"] = RANDOM_NOTE, RANDOM
    if options.weights != RANDOM:
        load_network_weights(net, options.weights, options.param_key, f"{where}:weights")
        identity["weights"] = sha256_of(options.weights)
        origin = describe_file(options.weights, identity["weights"])
    if options.weights != RANDOM:
        origin += "; weights of the method's authors"
    description = f"DFDNet; {origin}; dictionary {dictionary_origin}; parts where an aligned face has them"
    return AlignedDFDNet(net, boxes), description, identity


def part_boxes(
    # left eye, right eye, tip of the nose, left and right corner of the mouth, (x, y) at 512 px
    points: Sequence[tuple[float, float]],
    where: str = "points",
) -> torch.Tensor:
    """The boxes of `PARTS` in an aligned face, (4, 4) int64: left, top, right, bottom, within the image.

    OptionError: not five points, or no distance between the eyes.
    """
    if len(points) != len(FFHQ_POINTS) or points[0][0] >= points[1][0]:
        raise OptionError(where, f"got {list(map(list, points))}", "five points (x, y), the left eye first")
    xy = np.array(points, dtype=np.float64)  # (5, 2)
    unit = float(np.hypot(*(xy[1] - xy[0])))
    boxes = []
    for nearest, offset, side in _BOXES.values():
        middle = xy[list(nearest)].mean(axis=0) + np.array(offset) * unit
        half = side * unit / 2
        boxes.append(np.rint(np.concatenate([middle - half, middle + half])).clip(0, SIZE))
    return torch.from_numpy(np.array(boxes, dtype=np.int64))


Dictionary = dict[str, dict[str, torch.Tensor]]  # size of the features -> part -> (K, C, h, w)


def _dictionary(given: str, where: str) -> tuple[Dictionary, str, str]:
    """A dictionary, its description, and its digest."""
    if given == RANDOM:
        return _random_dictionary(), RANDOM_NOTE, RANDOM
    if Path(given).is_dir():
        return _read_folder(Path(given), where)
    content = checkpoint.read_whole(given)
    missing = [f"{size} {part}" for size in CHANNELS for part in PARTS if not _fits(content, size, part)]
    if missing:
        got, expected = f"lacks {checkpoint.shown(missing)}", "DFDNet's dictionary: size -> part -> (K, C, h, w)"
        raise CheckpointError(f"{where}:dictionary: {given}", got, expected, "Name the right file.")
    digest = sha256_of(given)
    dictionary = {str(size): {part: content[str(size)][part] for part in PARTS} for size in CHANNELS}
    return dictionary, describe_file(given, digest), digest


def _read_folder(folder: Path, where: str) -> tuple[Dictionary, str, str]:
    """The authors' dictionary: PART_SIZE_center.npy, a row for each entry. Errors as of `_dictionary`."""
    found: Dictionary = {}
    digest = hashlib.sha256()
    for size, channels in CHANNELS.items():
        for part, side in PART_SIDES.items():
            path, shape = folder / f"{part}_{size}_center.npy", (channels, side * size // SIZE, side * size // SIZE)
            source, expected = f"{where}:dictionary: {path}", f"an array (K, {math.prod(shape)}), K entries of {shape}"
            try:
                entries = np.load(path, allow_pickle=False)
            except FileNotFoundError:
                raise CheckpointError(source, "is not there", expected, "Name DFDNet's DictionaryCenter512.") from None
            except (OSError, ValueError) as error:
                raise CheckpointError(source, f"cannot be read ({error})", expected, "Download it again.") from error
            if entries.ndim < 2 or not len(entries) or math.prod(entries.shape[1:]) != math.prod(shape):
                raise CheckpointError(source, f"holds an array {entries.shape}", expected, "Name the right folder.")
            tensor = torch.from_numpy(np.ascontiguousarray(entries, np.float32))
            found.setdefault(str(size), {})[part] = tensor.reshape(-1, *shape)
            digest.update(f"{path.name} {sha256_of(path)}\n".encode())
    return found, f"{folder.name} of its authors (sha256 {digest.hexdigest()[:12]})", digest.hexdigest()


def _fits(content: Mapping, size: int, part: str) -> bool:
    parts = content.get(str(size))
    tensor = parts.get(part) if isinstance(parts, Mapping) else None
    return isinstance(tensor, torch.Tensor) and tensor.ndim == 4 and tensor.shape[1] == CHANNELS[size]


def _random_dictionary() -> Dictionary:
    """Two entries of each part, a sixteenth of a feature map wide."""
    generator = torch.Generator().manual_seed(0)
    return {
        str(size): {part: torch.randn(2, channels, size // 8, size // 8, generator=generator) for part in PARTS}
        for size, channels in CHANNELS.items()
    }
