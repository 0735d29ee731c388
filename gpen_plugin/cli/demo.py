"""``make demo``: restore a portrait and fine-tune the default model, or train both stages from scratch."""

import argparse
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import yaml
from tqdm import tqdm

from gpen_plugin.data.degradation import DegradationRanges, degrade_lowres, sample_recipe
from gpen_plugin.data.image_source import FolderSource, open_folder_or_zip
from gpen_plugin.data.rng import rng_from_key
from gpen_plugin.errors import DataError, GPENError, OptionError, handle_errors
from gpen_plugin.images.files import write_image
from gpen_plugin.images.grid import sheet

EYES = ((206.0, 107.0), (243.0, 107.0))  # of the portrait: x and y, left and right in the image


def portrait() -> np.ndarray:
    """Eileen Collins, photographed by NASA; public domain. (512, 512, 3) BGR uint8."""
    from skimage.data import astronaut

    return np.ascontiguousarray(astronaut()[:, :, ::-1])


PRIOR_OPTIONS = Path("options/gpen_demo_prior.yml")
OPTIONS = Path("options/gpen_demo.yml")
FINETUNE_OPTIONS = Path("options/gpen_finetune_shipped.yml")  # starts from the default model
DATA = Path("datasets/demo")
OUTPUT = Path("demo")
SHEET_ROWS = 4  # rows of demo.png
# Like a bad scan of a small print. Each range holds one value.
PORTRAIT_DEGRADATION = {
    "blur_sigma": [0.6, 0.6],
    "downsample_range": [3, 3],
    "noise_range": [5, 5],
    "jpeg_range": [70, 70],
}
PORTRAIT_SCALE = 3  # undoes the downsampling
PORTRAIT_FACE = np.s_[40:200, 145:305]  # in the portrait

# Table 1 of the paper: the changes of each network to GPEN, for --force_yml.
VARIANTS: dict[str, dict[str, str]] = {
    "GPEN": {},
    "w/o-ft": {"train:freeze_decoder": "true"},
    "w/o-noise": {"network_g:noise_mode": "none"},
    "noise-add": {"network_g:noise_mode": "add"},
}


@handle_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m gpen_plugin.demo",
        description="Restore a portrait and fine-tune the default model, or train both stages from scratch.",
    )
    parser.add_argument("--faces", type=Path, help="folder or zip file of faces (default: drawn faces)")
    train_help = "maximum number of training images (default: 100, from scratch 400, with --faces 4000)"
    parser.add_argument("--train", type=int, help=train_help)
    parser.add_argument("--scratch", action="store_true", help="train both stages from scratch at 64 px")
    parser.add_argument(
        "--variants", action="store_true", help="train the four networks of the paper's Table 1 from scratch"
    )
    arguments = parser.parse_args(argv)
    for path in (PRIOR_OPTIONS, OPTIONS, FINETUNE_OPTIONS):
        if not path.is_file():
            raise DataError(str(path), "does not exist", "a checkout of the project as current folder", "Change to it.")
    from_scratch = arguments.scratch or arguments.variants
    options = yaml.safe_load((OPTIONS if from_scratch else FINETUNE_OPTIONS).read_text())
    if arguments.faces:
        arguments.faces = arguments.faces.expanduser()
        open_folder_or_zip(arguments.faces, "--faces")  # before an earlier demo is deleted
        _check_faces_folder(arguments.faces)
    started = time.monotonic()
    _prepare(options, arguments)
    _degrade(options["datasets"]["val"])
    if not from_scratch:
        _restore_portrait()
    networks = _train_from_scratch(arguments.variants) if from_scratch else _finetune(options["name"])
    for name, weights in networks.items():
        _restore(name, weights)
    _report(list(networks))
    print(f"Took {time.monotonic() - started:.0f} s.")
    return 0


def _check_faces_folder(faces: Path) -> None:
    """Refuse faces in a folder that the demo deletes."""
    for folder in (DATA, OUTPUT):
        if faces.resolve().is_relative_to(folder.resolve()):
            got = f"got {faces}, which is in {folder}"
            raise OptionError("--faces", got, "another folder", f"Move it: the demo deletes {folder} when it starts.")


