"""``python -m gpen_plugin.restore --aligned -i FACES -o RESTORED -m net_g_latest.pth``"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from gpen_plugin.data.image_source import PICTURE_SUFFIXES, decode_picture
from gpen_plugin.errors import DataError, told_plainly
from gpen_plugin.picture_file import write_picture
from gpen_plugin.restore import AlignedRestorer


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(prog="python -m gpen_plugin.restore", description="Restore degraded faces.")
    parser.add_argument("-i", "--input", type=Path, required=True, help="a picture, or a folder of pictures")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the restored pictures (PNG)")
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
    paths = _pictures(options.input)
    restorer = AlignedRestorer(options.model, options.key, options.device)
    failures = []
    with tqdm(total=len(paths), unit="face") as progress:
        for batch in _batches(paths, options.batch, failures):
            for (path, _), restored in zip(batch, restorer([face for _, face in batch]), strict=True):
                write_picture(_target(path, options), restored)
            progress.update(len(batch))
    for failure in failures:
        print(f"gpen_plugin: skipped: {failure}", file=sys.stderr)
    print(f"{len(paths) - len(failures)} of {len(paths)} faces restored to {options.output} by {restorer.spec}")
    return 1 if failures else 0


def _pictures(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise DataError(f"--input {source}", "not there", "a picture or a folder", "Mend the path.")
    paths = sorted(path for path in source.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES)
    if not paths:
        raise DataError(f"--input {source}", "no pictures", "files " + ", ".join(PICTURE_SUFFIXES), "Mend the path.")
    return paths


def _batches(paths: list[Path], size: int, failures: list[DataError]) -> Iterator[list]:
    batch = []
    for path in paths:
        try:
            batch.append((path, decode_picture(path.read_bytes(), str(path))))
        except DataError as failure:
            failures.append(failure)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _target(path: Path, options: argparse.Namespace) -> Path:
    """Where the restoration of `path` goes: the input's folders below the output's."""
    inside = path.relative_to(options.input) if options.input.is_dir() else Path(path.name)
    return (options.output / inside).with_suffix(".png")


if __name__ == "__main__":
    sys.exit(main())
