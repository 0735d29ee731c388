import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent

setup(
    name="gpen_plugin",
    version=re.search(r'"(.+)"', (ROOT / "gpen_plugin/version.py").read_text())[1],
    description="GPEN (CVPR 2021), blind face restoration with an embedded GAN prior, as a plugin of BasicSR",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8") if (ROOT / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE", "gpen_plugin/weights/YuNet.LICENSE.txt"],
    python_requires=">=3.10",
    packages=find_packages(include=["gpen_plugin", "gpen_plugin.*"]),
    package_data={
        "gpen_plugin": ["py.typed", "*.pyi", "weights/*"],
        "gpen_plugin.restore": ["*.png"],
        **{f"gpen_plugin.{folder}": ["*.html", "*.css", "*.js", "*.json"] for folder in ("evaluate", "evaluate.study")},
    },
    py_modules=["gpen_plugin_hook"],
    # Said outright, an editable installation is one line on the path; otherwise setuptools adds a finder of its own,
    # which costs every start of the interpreter more than ours.
    package_dir={"": "."},
    # Restoring, export, conversion and evaluation. BasicSR is for training alone: the extra `train`.
    # opencv-python and opencv-python-headless own the same files, so that a package can ask for one only. It is the one
    # that BasicSR, facexlib and gfpgan ask for: where these are, their OpenCV stays as it is.
    install_requires=[
        "filelock",
        "jinja2",  # reports of evaluations
        "matplotlib",
        "numpy",
        "opencv-python>=4.8,<6",
        "pillow>=11.1",  # XMP in JPEG files
        "pyyaml",
        "safetensors",  # the weights that come with this package
        "scipy",
        "tifffile",
        "torch>=2.6",
        "torchvision",
        "tqdm",
    ],
    extras_require={
        "demo": ["scikit-image"],
        "evaluate": ["lpips", "onnxruntime"],
        "heic": ["pillow-heif"],
        "export": ["onnx", "onnxruntime", "onnxslim"],
        "hub": ["huggingface-hub>=1"],  # hf:user/repo, from_pretrained; tested with 2.4
        "iqa": ["pyiqa"],  # calculate_iqa. Its license, PolyForm Noncommercial 1.0.0, forbids commercial use
        "ray": ["ray[data]>=2.51"],  # gpen-restore --engine ray; tested with 2.60
        "remote": ["aiohttp", "fsspec"],  # tars at http(s)://; fsspec names the package for another protocol
        "test": [
            "axe-core-python",  # accessibility of pages
            "gfpgan; python_version < '3.13'",  # requires basicsr
            "jsonschema",
            "pytest",
            "pytest-xdist",
            "ruff",
            "selenium",
            "setuptools",
            "spandrel",
            "wheel",
        ],
        "train": [
            # BasicSR's master with a few lines changed, tested with 1.0.3: Python 3.13 cannot build BasicSR 1.4.2.
            "animesisr-basicsr>=1.0.3; python_version >= '3.13'",
            "basicsr>=1.4.2; python_version < '3.13'",
            "facexlib>=0.3.0",  # the 98 landmarks of calculate_lmd; RetinaFace, ParseNet
            "lmdb<2",
            "opencv-python<5",  # BasicSR 1.4.2 fails with OpenCV 5
            "setuptools<82; python_version >= '3.12'",  # brings back distutils, which BasicSR imports
        ],
        "video": ["av>=17.1"],  # brings FFmpeg
        "web": ["gradio>=6"],
    },
    entry_points={
        "console_scripts": [
            "gpen-train = gpen_plugin.cli.train:main",
            "gpen-test = gpen_plugin.cli.test:main",
            "gpen-convert = gpen_plugin.cli.convert:main",
            "gpen-grow = gpen_plugin.cli.grow:main",
            "gpen-restore = gpen_plugin.cli.restore:main",
            "gpen-evaluate = gpen_plugin.cli.evaluate:main",
            "gpen-study = gpen_plugin.cli.study:main",
            "gpen-web = gpen_plugin.cli.web:main",
            "gpen-export = gpen_plugin.cli.export:main",
            "gpen-sample = gpen_plugin.cli.sample:main",
            "gpen-doctor = gpen_plugin.cli.doctor:main",
        ]
    },
    classifiers=[
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
    ],
)
