"""``gpen-demo``: a page in the browser for trying a model: a photograph in, before and after, faces to pick."""

import argparse
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from gpen_plugin.errors import GPENError, MissingFileError, OptionError, plain_message, told_plainly
from gpen_plugin.restore.photograph import Photograph, read_photograph, write_photograph
from gpen_plugin.restore.pixel_values import as_uint8

if TYPE_CHECKING:
    from gpen_plugin.restore import Restoration, RestoredFace, Restorer

TITLE = "GPEN: restore the faces of a photograph"
SHOWN = 1600  # pixels, the longer side of what the page shows; the file to download has all of them
TILE = 192  # pixels, side of a face in the gallery
HOUR = 3600  # seconds
INVITATION = "Drop a photograph."


@dataclass(frozen=True, eq=False)
class Visit:
    """What one visitor has put in: the photograph, and its faces as the network gave them."""

    name: str
    photograph: Photograph
    faces: list["RestoredFace"]
    folder: Path


class Page:
    """The functions behind the page, which know nothing of Gradio. Visitors take turns at the restorer.

    Args:
        restorer: does the work.
        folder: for files to be downloaded.
    """

    def __init__(self, restorer: "Restorer", folder: Path):
        self._restorer, self._folder, self._turn = restorer, folder, threading.Lock()

    @property
    def alpha(self) -> float:
        """How much of a restoration is blended in to begin with."""
        return self._restorer.alpha

    def put_in(self, path: str) -> Visit:
        """Read a photograph, find its faces and restore them. GPENError if it cannot be read."""
        photograph = read_photograph(path)
        with self._turn:
            faces = self._restorer.restore(photograph).faces
        return Visit(Path(path).stem, photograph, faces, Path(tempfile.mkdtemp(dir=self._folder)))

    def forget(self, visit: Visit | None) -> None:
        """Remove the file of a visit that is over."""
        if visit is not None:
            shutil.rmtree(visit.folder, ignore_errors=True)

    def blended(self, visit: Visit, picked: Sequence[int], alpha: float) -> "Restoration":
        """The photograph with the picked faces (their numbers, from 1) in it."""
        faces = [face for number, face in enumerate(visit.faces, 1) if number in picked]
        with self._turn:
            return self._restorer.paste_back(visit.photograph, faces, alpha=alpha)

    def file(self, visit: Visit, result: "Restoration") -> str:
        """Write a result with all its pixels and metadata, for downloading; its path. It replaces the visit's last."""
        path = visit.folder / f"{visit.name}_restored.png"  # which holds whatever the photograph holds
        write_photograph(path, result.photograph)
        return str(path)


def shown(pixels: np.ndarray) -> np.ndarray:
    """A photograph as a page shows it: uint8 RGB, its longer side at most `SHOWN`."""
    picture = as_uint8(pixels)
    scale = SHOWN / max(picture.shape[:2])
    if scale < 1:
        height, width = (max(1, round(side * scale)) for side in picture.shape[:2])
        picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(picture[:, :, ::-1])


def before_and_after(face: "RestoredFace") -> np.ndarray:
    """A face before and after, (TILE, 2 * TILE, 3) uint8 RGB."""
    tiles = [cv2.resize(each, (TILE, TILE), interpolation=cv2.INTER_LINEAR) for each in (face.crop, face.restored)]
    return shown(np.rint(np.concatenate(tiles, axis=1) * 255).astype(np.uint8))


