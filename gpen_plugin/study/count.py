"""Files of votes in, Figure 8 and its tables out."""

import sys
from collections.abc import Sequence
from pathlib import Path

from gpen_plugin.errors import DataError
from gpen_plugin.evaluate.results import write_text
from gpen_plugin.images.files import write_image
from gpen_plugin.study import tables
from gpen_plugin.study.chart import chart
from gpen_plugin.study.key_file import StudyKey, read_key
from gpen_plugin.study.tally import tally
from gpen_plugin.study.votes import Ballot, one_per_voter, read_ballot


def count(files: Sequence[Path], key_file: Path, output: Path) -> int:
    """Add votes up; a file that makes no sense is refused with words, and the others go on.

    Args:
        files: that volunteers exported.
        key_file: of the study.
        output: folder for ``figure8.png`` and ``table.md``, ``.csv``, ``.tex``, ``.json``.
    Returns:
        Exit status: 1 where a file was refused, otherwise 0.
    Raises:
        DataError: no key, no complete ranking, or nowhere to write.
    """
    key = read_key(key_file)
    ballots, refused = [], []
    for file in files:
        try:
            ballots.append(read_ballot(file, key))
        except DataError as error:
            refused.append(str(error))
    kept, told = one_per_voter(ballots)
    told = [*refused, *told, *(_unfinished(ballot, len(key.images)) for ballot in kept if _is_unfinished(ballot, key))]
    for sentence in told:
        print(f"gpen_plugin: {sentence}", file=sys.stderr)
    found = tally(kept, key)
    table = tables.markdown(found, key, told)
    write_image(output / "figure8.png", chart(found))
    write_text(output / "table.md", table)
    write_text(output / "table.csv", tables.comma_separated(found))
    write_text(output / "table.tex", tables.latex(found, key))
    write_text(output / "table.json", tables.as_json(found, key, told))
    print(table)
    return 1 if refused else 0


def _is_unfinished(ballot: Ballot, key: StudyKey) -> bool:
    return len(ballot.rankings) < len(key.images)


def _unfinished(ballot: Ballot, images: int) -> str:
    begun = f", {ballot.begun} begun and not counted" if ballot.begun else ""
    return f"{ballot.file}: {len(ballot.rankings)} of {images} images ranked{begun}"
