"""How a name out of a table becomes that of a folder."""

import re


def folder_of(name: str) -> str:
    """The name of a method or variant as a folder: ``GPEN-w/o-ft`` becomes ``gpen_w_o_ft``."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "_"
