"""A group photograph of 30 faces: all of them at once against one face at a time.

python benchmarks/group_photograph.py --threads 2
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import torch
from face_images import synthetic_faces
from inference import network
from measure import Comparison, busy, check_close, clock, compare, flop_of, not_measured, parser, report

from gpen_plugin import Restorer
from gpen_plugin.images.photograph import Photograph, read_photograph, write_photograph
from gpen_plugin.nets.yunet import YuNetNetwork
from gpen_plugin.ops.memory import keep_freed_memory
from gpen_plugin.restore.alignment import TEMPLATES, align, invert_affine, scale_template, warp
from gpen_plugin.restore.batch import Runner
from gpen_plugin.restore.detection import DetectedFace, MultiScaleDetector, YuNetBackend
from gpen_plugin.restore.inputs import Job
from gpen_plugin.restore.outputs import Outputs
from gpen_plugin.restore.paste import soft_mask

SIZE = 256  # pixels of the network's faces, at the released width
HEIGHT, WIDTH = 3000, 4000
ROWS, COLUMNS = 5, 6
DIFFERENT, DRAWN = 5, 256  # faces, and their pixels
SIDES = 280, 540  # pixels of the smallest and largest face in FFHQ's framing
DETECTION_WIDTH = 5657
TARGET = 1.5
ROUNDING = 2 / 255  # each of two images was rounded to 8 bits, one of them between any two faces
FILES = 2  # photographs of the whole path
LARGEST_MEAN = 0.5  # difference of two files, of 255: JPEG rounds what differs by `ROUNDING`

LEFT_OUT = (  # measured on one core with AVX-512, on 2026-11-30
    "YuNet on tiles of 640 px, whose features fit into the cache: 17 instead of 27 ms a megapixel, but its tiles "
    "overlap more, and would cut faces of 100 to 480 px, which have their best landmarks at this scale",
    "bilinear reduction of photographs above 16 megapixels, before YuNet: 22 instead of 114 ms, but YuNet would see "
    "another image",
)
USUAL = "For information: the baseline of the target pastes within each face's own region, too, and is the harder one."


def photograph(width: int = WIDTH) -> tuple[np.ndarray, list[DetectedFace]]:
    """(H, width, 3) BGR uint8, and where its faces are."""
    rng, scale = np.random.default_rng(0), width / WIDTH
    height = round(scale * HEIGHT)
    coarse = rng.integers(90, 166, (HEIGHT // 100, WIDTH // 100, 3)).astype(np.uint8)
    image, faces = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), []
    different = synthetic_faces(DIFFERENT, DRAWN)
    for number, side in enumerate(rng.integers(*SIDES, ROWS * COLUMNS)):
        side = round(scale * side)
        row, column = divmod(number, COLUMNS)
        left = round((column + 0.5) * width / COLUMNS - side / 2)
        top = round((row + 0.5) * height / ROWS - side / 2)
        image[top : top + side, left : left + side] = cv2.resize(different[number % DIFFERENT], (side, side))
        landmarks = scale_template(TEMPLATES["ffhq"], side) + np.array([left, top])
        box = np.array([left, top, left + side, top + side], np.float64)
        faces.append(DetectedFace(box, landmarks, 0.99, "synthetic"))
    return image, faces


def make_restorer(device: str, size: int = SIZE, narrow: float | None = None) -> Restorer:
    """A restorer around random weights, whose file is gone once it is read."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "net_g.pth")
        torch.save({"params": network(size, narrow).state_dict()}, file)
        return Restorer(file, device=device, mask="soft", detector="yunet")


