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
    license_files=["LICENSE"],
    python_requires=">=3.10",
    packages=find_packages(include=["gpen_plugin", "gpen_plugin.*"]),
    package_data={
        "gpen_plugin": ["weights/*"],
        **{f"gpen_plugin.{room}": ["*.html", "*.css", "*.js"] for room in ("evaluate.report", "study")},
    },
    py_modules=["gpen_plugin_hook"],
    # Said outright, an editable installation is one line on the path; otherwise setuptools adds a finder of its own,
    # which costs every start of the interpreter more than ours.
    package_dir={"": "."},
    # OpenCV and TensorBoard are left to BasicSR: each comes under two names that own the same files
    # (opencv-python, opencv-python-headless; tensorboard, tb-nightly), and whichever is there will do.
    install_requires=[
        "basicsr>=1.4.2",
        "facexlib>=0.3.0",
        "lmdb",
        "numpy",
        "pillow>=11.1",  # XMP in JPEG files
        "pyyaml",
        "safetensors",  # the weights that come with this package
        "scipy",
        "setuptools<82; python_version >= '3.12'",  # brings back distutils, which BasicSR imports
        "tifffile",
        "torch>=2.6",
        "torchvision",
        "tqdm",
    ],
    extras_require={
        "demo": ["scikit-image"],
        "evaluate": ["jinja2", "lpips", "matplotlib", "onnxruntime"],
        "heic": ["pillow-heif"],
        "export": ["onnx", "onnxruntime"],
        "test": ["gfpgan", "pytest", "ruff", "selenium", "setuptools", "wheel"],
        "video": ["av>=17.1"],  # brings FFmpeg
        "web": ["gradio>=6"],
    },
    entry_points={
        "console_scripts": [
            "gpen-train = gpen_plugin.train:main",
            "gpen-test = gpen_plugin.test:main",
            "gpen-sweep = gpen_plugin.sweep.__main__:main",
            "gpen-convert = gpen_plugin.convert:main",
            "gpen-grow = gpen_plugin.grow:main",
            "gpen-restore = gpen_plugin.restore.__main__:main",
            "gpen-evaluate = gpen_plugin.evaluate.__main__:main",
            "gpen-study = gpen_plugin.study.__main__:main",
            "gpen-demo = gpen_plugin.web_demo:main",
            "gpen-export = gpen_plugin.export.__main__:main",
            "gpen-sample = gpen_plugin.sample:main",
            "gpen-doctor = gpen_plugin.doctor:main",
        ]
    },
    classifiers=[
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
    ],
)
