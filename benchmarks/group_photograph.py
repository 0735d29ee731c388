"""A group photograph of 30 faces: all of them at once against one face at a time.

python benchmarks/group_photograph.py --threads 2
python benchmarks/group_photograph.py --device cuda
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from face_images import synthetic_faces
from inference import RELEASED
from measure import Comparison, check_close, clock, compare, flop_of, not_measured, parser, report

from gpen_plugin import GPEN, Restorer
from gpen_plugin.restore.alignment import TEMPLATES, align, invert_affine, scale_template, warp
from gpen_plugin.restore.detection import DetectedFace
from gpen_plugin.restore.paste import soft_mask

SIZE = 256  # pixels of the network's faces, at the released width
HEIGHT, WIDTH = 3000, 4000
ROWS, COLUMNS = 5, 6
DIFFERENT = 5  # faces
SIDES = 280, 540  # pixels of the smallest and largest face in FFHQ's framing
TARGETS = {"cpu": 1.5, "cuda": 4}
ROUNDING = 2 / 255  # each of two images was rounded to 8 bits, one of them between any two faces

USUAL = "For information: the baseline of the target pastes within each face's own region, too, and is the harder one."


def photograph() -> tuple[np.ndarray, list[DetectedFace]]:
    """(HEIGHT, WIDTH, 3) BGR uint8, and where its faces are."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(90, 166, (HEIGHT // 100, WIDTH // 100, 3)).astype(np.uint8)
    image, faces = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC), []
    different = synthetic_faces(DIFFERENT, SIZE)
    for number, side in enumerate(rng.integers(*SIDES, ROWS * COLUMNS)):
        row, column = divmod(number, COLUMNS)
        left = round((column + 0.5) * WIDTH / COLUMNS - side / 2)
        top = round((row + 0.5) * HEIGHT / ROWS - side / 2)
        image[top : top + side, left : left + side] = cv2.resize(different[number % DIFFERENT], (int(side), int(side)))
        landmarks = scale_template(TEMPLATES["ffhq"], side) + np.array([left, top])
        box = np.array([left, top, left + side, top + side], np.float64)
        faces.append(DetectedFace(box, landmarks, 0.99, "synthetic"))
    return image, faces


def make_restorer(device: str) -> Restorer:
    """A restorer around random weights, whose file is gone once it is read."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "net_g.pth")
        torch.save({"params": GPEN(SIZE, **RELEASED[SIZE]).state_dict()}, file)
        return Restorer(file, device=device, mask="soft")


def one_by_one(restorer: Restorer, image: np.ndarray, faces: list[DetectedFace]) -> tuple[np.ndarray, list[np.ndarray]]:
    """One `Restorer.restore` per face, each on the result of the one before."""
    restored = []
    for face in faces:
        result = restorer.restore(image, faces=[face])
        image = result.image
        restored.append(result.faces[0].restored)
    return image, restored


def on_full_frames(
    restorer: Restorer, image: np.ndarray, faces: list[DetectedFace]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """The method of most face tools: face and mask are warped to images as large as the photograph, and blended."""
    template, size, restored = TEMPLATES["ffhq"], image.shape[1::-1], []
    canvas, mask = image.astype(np.float32), soft_mask(template, SIZE)
    for face in faces:
        matrix = align(face.landmarks, template, SIZE)
        restored += restorer.network([warp(image, matrix, (SIZE, SIZE))])
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
    crops = [np.zeros((SIZE, SIZE, 3), np.float32)] * restorer.batch
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


def main() -> None:
    """Print one comparison per baseline."""
    options = parser(__doc__, rounds=2).parse_args()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    restorer, (image, faces) = make_restorer(options.device), photograph()
    flop = flop_of(lambda: restorer.network([np.zeros((SIZE, SIZE, 3), np.float32)]))  # of one face

    def row(arm: Callable, words: str, shown: list[DetectedFace], target: float | None, note: str = "") -> Comparison:
        return compare(
            f"{len(shown)} faces of a photograph of {WIDTH * HEIGHT / 1e6:g} megapixels, GPEN {SIZE} px, fp32",
            (words, lambda: arm(restorer, image, shown)),
            ("Restorer.restore, all faces in one call", lambda: in_one_call(restorer, image, shown)),
            rounds=options.rounds,
            device=options.device,
            target=target,
            items=len(shown),
            flop=len(shown) * flop,
            error=check_results(arm, restorer, image, shown, same_pasting=arm is one_by_one),
            note=note,
        )

    rows = [
        row(
            one_by_one,
            "Restorer.restore, face by face",
            faces,
            TARGETS[options.device],
            network_time(restorer, len(faces), options.device),
        ),
        row(on_full_frames, "face by face, blended at the size of the photograph", faces[:COLUMNS], None, USUAL),
    ]
    if options.device != "cuda":
        rows.append(not_measured("30 faces of a photograph, on a GPU", target=TARGETS["cuda"]))
    report("A group photograph", rows, options)


if __name__ == "__main__":
    main()
