"""``gpen-web``: restore photographs on a page in the browser, choose the faces, and download the result."""

import argparse
import base64
import contextlib
import getpass
import html
import ipaddress
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from gpen_plugin.errors import GPENError, MissingFileError, OptionError, handle_errors, plain_message
from gpen_plugin.images.color import from_float, to_uint8
from gpen_plugin.images.files import write_whole
from gpen_plugin.images.photograph import WRITTEN_SUFFIXES, Photograph, read_photograph, write_photograph
from gpen_plugin.restore.selection import horizontal_center

if TYPE_CHECKING:
    from gpen_plugin.restore.restorer import Restoration, RestoredFace, Restorer

TITLE = "GPEN: restore the faces of a photograph"
MAX_PREVIEW_SIDE = 1600  # pixels, longer side of the images on the page; the download has full size
TILE_SIZE = 192  # pixels, side of a face in the gallery
LIFETIME = 3600  # seconds until an upload and its result are deleted
PROMPT = "Drop a photograph here."
PASSWORD = "GPEN_WEB_PASSWORD"  # the environment variable of --login
_PREVIEW = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]

# Gradio's own slider and gallery cannot be operated by keyboard and have no alternative texts.
_STYLE = """
.stage { display: grid; justify-items: center; align-content: center; background: var(--background-fill-secondary); }
.compare { position: relative; overflow: hidden; container-type: inline-size;
  aspect-ratio: var(--ratio); width: min(100%, calc(640px * var(--ratio))); }
.stage:fullscreen .compare { width: min(100vw, calc(100vh * var(--ratio))); }
.compare img { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; max-width: none; }
.compare .after { clip-path: inset(0 0 0 var(--position, 50%)); }
.compare .line { position: absolute; inset: 0 auto 0 var(--position, 50%); width: 2px; margin-left: -1px;
  background: #fff; box-shadow: 0 0 3px #000; }
.compare .line::after { content: "◂ ▸"; position: absolute; top: 50%; left: 50%; padding: .4em .6em;
  transform: translate(-50%, -50%); border-radius: 2em; font: 14px/1 sans-serif; white-space: nowrap; color: #000;
  background: #fff; box-shadow: 0 0 3px #000; }
.compare input { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; opacity: 0; cursor: ew-resize;
  touch-action: pan-y; appearance: none; -webkit-appearance: none; }
.compare input::-webkit-slider-thumb { appearance: none; -webkit-appearance: none; width: 2px; height: 100%; }
.compare:has(input:focus-visible) { outline: 3px solid var(--color-accent); outline-offset: -3px; }
.compare b { position: absolute; transform: translate(-50%, -100%); min-width: 1.6em; padding: .1em .3em; color: #fff;
  border-radius: 1em; background: #000a; text-align: center; font: bold clamp(8px, 1.4cqw, 14px)/1.4 sans-serif; }
&.plain .compare b { display: none; }
.compare b.alone { background: #fffc; color: #000; outline: 1px dashed #000; }
.stage div + div { justify-self: end; display: flex; gap: 1em; padding: .3em .6em; font-size: .85em; }
.stage button { margin: 0; padding: .2em .8em; font-size: 1em; color: var(--body-text-color); }
.stage button[aria-pressed=false] { text-decoration: line-through; }
.faces { display: grid; gap: 12px; grid-template-columns: repeat(auto-fill, minmax(max(140px, 22%), 1fr)); }
.faces figure { margin: 0; border: 1px solid var(--border-color-primary); border-radius: 4px; overflow: hidden; }
.faces figure > div { display: grid; grid-template-columns: 1fr 1fr; }
.faces img { width: 100%; margin: 0; border-radius: 0; }
.faces figcaption { padding: .3em .6em; font-size: .9em; }
"""
# Of Gradio's own: the footer, and gray text of too little contrast.
APPEARANCE = {"footer_links": [], "css": "#source .or { color: var(--body-text-color); }"}
_COMPARE = """
let position = 50, numbered = true;
const show = () => {  // also after each new result, which changes what is within the element
  element.style.setProperty('--position', position + '%');
  element.classList.toggle('plain', !numbered);
  const [input, numbers] = ['input', '.numbers'].map(name => element.querySelector(name));
  if (input) input.value = position;
  if (numbers && numbers.ariaPressed !== String(numbered)) numbers.ariaPressed = String(numbered);
};
element.addEventListener('input', event => { position = event.target.value; show(); });
element.addEventListener('click', event => {
  if (event.target.matches('.numbers')) { numbered = !numbered; show(); }
  if (!event.target.matches('.large')) return;
  if (document.fullscreenElement) document.exitFullscreen(); else element.querySelector('.stage').requestFullscreen();
});
new MutationObserver(show).observe(element, {childList: true, subtree: true, attributeFilter: ['aria-pressed']});
"""
_ANNOUNCE = "element.setAttribute('role', 'status'); element.setAttribute('aria-live', 'polite');"


