"""Write the table of identities of CelebA-HQ, by which reference faces are found (``references: identities:``).

    python datasets_prep/celeba_identities.py --mapping CelebA-HQ-to-CelebA-mapping.txt \
        --identities identity_CelebA.txt --images datasets/celeba_hq/celeba_hq_1024_val.lmdb \
        --output datasets/celeba_hq/identities.csv

The mapping is a file of CelebAMask-HQ: a head line, then in each line the number of an image of CelebA-HQ, a number and
the name of its image in CelebA. The identities are a file of CelebA: the name of an image and the number of its person.
The table has the keys of `--images` (a folder, zip file or LMDB whose names end in CelebA-HQ's number, such as
`00017.png`); without it, the bare numbers.
"""

import argparse
import csv
import io
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from gpen_plugin.data.image_source import open_source
from gpen_plugin.data.references import COLUMNS
from gpen_plugin.errors import DataError, handle_errors
from gpen_plugin.images.files import write_whole

NUMBER = re.compile(r"\d+$")


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mapping", type=Path, required=True, help="CelebA-HQ-to-CelebA-mapping.txt")
    parser.add_argument("--identities", type=Path, required=True, help="identity_CelebA.txt")
    parser.add_argument("-i", "--images", type=Path, help="folder, zip file or LMDB of CelebA-HQ, for its names")
    parser.add_argument("-o", "--output", type=Path, required=True, help="CSV file to write")
    return parser


@handle_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Write the table and print how many images have another one of their identity.

    Args:
        argv: command line without the program's name; None for the real one.
    Returns:
        Exit status.
    """
    options = parser().parse_args(argv)
    celeba_name = {
        int(number): name for number, _, name in _fields(options.mapping, "--mapping", 3) if number.isdecimal()
    }
    person_of = dict(_fields(options.identities, "--identities", 2))
    lines = []
    for key, number in _keys(options.images, celeba_name):
        name = celeba_name.get(number)
        if name not in person_of:
            got = f"{options.mapping} has no image {number}" if name is None else f"{name} has no identity"
            raise DataError(key, got, "an entry for each image", "Use the whole files.")
        lines.append((key, person_of[name]))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(lines)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    write_whole(options.output, text.getvalue().encode())
    sizes = Counter(person for _, person in lines)
    partners = sum(size for size in sizes.values() if size > 1)
    print(f"{options.output}: {len(lines)} images of {len(sizes)} identities")
    print(f"{partners} images have another image of their identity")
    return 0


def _keys(images: Path | None, celeba_name: Mapping[int, str]) -> list[tuple[str, int]]:
    """The key of each image, and its number in CelebA-HQ."""
    if images is None:
        return [(str(number), number) for number in sorted(celeba_name)]
    found = []
    for key in open_source(images, "--images").keys:
        number = NUMBER.search(key)
        if number is None:
            raise DataError("--images", f"{images} has an image called '{key}'", "names that end in a number")
        found.append((key, int(number[0])))
    return found


def _fields(path: Path, where: str, count: int) -> list[list[str]]:
    """The lines of a text file, split at spaces."""
    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(where, f"{path} cannot be read ({error})", "a text file", "Check the path.") from error
    wrong = next((line for line in lines if len(line) != count), None)
    if wrong or not lines:
        got = f"{path} has the line '{' '.join(wrong)}'" if wrong else f"{path} is empty"
        raise DataError(where, got, f"{count} words in each line", "Name the right file.")
    return lines


if __name__ == "__main__":
    sys.exit(main())
