"""What the host's log tells of a training while it runs."""

import re


def last_iteration(text: str) -> int | None:
    """The iteration of the last line of progress in `text`, lines of the host's log; None where there is none."""
    found = re.findall(r"\biter: *([\d,]+), ", text)
    return int(found[-1].replace(",", "")) if found else None
