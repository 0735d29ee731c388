"""`make demo`: restore a portrait, and train the default model on, or both stages from nothing."""

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

EYES = ((206.0, 107.0), (243.0, 107.0))
"""x and y of the eyes, left and right in the image, in pixels."""


def portrait() -> np.ndarray:
    """Eileen Collins, photographed by NASA; public domain. (512, 512, 3) BGR uint8."""
    from skimage.data import astronaut

    return np.ascontiguousarray(astronaut()[:, :, ::-1])


PRIOR_OPTIONS = Path("options/gpen_demo_prior.yml")
OPTIONS = Path("options/gpen_demo.yml")
TRAIN_ON = Path("options/gpen_finetune_shipped.yml")  # from the model that comes with the package
DATA = Path("datasets/demo")
OUTPUT = Path("demo")
SHOWN = 4  # rows of the image
# The portrait, as a bad scan of a small print: each range holds one value.
SPOILT = {"blur_sigma": [0.6, 0.6], "downsample_range": [3, 3], "noise_range": [5, 5], "jpeg_range": [70, 70]}
ENLARGED = 3  # what the photograph has lost in size
FACE = np.s_[40:200, 145:305]  # in the portrait

# Table 1 of the paper: what each network has in place of GPEN's own, as the host's --force_yml takes it.
VARIANTS: dict[str, dict[str, str]] = {
    "GPEN": {},
    "w/o-ft": {"train:freeze_decoder": "true"},
    "w/o-noise": {"network_g:noise_mode": "none"},
    "noise-add": {"network_g:noise_mode": "add"},
}


@handle_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo.

    Args:
        argv: command line without the program's name; None for the real one.
    Returns:
        Exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m gpen_plugin.demo", description=__doc__.partition("\n")[0])
    parser.add_argument("--faces", type=Path, help="folder or zip of face images; default: drawn faces and a portrait")
    parser.add_argument("--train", type=int, help="images to train on, at most (default 400, of --faces 4000)")
    parser.add_argument("--scratch", action="store_true", help="both stages from nothing, at 64 px")
    parser.add_argument("--variants", action="store_true", help="the same for all networks of the paper's Table 1")
    arguments = parser.parse_args(argv)
    for path in (PRIOR_OPTIONS, OPTIONS, TRAIN_ON):
        if not path.is_file():
            raise DataError(str(path), "not there", "a checkout of the project as current folder", "Run it from there.")
    from_nothing = arguments.scratch or arguments.variants
    options = yaml.safe_load((OPTIONS if from_nothing else TRAIN_ON).read_text())
    if arguments.faces:
        arguments.faces = arguments.faces.expanduser()
        open_folder_or_zip(arguments.faces, "--faces")  # before an earlier demo is cleared away
        _check_outside(arguments.faces)
    started = time.monotonic()
    _prepare(options, arguments)
    _degrade(options["datasets"]["val"])
    if not from_nothing:
        _restore_portrait()
    networks = _from_nothing(arguments.variants) if from_nothing else _trained_on(options["name"])
    for name, weights in networks.items():
        _restore(name, weights)
    _report(list(networks))
    print(f"Took {time.monotonic() - started:.0f} s.")
    return 0


def _check_outside(faces: Path) -> None:
    """Refuse faces in a folder that the demo clears."""
    for folder in (DATA, OUTPUT):
        if faces.resolve().is_relative_to(folder.resolve()):
            got = f"got {faces}, which lies in {folder}"
            raise OptionError("--faces", got, "another folder", f"Move it: the demo removes {folder} before it starts.")


def _prepare(options: dict, arguments: argparse.Namespace) -> None:
    """Faces for training and validation at the demo's size, then one LMDB each."""
    size = str(options["network_g"]["out_size"])
    for old in (DATA, OUTPUT):  # nothing but earlier demos lies there
        shutil.rmtree(old, ignore_errors=True)
    given = ["--input", arguments.faces] if arguments.faces else []
    train = arguments.train or (4000 if arguments.faces else 400)
    counts = ["--train", train, "--val", options["datasets"]["val"]["num_images"]]
    framing = ["--framing", "ffhq" if arguments.scratch or arguments.variants else "dlib"]
    where = ["--output", DATA / "faces", "--size", size, *framing]
    _python("datasets_prep/make_demo_faces.py", *where, *counts, *given)
    for part in ("train", "val"):
        source, target = DATA / "faces" / part, DATA / f"{part}.lmdb"
        _python("datasets_prep/make_lmdb.py", "--input", source, "--output", target, "--size", size)


def _train_priors(noise_modes: set[str]) -> None:
    """Stage one, for each way in which the variants take their noise; and a page of samples."""
    for mode in sorted(noise_modes):
        name = f"gpen_demo_prior_{mode}"
        _train(PRIOR_OPTIONS, {"network_g:noise_mode": mode, "name": name})
        _python("-m", "gpen_plugin.sample", "-m", _weights(name), "-o", OUTPUT / f"prior_{mode}.png", "--columns", 8)


