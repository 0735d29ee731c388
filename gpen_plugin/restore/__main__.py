"""``python -m gpen_plugin.restore``: see `gpen_plugin.cli.restore`."""

import sys

from gpen_plugin.cli.restore import main

if __name__ == "__main__":
    sys.exit(main())
