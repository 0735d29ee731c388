"""``python -m gpen_plugin.restore --aligned -i FACES -o RESTORED -m net_g_latest.pth``"""

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from gpen_plugin.data.image_source import ImageSource, ZipSource, decode_picture, open_folder_or_zip
from gpen_plugin.errors import DataError, OptionError, told_plainly
from gpen_plugin.picture_file import write_picture
from gpen_plugin.restore import AlignedRestorer


class OnePicture:
    """A single picture file, as a source of one key.

    Args:
        path: the file.
    """

    def __init__(self, path: Path):
        self._path = path
        self.keys = [path.stem]

    def read(self, key: str) -> np.ndarray:
        """See `ImageSource`."""
        return decode_picture(self._path.read_bytes(), self.name(key))

    def name(self, key: str) -> str:
        """See `ImageSource`."""
        return str(self._path)


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(prog="python -m gpen_plugin.restore", description="Restore degraded faces.")
    parser.add_argument("-i", "--input", type=Path, required=True, help="a picture, or a folder or zip of pictures")
    parser.add_argument("-o", "--output", type=Path, required=True, help="another folder, for restored PNG files")
    parser.add_argument("-m", "--model", type=Path, required=True, help="weights: ours or a released GPEN file")
    parser.add_argument("--aligned", action="store_true", help="each picture shows one aligned face (required)")
    parser.add_argument("--key", help="entry of the weight file, e.g. params_ema; default: the averaged weights")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps; default: a GPU where there is one")
    parser.add_argument("--batch", type=int, default=4, help="pictures restored at once (default 4)")
    return parser


@told_plainly
def main(argv: Sequence[str] | None = None) -> int:
    """Restore every picture of the input; an unreadable one is reported, and the others go on.

    Args:
        argv: command line without the program's name; None for the real one.
    Returns:
        Exit status: 0 if every picture was restored, 1 otherwise.
    """
    options = parser().parse_args(argv)
    if not options.aligned:
        parser().error("this version restores aligned faces only, it does not look for them: pass --aligned")
    if options.batch < 1:
        parser().error(f"--batch: got {options.batch}; expected a number from 1")
    source = _source(options.input)
    _spare_originals(source, options)
    restorer = AlignedRestorer(options.model, options.key, options.device)
    failures: list[DataError] = []
    with tqdm(total=len(source.keys), unit="face") as progress:
        for batch in _batches(source, options.batch, failures):
            for key, restored in zip(batch, restorer(list(batch.values())), strict=True):
                write_picture(options.output / f"{key}.png", restored)
            progress.update(len(batch))
    for failure in failures:
        print(f"gpen_plugin: skipped: {failure}", file=sys.stderr)
    restored = len(source.keys) - len(failures)
    print(f"{restored} of {len(source.keys)} faces restored to {options.output} by {restorer.spec}")
    return 1 if failures else 0


def _source(path: Path) -> ImageSource:
    if not path.exists():
        raise DataError("--input", f"{path} is not there", "a picture, a folder or a zip", "Mend the path.")
    if path.is_file() and path.suffix.lower() != ".zip":
        return OnePicture(path)
    return open_folder_or_zip(path, "--input")


def _spare_originals(source: ImageSource, options: argparse.Namespace) -> None:
    """Refuse to write where pictures of the input are: over them, or where they are taken for originals later."""
    if isinstance(source, ZipSource):
        return
    files = [Path(source.name(key)) for key in source.keys]
    originals = _folders([options.input, *(file.parent for file in files), *(file.resolve().parent for file in files)])
    targets = _folders([options.output, *((options.output / key).parent for key in source.keys)])
    if originals & targets:
        came = f"got {options.output}, and pictures of the input are where pictures would be written"
        raise OptionError("--output", came, "another folder", "Name a new one: the originals are left as they are.")


def _folders(paths: Iterable[Path]) -> set[tuple[int, int]]:
    """Which folders these are, whatever links and spellings lead there; those that are not there yet are none."""
    stats = [path.stat() for path in set(paths) if path.is_dir()]
    return {(stat.st_dev, stat.st_ino) for stat in stats}


def _batches(source: ImageSource, size: int, failures: list[DataError]) -> Iterator[dict[str, np.ndarray]]:
    """Readable pictures by key, `size` at a time; the others are entered into `failures`."""
    batch: dict[str, np.ndarray] = {}
    for key in source.keys:
        try:
            batch[key] = source.read(key)
        except DataError as failure:
            failures.append(failure)
        if len(batch) == size:
            yield batch
            batch = {}
    if batch:
        yield batch


if __name__ == "__main__":
    sys.exit(main())
