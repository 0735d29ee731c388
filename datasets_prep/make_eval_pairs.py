"""Write the degraded faces of an evaluation and their ground truth to disk, to test other methods on them.

    python datasets_prep/make_eval_pairs.py -opt options/evaluate/table1.yml --output datasets/table1
    python datasets_prep/make_eval_pairs.py --type fsr --input CelebA-HQ --size 1024 --output datasets/fsr

It makes `gt` and `lq` in the output, with `--lmdb` `gt.lmdb` and `lq.lmdb` in BasicSR's format; a protocol with
several conditions has `lq_8x`, `lq_16x` and so on, and one with references also `ref`. Degraded faces keep their own
size. `pairs.json` says what was done to each image, and holds the fingerprint of the protocol. An image that cannot be
read is reported and skipped.

It can be stopped at any time: the same command resumes folders and restarts LMDBs. To read
the result, use `protocol: {type: pairs, dataroot_lq: .../lq, dataroot_gt: .../gt}`, or the same two roots in a
`GPENDegradationDataset`.
"""

import argparse
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import lmdb
import numpy as np
from tqdm import tqdm

from gpen_plugin.baselines.method import Sample
from gpen_plugin.config.schema import read_options
from gpen_plugin.data.lmdb_file import lmdb_key
from gpen_plugin.errors import DataError, OptionError, handle_errors
from gpen_plugin.evaluate.fingerprint import compute_fingerprint
from gpen_plugin.evaluate.protocols import Protocol, build_protocol, join_keys
from gpen_plugin.evaluate.results import write_text
from gpen_plugin.evaluate.run import file_holds
from gpen_plugin.images.files import write_image

MANIFEST, BEGUN, MAKING = "pairs.json", "begun.json", ".making"
COMPRESS_LEVEL = 1  # of the PNG images in an LMDB, as BasicSR's own
BATCH = 128  # images per commit; the host's 5000 are held in memory
LONGEST_KEY = 511  # bytes, fixed when the lmdb library is built

Write = Callable[[str, str, np.ndarray], None]  # name of the set, key, image


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-opt", type=Path, metavar="FILE", help="option file of an evaluation, for its protocol")
    parser.add_argument("--force_yml", nargs="+", default=[], metavar="KEY=VALUE", help="protocol:out_size=64, ...")
    parser.add_argument("--type", choices=("bfr", "fsr"), help="the protocol, without an option file")
    parser.add_argument("-i", "--input", help="folder, zip file or LMDB of faces")
    parser.add_argument("-s", "--size", type=int, help="side of the ground truth in pixels")
    parser.add_argument("--seed", type=int, help="of the degradations of bfr (default 0)")
    parser.add_argument("--scales", type=int, nargs="+", help="of fsr (default 8 16 32 64 128 256)")
    parser.add_argument("--limit", type=int, help="use only this many images, the first by name")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to make")
    parser.add_argument("--lmdb", action="store_true", help="write LMDBs instead of folders")
    return parser