def build(page: Page):
    """The page, as Gradio blocks.

    Raises:
        MissingFileError: Gradio is not installed.
    """
    gradio = _gradio()

    def put_in(path: str | None, alpha: float, last: Visit | None):
        page.forget(last)
        nothing = None, None, gradio.update(choices=[], value=[]), None, None
        if path is None:
            return *nothing, INVITATION
        try:
            visit = page.put_in(path)
        except GPENError as error:
            return *nothing, plain_message(error).replace(path, Path(path).name)
        numbers = list(range(1, len(visit.faces) + 1))
        gallery = [(before_and_after(face), _caption(number, face)) for number, face in enumerate(visit.faces, 1)]
        choices = gradio.update(choices=numbers, value=numbers)
        count = len(numbers)
        said = (
            f"{count} face{'s' * (count != 1)} found." if count else "No face was found: the photograph is unchanged."
        )
        return visit, gallery, choices, *blend(visit, numbers, alpha), said

    def blend(visit: Visit | None, picked: Sequence[int], alpha: float):
        if visit is None:
            return None, None
        result = page.blended(visit, picked, alpha)
        after = result.photograph.pixels
        before = visit.photograph.pixels
        if before.shape != after.shape:
            before = cv2.resize(before, after.shape[1::-1], interpolation=cv2.INTER_CUBIC)
        return (shown(before), shown(after)), page.file(visit, result)

    # Gradio keeps copies of all that it shows or lets download; without an age they stay until the server ends.
    with gradio.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(HOUR, 24 * HOUR)) as blocks:
        gradio.Markdown(f"# {TITLE}")
        visit = gradio.State(delete_callback=page.forget)
        with gradio.Row():
            with gradio.Column(scale=1):
                source = gradio.File(label="Photograph", file_types=["image"], type="filepath", elem_id="source")
                said = gradio.Markdown(INVITATION, elem_id="said")
                alpha = gradio.Slider(0, 1, page.alpha, step=0.05, label="How much is restored", elem_id="alpha")
                picked = gradio.CheckboxGroup([], label="Faces to restore", elem_id="picked")
                download = gradio.DownloadButton("Download the result", elem_id="download")
            with gradio.Column(scale=3):
                slider = gradio.ImageSlider(label="Before and after", max_height=640, elem_id="slider", format="png")
                gallery = gradio.Gallery(label="Each face", columns=4, object_fit="contain", elem_id="faces")
        results = [slider, download]
        source.change(put_in, [source, alpha, visit], [visit, gallery, picked, *results, said])
        for control in (alpha.release, picked.input):
            control(blend, [visit, picked, alpha], results)
    return blocks


def _caption(number: int, face: "RestoredFace") -> str:
    return f"{number}: left as it is, {face.kept}" if face.kept else str(number)


def _gradio():
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    try:
        import gradio
    except ImportError as error:
        came = f"Gradio cannot be imported ({error})"
        raise MissingFileError("gpen-demo", came, way_out='Run: pip install "gpen_plugin[web]"') from error
    return gradio


@told_plainly
def main(argv: Sequence[str] | None = None) -> int:
    """Serve the page until it is interrupted.

    Args:
        argv: command line without the program's name; None for the real one.
    Returns:
        Exit status.
    """
    parser = argparse.ArgumentParser(prog="gpen-demo", description=__doc__.partition(": ")[2])
    parser.add_argument("-m", "--model", help="as in gpen-restore")
    parser.add_argument("--device", default="auto", help="as in gpen-restore (default %(default)s)")
    parser.add_argument("--template", help="as in gpen-restore")
    parser.add_argument("--detector", default="auto", choices=("auto", "retinaface", "yunet", "haar"))
    parser.add_argument("--upscale", type=float, default=1, help="as in gpen-restore (default %(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="address; 0.0.0.0 lets others in (default %(default)s)")
    parser.add_argument("--port", type=int, help="default: the first free one from 7860")
    arguments = parser.parse_args(argv)
    _gradio()  # before the model is opened, which takes longer

    from gpen_plugin.restore import Restorer  # brings PyTorch

    restorer = Restorer(
        arguments.model,
        device=arguments.device,
        template=arguments.template,
        detector=arguments.detector,
        upscale=arguments.upscale,
    )
    with tempfile.TemporaryDirectory(prefix="gpen-demo-") as folder:
        print(f"network: {restorer.network.description}\nfaces: {restorer.detector.notice}", flush=True)
        blocks = build(Page(restorer, Path(folder)))
        try:
            blocks.launch(
                server_name=arguments.host, server_port=arguments.port, allowed_paths=[folder], footer_links=[]
            )
        except OSError as error:
            port = arguments.port or "any that was tried"
            came = f"no page can be served at {arguments.host}, port {port}"
            raise OptionError("--port", came, "a port that is free", "Name another.") from error
    return 0


if __name__ == "__main__":
    sys.exit(main())