def _prepare(options: dict, arguments: argparse.Namespace) -> None:
    """Make the training and the validation faces, and an LMDB of each."""
    size = str(options["network_g"]["out_size"])
    for old in (DATA, OUTPUT):  # they hold earlier demos only
        shutil.rmtree(old, ignore_errors=True)
    given = ["--input", arguments.faces] if arguments.faces else []
    drawn = 400 if arguments.scratch or arguments.variants else 100  # at 256 px each takes a second
    train = arguments.train or (4000 if arguments.faces else drawn)
    counts = ["--train", train, "--val", options["datasets"]["val"]["num_images"]]
    framing = ["--framing", "ffhq" if arguments.scratch or arguments.variants else "dlib"]
    where = ["--output", DATA / "faces", "--size", size, *framing]
    _run_python("datasets_prep/make_demo_faces.py", *where, *counts, *given)
    for part in ("train", "val"):
        source, target = DATA / "faces" / part, DATA / f"{part}.lmdb"
        _run_python("datasets_prep/make_lmdb.py", "--input", source, "--output", target, "--size", size)


def _train_priors(noise_modes: set[str]) -> None:
    """Train a prior for each noise mode, and draw samples."""
    for mode in sorted(noise_modes):
        name = f"gpen_demo_prior_{mode}"
        _train(PRIOR_OPTIONS, {"network_g:noise_mode": mode, "name": name})
        _run_python(
            "-m", "gpen_plugin.sample", "-m", _weights_path(name), "-o", OUTPUT / f"prior_{mode}.png", "--columns", 8
        )


def _train_from_scratch(all_variants: bool) -> dict[str, Path]:
    """Train both stages; return the weights of GPEN, or of all networks of Table 1, by name."""
    variants = list(VARIANTS) if all_variants else ["GPEN"]
    _train_priors({VARIANTS[name].get("network_g:noise_mode", "concat") for name in variants})
    for name in variants:
        _train(OPTIONS, {**VARIANTS[name], "name": f"gpen_demo_{_folder_name(name)}"})
    return {name: _weights_path(f"gpen_demo_{_folder_name(name)}") for name in variants}


def _finetune(experiment: str) -> dict[str, Path | None]:
    """Fine-tune the default model; return its weights (None: the package's) and the new ones by name."""
    _train(FINETUNE_OPTIONS, {"name": experiment})
    return {"default": None, "fine-tuned": _weights_path(experiment)}


def _restore(name: str, weights: Path | None) -> None:
    """Restore the degraded faces; without weights by the default model."""
    output = OUTPUT / "restored" / _folder_name(name)
    model = ["-m", weights] if weights else []
    _run_python("-m", "gpen_plugin.restore", OUTPUT / "degraded", "-o", output, "--aligned", *model)


def _folder_name(variant: str) -> str:
    return variant.lower().replace("/", "").replace("-", "_").replace(" ", "_")


def _weights_path(experiment: str) -> Path:
    return Path("experiments") / experiment / "models" / "net_g_latest.pth"