@dataclass(frozen=True, eq=False)
class Upload:
    """A photograph that a visitor has uploaded.

    Attributes:
        name: of the file.
        contents: bytes of the file.
        photograph: the decoded file.
        faces: detected and restored faces, from left to right.
        folder: holds the result.
    """

    name: str
    contents: bytes
    photograph: Photograph
    faces: list["RestoredFace"]
    folder: Path


class Page:
    """The functions behind the page, without Gradio. A lock gives the restorer to one visitor at a time.

    Args:
        restorer: restores the photographs.
        folder: where results are written for download.
    """

    def __init__(self, restorer: "Restorer", folder: Path):
        self._restorer, self._folder, self._lock = restorer, folder, threading.Lock()

    @property
    def alpha(self) -> float:
        """Initial weight of the restored faces."""
        return self._restorer.alpha

    def restore(self, path: str) -> Upload:
        """Read a photograph and restore all of its faces. GPENError if it cannot be read."""
        from gpen_plugin.ops.memory import return_freed_memory  # imports PyTorch

        photograph = read_photograph(path)
        with self._lock:
            faces = self._restorer.restore(photograph).faces
            return_freed_memory()
        faces = sorted(faces, key=lambda face: horizontal_center(face.detected))
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        return Upload(Path(path).name, Path(path).read_bytes(), photograph, faces, folder)

    def delete(self, upload: Upload | None) -> None:
        """Delete the result of an upload."""
        if upload is not None:
            shutil.rmtree(upload.folder, ignore_errors=True)

    def blend(self, upload: Upload, picked: Sequence[int], alpha: float) -> "Restoration":
        """Paste the picked faces (numbers from 1) into the photograph, also those that were skipped."""
        faces = [
            replace(face, skip_reason=None, weight=face.weight or 1)
            for number, face in enumerate(upload.faces, 1)
            if number in picked
        ]
        with self._lock:
            return self._restorer.paste_back(upload.photograph, faces, alpha=alpha)

    def save(self, upload: Upload, result: "Restoration") -> tuple[str, tuple[str, ...]]:
        """Write a result at full size with its metadata, in the format of the upload, or else as PNG.

        If nothing changed, the uploaded file is copied. The previous result of the upload is deleted.

        Returns:
            The path, and notes on what the format cannot store.
        """
        name = Path(upload.name)
        for last in upload.folder.iterdir():
            shutil.rmtree(last, ignore_errors=True)
        # A new folder each time, so that no browser shows a cached result.
        path = Path(tempfile.mkdtemp(dir=upload.folder)) / f"{name.stem}_restored{name.suffix}"
        if np.array_equal(result.photograph.pixels, upload.photograph.pixels):
            write_whole(path, upload.contents)
            return str(path), ()
        path = path if path.suffix.lower() in WRITTEN_SUFFIXES else path.with_suffix(WRITTEN_SUFFIXES[0])
        return str(path), write_photograph(path, result.photograph)