def _from_nothing(all_variants: bool) -> dict[str, Path]:
    """Both stages: the weights of GPEN, or of all networks of Table 1, by their names."""
    variants = list(VARIANTS) if all_variants else ["GPEN"]
    _train_priors({VARIANTS[name].get("network_g:noise_mode", "concat") for name in variants})
    for name in variants:
        _train(OPTIONS, {**VARIANTS[name], "name": f"gpen_demo_{_folder(name)}"})
    return {name: _weights(f"gpen_demo_{_folder(name)}") for name in variants}


def _trained_on(experiment: str) -> dict[str, Path | None]:
    """The model that comes with the package, and the same after more training."""
    _train(TRAIN_ON, {"name": experiment})
    return {"as it comes": None, "trained on": _weights(experiment)}


def _restore(name: str, weights: Path | None) -> None:
    """The degraded faces, restored; without weights by what the package brings along."""
    output = OUTPUT / "restored" / _folder(name)
    model = ["-m", weights] if weights else []
    _python("-m", "gpen_plugin.restore", OUTPUT / "degraded", "-o", output, "--aligned", *model)


def _folder(variant: str) -> str:
    return variant.lower().replace("/", "").replace("-", "_").replace(" ", "_")


def _weights(experiment: str) -> Path:
    return Path("experiments") / experiment / "models" / "net_g_latest.pth"


def _train(options: Path, changes: Mapping[str, str]) -> None:
    """The host's own script, its log turned into one line of progress."""
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
    """The validation's faces, degraded as the validation degrades them: one image each, at its own small size."""
    ranges = DegradationRanges(**data["degradation"])
    for key, face in _validation_faces():
        recipe = sample_recipe(ranges, rng_from_key(data["seed"], key))
        write_image(OUTPUT / "degraded" / f"{key}.png", degrade_lowres(face, recipe))


def _restore_portrait() -> None:
    """A photograph, small and spoilt, restored as anybody would; and its face beside what it was."""
    original = portrait()
    spoilt = OUTPUT / "portrait" / "photograph.png"
    recipe = sample_recipe(DegradationRanges(**SPOILT), rng_from_key(0, "portrait"))
    write_image(spoilt, degrade_lowres(original, recipe))
    restored = OUTPUT / "portrait" / "restored.png"
    _python("-m", "gpen_plugin.restore", spoilt, "-o", restored, "--upscale", ENLARGED)
    shown = [cv2.resize(cv2.imread(str(path)), original.shape[1::-1]) for path in (spoilt, restored)]
    faces = [image[FACE] for image in (*shown, original)]
    write_image(OUTPUT / "portrait.png", sheet([faces], ["photograph", "gpen-restore", "original"], tile=256))
    print(f"The portrait: {OUTPUT / 'portrait.png'}")


def _report(variants: Sequence[str]) -> None:
    """Figures of all restored faces, and an image of the first few."""
    rows, versions = [], {}
    for key, original in _validation_faces():
        degraded = cv2.imread(str(OUTPUT / "degraded" / f"{key}.png"))
        bilinear = cv2.resize(degraded, original.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        restored = {name: cv2.imread(str(OUTPUT / "restored" / _folder(name) / f"{key}.png")) for name in variants}
        rows.append((degraded, bilinear, *restored.values(), original))
        for name, image in {"degraded, enlarged bilinearly": bilinear, **restored}.items():
            versions.setdefault(name, []).append((image, original))
    titles = ["degraded", "bilinear", *(variants if len(variants) > 1 else ["restored"]), "original"]
    write_image(OUTPUT / "demo.png", sheet(rows[:SHOWN], titles, tile=192))
    print(f"\n{f'{len(rows)} faces that training never saw':32} {'PSNR':>8} {'SSIM':>8} {'SWD (lower is better)':>24}")
    for name, pairs in versions.items():
        print(f"  {name:30} " + "{:8.2f} {:8.4f} {:10.1f}".format(*_figures(pairs)))
    print(f"\nThe image: {OUTPUT / 'demo.png'}   Curves: tensorboard --logdir tb_logger")


def _figures(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[float]:
    """PSNR, SSIM and sliced Wasserstein distance of images and their originals."""
    from basicsr.metrics import calculate_psnr, calculate_ssim

    from gpen_plugin.metrics.swd import calculate_swd

    means = [
        float(np.mean([metric(one, other, crop_border=0) for one, other in pairs]))
        for metric in (calculate_psnr, calculate_ssim)
    ]
    return [*means, sum(calculate_swd(one, other) for one, other in pairs) / len(pairs)]


def _validation_faces() -> Iterator[tuple[str, np.ndarray]]:
    """The faces kept apart by key, which is the path below their folder without the suffix, as in val.lmdb."""
    faces = FolderSource(DATA / "faces" / "val", "faces")
    return ((key, faces.read(key)) for key in faces.keys)


def _python(*command: object) -> None:
    words = [str(word) for word in command]
    print("$ python", *words, flush=True)
    status = subprocess.run([sys.executable, *words], check=False).returncode
    if status:
        raise GPENError(words[0], f"ended with status {status}", "status 0", "Its message stands above.")


if __name__ == "__main__":
    sys.exit(main())