def _train(options: Path, changes: Mapping[str, str]) -> None:
    """Run BasicSR's training script with a progress bar instead of its log."""
    script = Path(find_spec("basicsr").submodule_search_locations[0]) / "train.py"
    words = ["-opt", str(options), "--force_yml", *(f"{key}={value}" for key, value in changes.items())]
    print("$ python basicsr/train.py", *words, flush=True)
    command = [sys.executable, str(script), *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        log = []
        total = yaml.safe_load(options.read_text())["train"]["total_iter"]
        with tqdm(total=total, unit="it", desc="training") as progress:
            for line in process.stdout:
                log = [*log[-60:], line]
                iterations = re.findall(r"\biter: *([\d,]+), ", line)
                if iterations:
                    progress.update(int(iterations[-1].replace(",", "")) - progress.n)
                    progress.set_postfix_str(" ".join(re.findall(r"l_g_(?:gan|pix): \S+", line)), refresh=False)
    if process.returncode:
        raise GPENError("training", f"ended with status {process.returncode}", "status 0", "Its log:\n" + "".join(log))


def _degrade(data: dict) -> None:
    """Degrade the validation faces as in training's validation; write each at its small size."""
    ranges = DegradationRanges(**data["degradation"])
    for key, face in _validation_faces():
        recipe = sample_recipe(ranges, rng_from_key(data["seed"], key))
        write_image(OUTPUT / "degraded" / f"{key}.png", degrade_lowres(face, recipe))


def _restore_portrait() -> None:
    """Degrade and restore the portrait; write both faces beside the original."""
    original = portrait()
    degraded = OUTPUT / "portrait" / "photograph.png"
    recipe = sample_recipe(DegradationRanges(**PORTRAIT_DEGRADATION), rng_from_key(0, "portrait"))
    write_image(degraded, degrade_lowres(original, recipe))
    restored = OUTPUT / "portrait" / "restored.png"
    _run_python("-m", "gpen_plugin.restore", degraded, "-o", restored, "--upscale", PORTRAIT_SCALE)
    shown = [cv2.resize(cv2.imread(str(path)), original.shape[1::-1]) for path in (degraded, restored)]
    faces = [image[PORTRAIT_FACE] for image in (*shown, original)]
    write_image(OUTPUT / "portrait.png", sheet([faces], ["photograph", "gpen-restore", "original"], tile=256))
    print(f"Portrait: {OUTPUT / 'portrait.png'}")


def _report(variants: Sequence[str]) -> None:
    """Print the metrics of all restored faces; write a sheet of the first ones."""
    rows, versions = [], {}
    for key, original in _validation_faces():
        degraded = cv2.imread(str(OUTPUT / "degraded" / f"{key}.png"))
        bilinear = cv2.resize(degraded, original.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        restored = {name: cv2.imread(str(OUTPUT / "restored" / _folder_name(name) / f"{key}.png")) for name in variants}
        rows.append((degraded, bilinear, *restored.values(), original))
        for name, image in {"degraded, enlarged bilinearly": bilinear, **restored}.items():
            versions.setdefault(name, []).append((image, original))
    titles = ["degraded", "bilinear", *(variants if len(variants) > 1 else ["restored"]), "original"]
    write_image(OUTPUT / "demo.png", sheet(rows[:SHEET_ROWS], titles, tile=192))
    print(f"\n{f'{len(rows)} faces not used in training':32} {'PSNR':>8} {'SSIM':>8} {'SWD (lower is better)':>24}")
    for name, pairs in versions.items():
        print(f"  {name:30} " + "{:8.2f} {:8.4f} {:10.1f}".format(*_metrics(pairs)))
    print(f"\nImage: {OUTPUT / 'demo.png'}   Curves: tensorboard --logdir tb_logger")


def _metrics(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[float]:
    """PSNR, SSIM and sliced Wasserstein distance of pairs (image, original)."""
    from basicsr.metrics import calculate_psnr, calculate_ssim

    from gpen_plugin.metrics.swd import calculate_swd

    means = [
        float(np.mean([metric(one, other, crop_border=0) for one, other in pairs]))
        for metric in (calculate_psnr, calculate_ssim)
    ]
    return [*means, sum(calculate_swd(one, other) for one, other in pairs) / len(pairs)]


def _validation_faces() -> Iterator[tuple[str, np.ndarray]]:
    """The validation faces with their keys, which are those of val.lmdb."""
    faces = FolderSource(DATA / "faces" / "val", "faces")
    return ((key, faces.read(key)) for key in faces.keys)


def _run_python(*command: object) -> None:
    words = [str(word) for word in command]
    print("$ python", *words, flush=True)
    status = subprocess.run([sys.executable, *words], check=False).returncode
    if status:
        raise GPENError(words[0], f"ended with status {status}", "status 0", "See its message above.")


if __name__ == "__main__":
    sys.exit(main())
