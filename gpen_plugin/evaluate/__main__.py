"""``python -m gpen_plugin.evaluate``: see `gpen_plugin.cli.evaluate`."""

import sys

from gpen_plugin.cli.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
