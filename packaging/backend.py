"""Setuptools as a build backend, plus the two start-up files that bring the plugin into BasicSR.

A wheel can put a file straight into site-packages, which setuptools has no option for, and the same must hold for an
editable installation. So the files are added to the finished wheel and to its RECORD.
"""

import base64
import hashlib
import os
import zipfile

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403

# site reads the files of a folder sorted by name: this one must come after setuptools' `__editable__*.pth`,
# which puts the module on the path. A module that is gone (half an uninstall) must not spoil every start of Python.
STARTUP_FILES = {
    "gpen_plugin.pth": 'import sys; exec("try:\\n    import gpen_plugin_hook\\nexcept ImportError:\\n    pass\\n'
    'else:\\n    gpen_plugin_hook.install()")\n',
    # Python 3.15 and later read this instead of the line above (PEP 829).
    "gpen_plugin.start": "gpen_plugin_hook:install\n",
}


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    """PEP 517: the wheel of setuptools with the start-up files in it; returns its file name."""
    name = build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)
    return _add_startup_files(wheel_directory, name)


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    """PEP 660: the editable wheel of setuptools with the start-up files in it; returns its file name."""
    name = build_meta.build_editable(wheel_directory, config_settings, metadata_directory)
    return _add_startup_files(wheel_directory, name)


def _add_startup_files(directory, name):
    path = os.path.join(directory, name)
    with zipfile.ZipFile(path) as wheel:
        contents = {info: wheel.read(info) for info in wheel.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for info, content in contents.items():
            if info.filename.endswith(".dist-info/RECORD"):
                content = _with_startup_files(wheel, content)
            wheel.writestr(info, content)
    return name


def _with_startup_files(wheel, record):
    """Write the start-up files into `wheel` and return its RECORD with a line for each."""
    for name, text in STARTUP_FILES.items():
        content = text.encode()
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        wheel.writestr(name, content)
        record += f"{name},sha256={digest},{len(content)}\n".encode()
    return record
