"""What went wrong, in words for results that others read: one place for methods, metrics and images."""

import re
import traceback
from pathlib import Path

from gpen_plugin.errors import GPENError

LONGEST = 200


def format_error(error: BaseException) -> str:
    """An error as it stands in tables and pages, where nobody's home folder is to be read.

    Errors of ours are whole. Of others it is one line that a reader can search for: what was raised, and where.
    """
    return redact_home(str(error) if isinstance(error, GPENError) else _searchable(error))


def redact_home(text: str) -> str:
    """`text` with ``~`` for the home folder of whoever runs this."""
    try:
        home = str(Path.home())
    except RuntimeError:  # nobody's
        return text
    if home == Path(home).anchor:
        return text
    return re.sub(rf"(?<![\w.-]){re.escape(home)}(?![\w.-])", "~", text)


def _searchable(error: BaseException) -> str:
    text = (str(error).strip().splitlines() or [""])[0][:LONGEST]
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {text}{place}"
