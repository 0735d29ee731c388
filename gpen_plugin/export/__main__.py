"""``python -m gpen_plugin.export``: see `gpen_plugin.cli.export`."""

import sys

from gpen_plugin.cli.export import main

if __name__ == "__main__":
    sys.exit(main())