@handle_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Write the pairs of a protocol.

    Args:
        argv: command line without the program's name; None for the real one.
    Returns:
        Exit status: 0 if the pairs are whole, be it without some unreadable images; 1 otherwise.
    """
    arguments = parser().parse_args(argv)
    options = _protocol_options(arguments)
    protocol = build_protocol(options)
    if not all(map(protocol.has_truth_of, protocol.keys)):
        raise OptionError("protocol:type", f"got '{protocol.kind}', which has no ground truth", "bfr, fsr or pairs")
    _spare_originals(options, arguments.output)
    try:
        _make(protocol, arguments.output, arguments.lmdb)
    except KeyboardInterrupt:
        print(f"\nStopped. The same command resumes {arguments.output}.", file=sys.stderr)
        return 130
    except (OSError, lmdb.Error) as error:
        got = f"cannot be written ({error})"
        raise DataError(str(arguments.output), got, "a writable folder with space left") from error
    return 0


def _protocol_options(arguments: argparse.Namespace) -> object:
    """The section ``protocol`` of the option file, or the one that the arguments stand for."""
    given = {
        "type": arguments.type,
        "dataroot_gt": arguments.input,
        "out_size": arguments.size,
        "seed": arguments.seed,
        "scales": arguments.scales,
        "num_images": arguments.limit,
    }
    given = {key: value for key, value in given.items() if value is not None}
    if arguments.opt:
        if given:
            parser().error("-opt names the protocol: change it with --force_yml protocol:KEY=VALUE")
        return read_options(arguments.opt, arguments.force_yml).get("protocol")
    if arguments.force_yml:
        parser().error("--force_yml changes an option file: name it with -opt")
    if not {"type", "dataroot_gt", "out_size"} <= given.keys():
        parser().error("give -opt FILE, or --type, --input and --size")
    return given


def _spare_originals(options: Mapping, output: Path) -> None:
    """Refuse an output where its images would be taken for originals later."""
    for key, root in options.items():
        if key.startswith("dataroot_") and output.resolve().is_relative_to(Path(root).expanduser().resolve()):
            raise OptionError("--output", f"got {output}, which lies in {key} {root}", "a folder outside of it")


def _make(protocol: Protocol, output: Path, as_lmdb: bool) -> None:
    made_from = {
        "kind": protocol.kind,
        "options": protocol.options(),
        "images": len(protocol.keys),
        "names": hashlib.sha256("\n".join(protocol.keys).encode("utf-8", "surrogateescape")).hexdigest(),
        "lmdb": as_lmdb,
    }
    if _is_finished(output, made_from):
        return
    if as_lmdb:
        _check_names(protocol.keys)
    unreadable: list[str] = []
    with (_lmdbs if as_lmdb else _folders)(output) as write:
        fingerprint = compute_fingerprint(protocol, _write_samples(protocol, write, unreadable))
        if not fingerprint.inputs:
            raise DataError("protocol", f"none of {len(protocol.keys)} images can be read", "at least one")
    done = {key: _degradations(protocol, key) for key in fingerprint.inputs}
    manifest = {
        "made_from": made_from,
        "fingerprint": fingerprint.to_dict(),
        "notes": protocol.notes,
        "images": done,
        "unreadable": unreadable,
    }
    write_text(output / MANIFEST, json.dumps(manifest, indent=1) + "\n")
    (output / BEGUN).unlink()
    for note in protocol.notes:
        print(note)
    print(f"{output}: {len(done)} images, {len(unreadable)} left out.\n{fingerprint}")


def _is_finished(output: Path, made_from: Mapping) -> bool:
    """Whether there is nothing to do; makes the folder and notes what it is being made from if it is new."""
    note = next((output / name for name in (MANIFEST, BEGUN) if (output / name).is_file()), None)
    if note is None:
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            got = f"{output} exists and was not made by this script"
            raise DataError("--output", got, "a new name", "Choose another name, or remove what is there.")
        write_text(output / BEGUN, json.dumps(made_from))
        return False
    held = _read_note(note)
    earlier = held["made_from"] if note.name == MANIFEST else held
    differing = [name for name in made_from if earlier.get(name) != json.loads(json.dumps(made_from[name]))]
    if differing:
        got = f"{output} was begun with other {', '.join(differing)}"
        raise DataError("--output", got, "the same command as before", "Choose another name, or remove it.")
    if note.name == MANIFEST:
        print(f"{output} is finished: {len(held['images'])} images, {len(held['unreadable'])} left out.")
    return note.name == MANIFEST


def _read_note(note: Path) -> Mapping:
    """What this script has written about the folder."""
    wanted = {"made_from", "images", "unreadable"} if note.name == MANIFEST else {"kind", "options"}
    try:
        held = json.loads(note.read_text(encoding="utf-8"))
        if not isinstance(held, dict) or not wanted <= held.keys():
            raise ValueError(f"lacks {', '.join(sorted(wanted))}")
    except (OSError, ValueError) as error:
        raise DataError(str(note), f"is damaged ({error})", "what this script wrote", "Remove the folder.") from error
    return held


def _check_names(keys: Sequence[str]) -> None:
    long = [key for key in keys if len(lmdb_key(key)) > LONGEST_KEY]
    if long:
        raise DataError(
            "--lmdb", f"names too long: {join_keys(long)}", f"at most {LONGEST_KEY} bytes", "Leave out --lmdb."
        )


def _write_samples(protocol: Protocol, write: Write, unreadable: list[str]) -> Iterator[Sample]:
    """Every case once it is written. Images that cannot be read are entered into `unreadable`."""
    for key in tqdm(protocol.keys, unit="image"):
        try:
            samples = [protocol.sample(key, condition) for condition in protocol.conditions]
        except DataError as error:
            tqdm.write(f"left out: {error}", file=sys.stderr)
            unreadable.append(key)
            continue
        write("gt", key, samples[0].gt)
        if samples[0].ref is not None:
            write("ref", key, samples[0].ref)
        for sample in samples:
            write(f"lq_{sample.condition}" if sample.condition else "lq", key, sample.lq)
        yield from samples


def _degradations(protocol: Protocol, key: str) -> dict[str, str] | str:
    """What was done to an image, by condition where there are several."""
    done = {condition: protocol.degradation(key, condition) for condition in protocol.conditions}
    return done.get("", done)


@contextmanager
def _folders(output: Path) -> Iterator[Write]:
    """A function that writes PNG files where there are none yet, or others than are wanted now."""

    def write(name: str, key: str, image: np.ndarray) -> None:
        path = output / name / f"{key}.png"
        if not file_holds(path, image):
            write_image(path, image)

    yield write


@contextmanager
def _lmdbs(output: Path) -> Iterator[Write]:
    """A function that stores images in LMDBs, which get their names when all are whole."""
    from basicsr.utils.lmdb_util import LmdbMaker

    making = output / MAKING
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir()
    makers: dict[str, LmdbMaker] = {}

    def write(name: str, key: str, image: np.ndarray) -> None:
        if name not in makers:
            path = str(making / f"{name}.lmdb")
            makers[name] = LmdbMaker(path, batch=BATCH, compress_level=COMPRESS_LEVEL)
        encoded, png = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, COMPRESS_LEVEL])
        assert encoded, "OpenCV was built without PNG"
        makers[name].put(png.tobytes(), lmdb_key(key), image.shape)

    try:
        yield write
    finally:
        for maker in makers.values():
            maker.close()
    for name in makers:
        shutil.rmtree(output / f"{name}.lmdb", ignore_errors=True)
        os.replace(making / f"{name}.lmdb", output / f"{name}.lmdb")
    making.rmdir()


if __name__ == "__main__":
    sys.exit(main())