def preview(pixels: np.ndarray) -> np.ndarray:
    """Reduce a photograph to uint8 BGR with a longer side of at most `MAX_PREVIEW_SIDE`."""
    image = to_uint8(pixels)
    scale = MAX_PREVIEW_SIDE / max(image.shape[:2])
    if scale >= 1:
        return image
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def comparison(upload: Upload, result: "Restoration") -> str:
    """HTML of the before/after slider with the numbers of the faces."""
    height, width = upload.photograph.pixels.shape[:2]
    numbers = []
    for number, face in enumerate(upload.faces, 1):
        left, top, right, bottom = face.detected.box
        x, y = 50 * (left + right) / width, 100 * (top - 0.2 * (bottom - top)) / height  # above the forehead
        place = f"left: clamp(1em, {x:.2f}%, 100% - 1em); top: max(1.6em, {y:.2f}%)"
        numbers.append(
            f'<b class="{"alone" if face.skip_reason else ""}" style="{place}" aria-hidden="true">{number}</b>'
        )
    return (
        f'<div class="stage"><div class="compare" style="--ratio: {width} / {height}">'
        f"{_image(preview(upload.photograph.pixels), 'The photograph before')}"
        f"{_image(preview(result.photograph.pixels), 'The photograph after', 'after')}"
        f'<span class="line"></span>{"".join(numbers)}'
        '<input type="range" min="0" max="100" value="50" aria-label="Boundary between before, left, and after, right">'
        '</div><div><button type="button" class="numbers">Numbers</button>'
        '<button type="button" class="large">Full screen</button></div></div>'
    )


def gallery(faces: Sequence["RestoredFace"]) -> str:
    """HTML of each face before and after."""
    figures = []
    for number, face in enumerate(faces, 1):
        tiles = [
            _image(from_float(_resize_tile(image), np.uint8), f"Face {number} {when}")
            for image, when in ((face.crop, "before"), (face.restored, "after"))
        ]
        figures.append(f"<figure><div>{''.join(tiles)}</div><figcaption>{_label(number, face)}</figcaption></figure>")
    return f'<div class="faces">{"".join(figures)}</div>'


def summary(upload: Upload) -> str:
    """HTML of the number of faces, the skipped ones with their reasons, and notes of the decoder."""
    count = len(upload.faces)
    lines = [f"{count} face{'s' * (count != 1)} found." if count else "No face was found. The photograph is unchanged."]
    reasons: dict[str, list[int]] = {}
    for number, face in enumerate(upload.faces, 1):
        if face.skip_reason:
            reasons.setdefault(face.skip_reason, []).append(number)
    for reason, numbers in reasons.items():
        one = len(numbers) == 1
        faces = (
            f"Face {numbers[0]} was left as it is" if one else f"Faces {_join_numbers(numbers)} were left as they are"
        )
        lines.append(f"{faces} ({reason}). Tick {'it' if one else 'them'} to restore {'it' if one else 'them'} anyway.")
    return _paragraphs([*lines, *(f"Note: {note}." for note in upload.photograph.notes)])


def _image(image: np.ndarray, text: str, kind: str = "") -> str:
    """HTML of an image, (H, W, 3) uint8 BGR, as a data URL: no file is written."""
    _, data = cv2.imencode(".jpg", image, _PREVIEW)
    source = f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
    return f'<img class="{kind}" alt="{html.escape(text)}" src="{source}">'


def _resize_tile(face: np.ndarray) -> np.ndarray:
    return cv2.resize(
        face, (TILE_SIZE, TILE_SIZE), interpolation=cv2.INTER_AREA if len(face) > TILE_SIZE else cv2.INTER_LINEAR
    )


def _label(number: int, face: "RestoredFace") -> str:
    return f"{number}: left as it is" if face.skip_reason else str(number)


def _join_numbers(numbers: Sequence[int]) -> str:
    return f"{', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"


def _paragraphs(lines: Sequence[str]) -> str:
    return "".join(f"<p>{html.escape(line)}</p>" for line in lines)