def one_by_one(
    restorer: Restorer, image: np.ndarray | Photograph, faces: list[DetectedFace]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """One `Restorer.restore` per face, each on the result of the one before."""
    restored = []
    for face in faces:
        result = restorer.restore(image, faces=[face])
        image = result.photograph
        restored.append(result.faces[0].restored)
    return result.image, restored


def on_full_frames(
    restorer: Restorer, image: np.ndarray, faces: list[DetectedFace]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """The method of most face tools: face and mask are warped to images as large as the photograph, and blended."""
    template, size, restored = TEMPLATES["ffhq"], image.shape[1::-1], []
    side = restorer.network.in_size
    canvas, mask = image.astype(np.float32), soft_mask(template, side)
    for face in faces:
        matrix = align(face.landmarks, template, side)
        restored += restorer.network([warp(image, matrix, (side, side))])
        back = invert_affine(matrix)
        warped = cv2.warpAffine(restored[-1] * np.float32(255), back, size)
        alpha = cv2.warpAffine(mask, back, size)[..., None]
        canvas = alpha * warped + (1 - alpha) * canvas
    return np.rint(canvas).astype(np.uint8), restored


def in_one_call(
    restorer: Restorer, image: np.ndarray, faces: list[DetectedFace]
) -> tuple[np.ndarray, list[np.ndarray]]:
    result = restorer.restore(image, faces=faces)
    return result.image, [face.restored for face in result.faces]


def network_time(restorer: Restorer, many: int, device: str) -> str:
    """The bound of the ratio: the time of the network itself."""
    crops = [np.zeros((restorer.network.in_size,) * 2 + (3,), np.float32)] * restorer.batch
    restorer.network(crops)  # warms up
    seconds = clock(lambda: restorer.network(crops), device) / restorer.batch * many
    return (
        f"The network alone takes {seconds:.2f} s for {many} faces, {restorer.batch} at once: the rest is what can go"
    )


def check_results(baseline: Callable, *arguments: object, same_pasting: bool) -> str:
    """Compare the faces, and the photographs if both arms paste in the same way."""
    (expected, one), (result, other) = (arm(*arguments) for arm in (baseline, in_one_call))
    difference = check_close(*(torch.from_numpy(np.stack(faces)) for faces in (one, other)))
    if not same_pasting:
        return f"restored faces: {difference}"
    check_close(*(torch.from_numpy(each) for each in (expected, result)), tolerance=ROUNDING)
    return f"restored faces: {difference}; photographs: {np.abs(expected.astype(int) - result).max()} of 255"


def known_faces(
    arm: Callable,
    words: str,
    restorer: Restorer,
    shown: tuple[np.ndarray, list[DetectedFace]],  # the photograph and its faces
    options: argparse.Namespace,
    *,
    target: float | None = None,
    note: str = "",
) -> Comparison:
    """Faces whose positions are known, restored by `arm` and in one call."""
    (image, faces), size, device = shown, restorer.network.in_size, options.device
    flop = flop_of(lambda: restorer.network([np.zeros((size, size, 3), np.float32)]))  # of one face
    return compare(
        f"{title(faces, image)}, GPEN {size} px, fp32",
        (words, lambda: arm(restorer, image, faces)),
        ("Restorer.restore, all faces in one call", lambda: in_one_call(restorer, image, faces)),
        rounds=options.rounds,
        device=device,
        target=target,
        items=len(faces),
        flop=len(faces) * flop,
        error=check_results(arm, restorer, image, faces, same_pasting=arm is one_by_one),
        note=note,
    )


def title(faces: Sequence[DetectedFace], image: np.ndarray) -> str:
    """What is restored, in words."""
    return f"{len(faces)} faces of a photograph of {image.shape[0] * image.shape[1] / 1e6:g} megapixels"


def at_once(restorer: Restorer, shown: tuple, options: argparse.Namespace, target: float | None = None) -> Comparison:
    """All faces in one call against one at a time."""
    note = network_time(restorer, len(shown[1]), options.device)
    words = "Restorer.restore, face by face"
    return known_faces(one_by_one, words, restorer, shown, options, target=target, note=note)


def whole_path(restorer: Restorer, image: np.ndarray, options: argparse.Namespace) -> Comparison:
    """From file to file as gpen-restore works, against face by face: decoding, detection and encoding included."""
    found = restorer.find(image)
    with tempfile.TemporaryDirectory(prefix="gpen-benchmark-") as parent:
        folder = Path(parent)
        sources = [folder / f"{number}.jpg" for number in range(FILES)]
        for source in sources:
            cv2.imwrite(str(source), image, [cv2.IMWRITE_JPEG_QUALITY, 95])
        outputs = Outputs(folder / "ours", overwrite=True)
        outputs.open()
        (folder / "baseline").mkdir()

        def baseline() -> None:
            for source in sources:
                read = read_photograph(source)
                restored = one_by_one(restorer, read, restorer.find(read))[0]
                write_photograph(folder / "baseline" / source.name, read.with_pixels(restored))

        def ours() -> None:
            jobs = [Job(source, "image", outputs.folder / source.name) for source in sources]
            for _, report in Runner(restorer, outputs, {}, aligned=False)(jobs):
                if report.error:
                    raise SystemExit(report.error)

        arms = (baseline, ours)
        for arm in arms:
            arm()
        expected, result = (cv2.imread(str(folder / name / "0.jpg")) for name in ("baseline", "ours"))
        error = np.abs(expected.astype(int) - result).mean()
        if not error <= LARGEST_MEAN or not found:
            raise SystemExit(f"{len(found)} faces found; files differ by {error:.2f} of 255: nothing was timed.")
        note = shares(restorer, sources[0], folder / "shares.jpg")
        if options.device == "cuda":
            waits = [f"{1 - busy(arm):.0%}" for arm in arms]
            note += f". The GPU waits {waits[0]} of the time of the baseline, and {waits[1]} of ours"
        return compare(
            f"{FILES} photographs from file to file, {title(found, image)} each, GPEN {restorer.network.in_size} px",
            ("one photograph after the other, face by face", baseline),
            ("gpen-restore", ours),
            rounds=options.rounds,
            device=options.device,
            items=FILES,
            error=f"files: mean difference {error:.2f} of 255",
            note=note,
        )


def shares(restorer: Restorer, source: Path, target: Path) -> str:
    """What part of the time each step takes for one photograph."""
    taken: dict[str, float] = {}

    def timed(step: str, call: Callable, *arguments: object, **named: object) -> object:
        begun = time.perf_counter()
        result = call(*arguments, **named)
        taken[step] = time.perf_counter() - begun
        return result

    read = timed("decoding", read_photograph, source)
    found = timed("finding the faces", restorer.find, read)
    (faces,) = timed("aligning and restoring them", restorer.restore_faces, [read], faces=[found])
    result = timed("pasting", restorer.paste_back, read, faces)
    timed("encoding", write_photograph, target, result.photograph)
    total = sum(taken.values())
    parts = ", ".join(f"{step} {seconds / total:.0%}" for step, seconds in taken.items())
    return f"One photograph takes {total:.2f} s step by step: {parts}"


def detection(options: argparse.Namespace) -> Comparison:
    """YuNet on a large photograph, in OpenCV and in ONNX Runtime."""
    what = "finding the faces of a photograph of 24 megapixels by YuNet"
    if find_spec("onnxruntime") is None:
        return not_measured(what, "onnxruntime is not installed")
    image, _ = photograph(DETECTION_WIDTH)
    finders = []
    for in_onnxruntime in (False, True):
        backend = YuNetBackend(None)
        backend.network = YuNetNetwork(in_onnxruntime)
        finders.append(partial(MultiScaleDetector(backend, "YuNet"), image))
    found = [finder() for finder in finders]
    points = [torch.from_numpy(np.stack([face.landmarks for face in faces])) for faces in found]
    return compare(
        what,
        ("OpenCV", finders[0]),
        ("ONNX Runtime", finders[1]),
        rounds=options.rounds,
        error=f"{len(found[0])} faces by both; landmarks: {check_close(*points)}",
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Print one comparison per baseline."""
    options = parser(__doc__, rounds=2).parse_args(argv)
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    keep_freed_memory()  # as gpen-restore does; all arms gain
    restorer, (image, faces) = make_restorer(options.device), photograph()
    rows = [
        at_once(restorer, (image, faces), options, TARGET),
        known_faces(
            on_full_frames,
            "face by face, blended at the size of the photograph",
            restorer,
            (image, faces[:COLUMNS]),
            options,
            note=USUAL,
        ),
        whole_path(restorer, image, options),
        detection(options),
    ]
    report("A group photograph", rows, options, left_out=LEFT_OUT)


if __name__ == "__main__":
    main()
