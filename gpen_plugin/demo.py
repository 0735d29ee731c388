"""``make demo``: faces -> LMDB -> the host's training script -> restored faces that training never saw -> one picture.

Each step is the command that a user would type; this file only types them. Everything is written below the current
folder, which has to be a checkout of the project: datasets/demo, experiments/gpen_demo, demo.
"""

import argparse
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import yaml
from tqdm import tqdm

from gpen_plugin.data.image_source import open_folder_or_zip
from gpen_plugin.errors import DataError, GPENError, told_plainly
from gpen_plugin.picture_file import write_picture
from gpen_plugin.sheet import sheet

OPTIONS = Path("options/gpen_demo.yml")
DATA = Path("datasets/demo")
OUTPUT = Path("demo")
SHOWN = 4  # rows of the picture


@told_plainly
def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo.

    Args:
        argv: command line without the program's name; None for the real one.
    Returns:
        Exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m gpen_plugin.demo", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--faces", type=Path, help="folder or zip of face pictures; default: drawn faces and a portrait"
    )
    parser.add_argument("--train", type=int, help="pictures to train on, at most (default 400, of --faces 4000)")
    arguments = parser.parse_args(argv)
    if not OPTIONS.is_file():
        raise DataError(str(OPTIONS), "not there", "a checkout of the project as current folder", "Run it from there.")
    options = yaml.safe_load(OPTIONS.read_text())
    if arguments.faces:
        open_folder_or_zip(arguments.faces, "--faces")  # before an earlier demo is cleared away
    started = time.monotonic()
    _prepare(options, arguments)
    _train(options["train"]["total_iter"])
    _degrade(options["datasets"]["val"])
    weights = Path("experiments") / options["name"] / "models" / "net_g_latest.pth"
    _python(
        "-m", "gpen_plugin.restore", "--aligned", "-i", OUTPUT / "degraded", "-o", OUTPUT / "restored", "-m", weights
    )
    _report()
    print(f"Took {time.monotonic() - started:.0f} s.")
    return 0


def _prepare(options: dict, arguments: argparse.Namespace) -> None:
    """Faces for training and validation at the demo's size, then one LMDB each."""
    size = str(options["network_g"]["out_size"])
    for old in (DATA, OUTPUT):  # nothing but earlier demos lies there
        shutil.rmtree(old, ignore_errors=True)
    given = ["--input", arguments.faces] if arguments.faces else []
    train = arguments.train or (4000 if arguments.faces else 400)
    counts = ["--train", train, "--val", options["datasets"]["val"]["num_images"]]
    _python("datasets_prep/make_demo_faces.py", "--output", DATA / "faces", "--size", size, *counts, *given)
    for part in ("train", "val"):
        source, target = DATA / "faces" / part, DATA / f"{part}.lmdb"
        _python("datasets_prep/make_lmdb.py", "--input", source, "--output", target, "--size", size)


def _train(total_iter: int) -> None:
    """The host's own script, its log turned into one line of progress."""
    script = Path(find_spec("basicsr").submodule_search_locations[0]) / "train.py"
    command = [sys.executable, str(script), "-opt", str(OPTIONS)]
    print("$ python basicsr/train.py -opt", OPTIONS, flush=True)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        log = []
        with tqdm(total=total_iter, unit="it", desc="training") as progress:
            for line in process.stdout:
                log = [*log[-60:], line]
                found = re.search(r"iter: *([\d,]+), ", line)
                if found:
                    progress.update(int(found[1].replace(",", "")) - progress.n)
                    progress.set_postfix_str(" ".join(re.findall(r"l_g_pix: \S+", line)), refresh=False)
    if process.returncode:
        raise GPENError("training", f"ended with status {process.returncode}", "status 0", "Its log:\n" + "".join(log))


def _degrade(data: dict) -> None:
    """The validation's faces, degraded as the validation degrades them: one picture each, at its own small size."""
    from gpen_plugin.data.degradation import DegradationRanges, degrade_small, recipe_rng, sample_recipe

    ranges = DegradationRanges(**data["degradation"])
    for path, face in _pictures(DATA / "faces" / "val"):
        recipe = sample_recipe(ranges, recipe_rng(data["seed"], path.stem))
        write_picture(OUTPUT / "degraded" / path.name, degrade_small(face, recipe))


def _report() -> None:
    """Figures of all restored faces, and a picture of the first few."""
    from basicsr.metrics import calculate_psnr, calculate_ssim

    rows, figures = [], []
    for path, original in _pictures(DATA / "faces" / "val"):
        degraded = cv2.imread(str(OUTPUT / "degraded" / path.name))
        restored = cv2.imread(str(OUTPUT / "restored" / path.name))
        bilinear = cv2.resize(degraded, original.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        rows.append((degraded, bilinear, restored, original))
        figures.append(
            [
                metric(p, original, crop_border=0)
                for metric in (calculate_psnr, calculate_ssim)
                for p in (bilinear, restored)
            ]
        )
    picture = sheet(rows[:SHOWN], ["degraded", "bilinear", "restored", "original"], tile=192)
    write_picture(OUTPUT / "demo.png", picture)
    psnr_before, psnr_after, ssim_before, ssim_after = np.mean(figures, axis=0)
    print(f"\n{len(rows)} faces that training never saw       PSNR     SSIM")
    print(f"  degraded, enlarged bilinearly       {psnr_before:6.2f}   {ssim_before:6.4f}")
    print(f"  restored                            {psnr_after:6.2f}   {ssim_after:6.4f}")
    print(f"\nThe picture: {OUTPUT / 'demo.png'}   Curves: tensorboard --logdir tb_logger")


def _pictures(folder: Path) -> Iterator[tuple[Path, np.ndarray]]:
    for path in sorted(folder.glob("*.png")):
        yield path, cv2.imread(str(path))


def _python(*command: object) -> None:
    words = [str(word) for word in command]
    print("$ python", *words, flush=True)
    status = subprocess.run([sys.executable, *words], check=False).returncode
    if status:
        raise GPENError(words[0], f"ended with status {status}", "status 0", "Its message stands above.")


if __name__ == "__main__":
    sys.exit(main())