def build(page: Page):
    """Build the page as Gradio blocks.

    Raises:
        MissingFileError: Gradio is not installed.
    """
    gradio = _gradio()

    def restore(path: str | None, alpha: float, last: Upload | None):
        page.delete(last)
        nothing = None, "", gradio.update(choices=[], value=[]), "", gradio.update(interactive=False)
        if path is None:
            yield *nothing, _paragraphs([PROMPT])
            return
        yield *nothing, _paragraphs(["Restoring the photograph ..."])
        try:
            upload = page.restore(path)
            ticked = [number for number, face in enumerate(upload.faces, 1) if not face.skip_reason]
            compared = comparison(upload, page.blend(upload, ticked, alpha))
        except GPENError as error:
            yield *nothing, _paragraphs([plain_message(error).replace(path, Path(path).name)])
            return
        choices = [(_label(number, face), number) for number, face in enumerate(upload.faces, 1)]
        boxes = gradio.update(choices=choices, value=ticked)
        yield upload, compared, boxes, gallery(upload.faces), gradio.update(interactive=True), summary(upload)

    def blend(upload: Upload | None, picked: Sequence[int], alpha: float):
        return comparison(upload, page.blend(upload, picked, alpha)) if upload else ""

    def save(upload: Upload | None, picked: Sequence[int], alpha: float):
        if upload is None:
            return None, _paragraphs([PROMPT])
        path, notes = page.save(upload, page.blend(upload, picked, alpha))
        return path, summary(upload) + _paragraphs([f"Note: {note}." for note in notes])

    # Gradio removes uploads, and results that are not replaced earlier.
    with gradio.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(LIFETIME // 12, LIFETIME)) as blocks:
        gradio.Markdown(f"# {TITLE}")
        upload = gradio.State(time_to_live=LIFETIME, delete_callback=page.delete)
        with gradio.Row():
            with gradio.Column(scale=1):
                source = gradio.File(label="Photograph", file_types=["image"], type="filepath", elem_id="source")
                status = gradio.HTML(_paragraphs([PROMPT]), elem_id="status", js_on_load=_ANNOUNCE)
                alpha = gradio.Slider(0, 1, page.alpha, step=0.05, label="Strength", elem_id="alpha")
                download = gradio.Button("Download the result", interactive=False, elem_id="download")
                file = gradio.DownloadButton(visible="hidden", elem_id="file")
            with gradio.Column(scale=3):
                compared = gradio.HTML(elem_id="compared", css_template=_STYLE, js_on_load=_COMPARE)
                picked = gradio.CheckboxGroup([], label="Faces to restore", elem_id="picked")
                faces = gradio.HTML(elem_id="faces", css_template=_STYLE)
        # One queue for both: a result never replaces that of a later photograph.
        queue = {"concurrency_id": "turn", "concurrency_limit": 1}
        source.change(restore, [source, alpha, upload], [upload, compared, picked, faces, download, status], **queue)
        # always_last: of the changes that arrive during a blend, only the last one is blended.
        changed = [alpha.change, picked.input]
        gradio.on(changed, blend, [upload, picked, alpha], compared, trigger_mode="always_last", **queue)
        # The file is written on request, with the current settings.
        written = download.click(save, [upload, picked, alpha], [file, status])
        written.success(None, js="() => document.querySelector('#file').click()")
    return blocks


def _gradio():
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ.setdefault("GRADIO_RUN_HISTORY", "False")  # store no copies in the browser
    try:
        import gradio
    except ImportError as error:
        got = f"Gradio cannot be imported ({error})"
        raise MissingFileError("gpen-web", got, hint='Run: pip install "gpen_plugin[web]"') from error
    return gradio


@handle_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Serve the page until it is interrupted; return the exit status."""
    arguments = parser().parse_args(argv)
    if arguments.max_upload <= 0:
        raise OptionError("--max-upload", f"got {arguments.max_upload:g}", "a number above 0")
    login = _login(arguments.login)
    with _signals_as_interrupt(), tempfile.TemporaryDirectory(prefix="gpen-web-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # for uploads and results; deleted at the end
        _gradio()  # fail before the slow import of PyTorch

        from gpen_plugin.ops.memory import keep_freed_memory  # imports PyTorch
        from gpen_plugin.restore.restorer import Restorer

        keep_freed_memory()
        restorer = Restorer(
            arguments.model,
            device=arguments.device,
            template=arguments.template,
            detector=arguments.detector,
            detector_file=arguments.detector_file,
            max_face=arguments.max_face,
            skip_sharp=None if arguments.sharp_faces is None else arguments.sharp_faces == "keep",
            upscale=arguments.upscale,
            keep_color=arguments.keep_color,
            denoise=arguments.denoise,
        )
        print(f"network: {restorer.network.description}\nfaces: {restorer.detector.notice}", flush=True)
        _serve(build(Page(restorer, Path(folder))), arguments, login)
    return 0


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(prog="gpen-web", description="Restore photographs on a page in the browser.")
    parser.add_argument("-m", "--model", help="as in gpen-restore")
    parser.add_argument("--device", default="auto", help="as in gpen-restore (default %(default)s)")
    parser.add_argument("--template", help="as in gpen-restore")
    parser.add_argument("--detector", default="auto", choices=("auto", "retinaface", "yunet"))
    parser.add_argument("--detector-file", type=Path, help="as in gpen-restore")
    parser.add_argument("--max-face", type=float, help="as in gpen-restore")
    parser.add_argument("--sharp-faces", choices=("keep", "restore"), help="as in gpen-restore")
    parser.add_argument("--upscale", type=float, default=1, help="as in gpen-restore (default %(default)s)")
    parser.add_argument("--keep-color", action=argparse.BooleanOptionalAction, help="as in gpen-restore")
    parser.add_argument("--denoise", action=argparse.BooleanOptionalAction, help="as in gpen-restore")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 allows other computers (default %(default)s)"
    )
    parser.add_argument("--port", type=int, help="default: the first free port from 7860")
    parser.add_argument(
        "--login", metavar="NAME", help=f"require this user name, and the password in {PASSWORD} or typed at the start"
    )
    parser.add_argument(
        "--max-upload", type=float, default=200, metavar="MB", help="largest accepted file (default %(default)s)"
    )
    return parser


def _login(name: str | None) -> tuple[str, str] | None:
    if name is None:
        return None
    password = os.environ.get(PASSWORD) or (getpass.getpass(f"Password of {name}: ") if sys.stdin.isatty() else "")
    if not name or not password:
        raise OptionError("--login", f"got {name!r} without a password", "a name and a password", f"Set {PASSWORD}.")
    return name, password


@contextlib.contextmanager
def _signals_as_interrupt() -> Iterator[None]:
    """End the block by KeyboardInterrupt on SIGINT, SIGTERM and SIGHUP."""

    def interrupt(*_) -> None:
        for each in signals:  # a second signal must not interrupt the cleanup
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    signals = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {each: signal.signal(each, interrupt) for each in signals}
    try:
        with contextlib.suppress(KeyboardInterrupt):
            yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _serve(blocks, arguments: argparse.Namespace, login: tuple[str, str] | None) -> None:
    try:
        blocks.launch(
            server_name=arguments.host,
            server_port=arguments.port,
            auth=login,
            max_file_size=round(arguments.max_upload * 1e6),
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            **APPEARANCE,
        )
    except OSError as error:
        port = arguments.port or "7860 and those after it"
        got = f"cannot listen on {arguments.host}, port {port}"
        raise OptionError("--port", got, "a free port", "Choose another port.") from error
    print(f"page: {blocks.local_url}  (stop with Ctrl-C)", flush=True)
    if login is None and not _is_local(arguments.host):
        print(
            "Everyone who can reach this address can use the page. Add --login NAME to require a password.", flush=True
        )
    try:
        while True:
            time.sleep(LIFETIME)
    finally:
        blocks.close(verbose=False)


def _is_local(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


if __name__ == "__main__":
    sys.exit(main())
