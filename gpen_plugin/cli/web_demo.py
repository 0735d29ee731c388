"""``gpen-demo``: a page in the browser for trying a model: a photograph in, before and after, faces to pick."""

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
from gpen_plugin.images.files import write_whole
from gpen_plugin.images.photograph import WRITTEN_SUFFIXES, Photograph, read_photograph, write_photograph
from gpen_plugin.images.pixel_values import from_float, to_uint8

if TYPE_CHECKING:
    from gpen_plugin.restore import Restoration, RestoredFace, Restorer

TITLE = "GPEN: restore the faces of a photograph"
SHOWN = 1600  # pixels, the longer side of what the page shows; the file to download has all of them
TILE = 192  # pixels, side of a face in the gallery
HOUR = 3600  # seconds, after which a photograph, and what was made of it, is removed
INVITATION = "Drop a photograph."
PASSWORD = "GPEN_DEMO_PASSWORD"  # the environment variable of --login
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
class Visit:
    """What one visitor has put in.

    Attributes:
        name: the file's.
        contents: of the file.
        photograph: what was read of it.
        faces: as the network gave them, from left to right.
        folder: for the result.
    """

    name: str
    contents: bytes
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
        faces = sorted(faces, key=lambda face: face.detected.box[0] + face.detected.box[2])
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        return Visit(Path(path).name, Path(path).read_bytes(), photograph, faces, folder)

    def forget(self, visit: Visit | None) -> None:
        """Remove the file of a visit that is over."""
        if visit is not None:
            shutil.rmtree(visit.folder, ignore_errors=True)

    def blended(self, visit: Visit, picked: Sequence[int], alpha: float) -> "Restoration":
        """The photograph with the picked faces (their numbers, from 1) in it, also those that were left alone."""
        faces = [replace(face, kept=None) for number, face in enumerate(visit.faces, 1) if number in picked]
        with self._turn:
            return self._restorer.paste_back(visit.photograph, faces, alpha=alpha)

    def file(self, visit: Visit, result: "Restoration") -> tuple[str, tuple[str, ...]]:
        """Write a result with all its pixels and metadata, for downloading, in the format that came.

        A photograph in which nothing changed is a copy of the file. Formats that are not written become PNG.

        Returns:
            The path, and what the format could not hold. The visit's last file is removed.
        """
        name = Path(visit.name)
        for last in visit.folder.iterdir():
            shutil.rmtree(last, ignore_errors=True)
        # Another folder each time, so that no browser takes one result for another.
        path = Path(tempfile.mkdtemp(dir=visit.folder)) / f"{name.stem}_restored{name.suffix}"
        if np.array_equal(result.photograph.pixels, visit.photograph.pixels):
            write_whole(path, visit.contents)
            return str(path), ()
        path = path if path.suffix.lower() in WRITTEN_SUFFIXES else path.with_suffix(WRITTEN_SUFFIXES[0])
        return str(path), write_photograph(path, result.photograph)


def shown(pixels: np.ndarray) -> np.ndarray:
    """A photograph as a page shows it: uint8 BGR, its longer side at most `SHOWN`."""
    image = to_uint8(pixels)
    scale = SHOWN / max(image.shape[:2])
    if scale >= 1:
        return image
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def comparison(visit: Visit, result: "Restoration") -> str:
    """HTML of the photograph before and after, with a boundary to move and the numbers of the faces."""
    height, width = visit.photograph.pixels.shape[:2]
    numbers = []
    for number, face in enumerate(visit.faces, 1):
        left, top, right, bottom = face.detected.box
        x, y = 50 * (left + right) / width, 100 * (top - 0.2 * (bottom - top)) / height  # above the forehead
        place = f"left: clamp(1em, {x:.2f}%, 100% - 1em); top: max(1.6em, {y:.2f}%)"
        numbers.append(f'<b class="{"alone" if face.kept else ""}" style="{place}" aria-hidden="true">{number}</b>')
    return (
        f'<div class="stage"><div class="compare" style="--ratio: {width} / {height}">'
        f"{_image(shown(visit.photograph.pixels), 'The photograph before')}"
        f"{_image(shown(result.photograph.pixels), 'The photograph after', 'after')}"
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
            _image(from_float(_tile(image), np.uint8), f"Face {number} {when}")
            for image, when in ((face.crop, "before"), (face.restored, "after"))
        ]
        figures.append(f"<figure><div>{''.join(tiles)}</div><figcaption>{_label(number, face)}</figcaption></figure>")
    return f'<div class="faces">{"".join(figures)}</div>'


def summary(visit: Visit) -> str:
    """HTML of what was found, which faces were left as they are and why, and what reading changed."""
    count = len(visit.faces)
    lines = [f"{count} face{'s' * (count != 1)} found." if count else "No face was found. The photograph is unchanged."]
    reasons: dict[str, list[int]] = {}
    for number, face in enumerate(visit.faces, 1):
        if face.kept:
            reasons.setdefault(face.kept, []).append(number)
    for reason, numbers in reasons.items():
        one = len(numbers) == 1
        faces = f"Face {numbers[0]} was left as it is" if one else f"Faces {_listed(numbers)} were left as they are"
        lines.append(f"{faces} ({reason}). Tick {'it' if one else 'them'} to restore {'it' if one else 'them'} anyway.")
    return _paragraphs([*lines, *(f"Note: {note}." for note in visit.photograph.notes)])


def _image(image: np.ndarray, text: str, kind: str = "") -> str:
    """HTML of an image, (H, W, 3) uint8 BGR, in the page itself, so that it is in no file."""
    _, data = cv2.imencode(".jpg", image, _PREVIEW)
    source = f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
    return f'<img class="{kind}" alt="{html.escape(text)}" src="{source}">'


def _tile(face: np.ndarray) -> np.ndarray:
    return cv2.resize(face, (TILE, TILE), interpolation=cv2.INTER_AREA if len(face) > TILE else cv2.INTER_LINEAR)


def _label(number: int, face: "RestoredFace") -> str:
    return f"{number}: left as it is" if face.kept else str(number)


def _listed(numbers: Sequence[int]) -> str:
    return f"{', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"


def _paragraphs(lines: Sequence[str]) -> str:
    return "".join(f"<p>{html.escape(line)}</p>" for line in lines)


def build(page: Page):
    """The page, as Gradio blocks.

    Raises:
        MissingFileError: Gradio is not installed.
    """
    gradio = _gradio()

    def put_in(path: str | None, alpha: float, last: Visit | None):
        page.forget(last)
        nothing = None, "", gradio.update(choices=[], value=[]), "", gradio.update(interactive=False)
        if path is None:
            yield *nothing, _paragraphs([INVITATION])
            return
        yield *nothing, _paragraphs(["The photograph is being restored ..."])
        try:
            visit = page.put_in(path)
            ticked = [number for number, face in enumerate(visit.faces, 1) if not face.kept]
            compared = comparison(visit, page.blended(visit, ticked, alpha))
        except GPENError as error:
            yield *nothing, _paragraphs([plain_message(error).replace(path, Path(path).name)])
            return
        choices = [(_label(number, face), number) for number, face in enumerate(visit.faces, 1)]
        boxes = gradio.update(choices=choices, value=ticked)
        yield visit, compared, boxes, gallery(visit.faces), gradio.update(interactive=True), summary(visit)

    def blend(visit: Visit | None, picked: Sequence[int], alpha: float):
        return comparison(visit, page.blended(visit, picked, alpha)) if visit else ""

    def write(visit: Visit | None, picked: Sequence[int], alpha: float):
        if visit is None:
            return None, _paragraphs([INVITATION])
        path, notes = page.file(visit, page.blended(visit, picked, alpha))
        return path, summary(visit) + _paragraphs([f"Note: {note}." for note in notes])

    # Gradio removes uploads, and results that are not replaced earlier.
    with gradio.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(HOUR // 12, HOUR)) as blocks:
        gradio.Markdown(f"# {TITLE}")
        visit = gradio.State(time_to_live=HOUR, delete_callback=page.forget)
        with gradio.Row():
            with gradio.Column(scale=1):
                source = gradio.File(label="Photograph", file_types=["image"], type="filepath", elem_id="source")
                said = gradio.HTML(_paragraphs([INVITATION]), elem_id="said", js_on_load=_ANNOUNCE)
                alpha = gradio.Slider(0, 1, page.alpha, step=0.05, label="How much is restored", elem_id="alpha")
                download = gradio.Button("Download the result", interactive=False, elem_id="download")
                file = gradio.DownloadButton(visible="hidden", elem_id="file")
            with gradio.Column(scale=3):
                compared = gradio.HTML(elem_id="compared", css_template=_STYLE, js_on_load=_COMPARE)
                picked = gradio.CheckboxGroup([], label="Faces to restore", elem_id="picked")
                faces = gradio.HTML(elem_id="faces", css_template=_STYLE)
        # One queue for both: a result never replaces that of a later photograph.
        turn = {"concurrency_id": "turn", "concurrency_limit": 1}
        source.change(put_in, [source, alpha, visit], [visit, compared, picked, faces, download, said], **turn)
        # By mouse, arrow keys or typing; what comes while one is blended is blended after it, the last alone.
        changed = [alpha.change, picked.input]
        gradio.on(changed, blend, [visit, picked, alpha], compared, trigger_mode="always_last", **turn)
        # The file is made of what the controls say when it is asked for.
        made = download.click(write, [visit, picked, alpha], [file, said])
        made.success(None, js="() => document.querySelector('#file').click()")
    return blocks


def _gradio():
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ.setdefault("GRADIO_RUN_HISTORY", "False")  # no copies in the browser
    try:
        import gradio
    except ImportError as error:
        got = f"Gradio cannot be imported ({error})"
        raise MissingFileError("gpen-demo", got, hint='Run: pip install "gpen_plugin[web]"') from error
    return gradio


@handle_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Serve the page until it is interrupted.

    Args:
        argv: command line without the program's name; None for the real one.
    Returns:
        Exit status.
    """
    arguments = parser().parse_args(argv)
    if arguments.max_upload <= 0:
        raise OptionError("--max-upload", f"got {arguments.max_upload:g}", "a number above 0")
    login = _login(arguments.login)
    with _interrupted_by_signals(), tempfile.TemporaryDirectory(prefix="gpen-demo-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # uploads and results lie there and are removed with it
        _gradio()  # before the model is opened, which takes longer

        from gpen_plugin.restore import Restorer  # brings PyTorch

        restorer = Restorer(
            arguments.model,
            device=arguments.device,
            template=arguments.template,
            detector=arguments.detector,
            detector_file=arguments.detector_file,
            max_face=arguments.max_face,
            upscale=arguments.upscale,
            keep_color=arguments.keep_color,
        )
        print(f"network: {restorer.network.description}\nfaces: {restorer.detector.notice}", flush=True)
        _serve(build(Page(restorer, Path(folder))), arguments, login)
    return 0


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(prog="gpen-demo", description=__doc__.partition(": ")[2])
    parser.add_argument("-m", "--model", help="as in gpen-restore")
    parser.add_argument("--device", default="auto", help="as in gpen-restore (default %(default)s)")
    parser.add_argument("--template", help="as in gpen-restore")
    parser.add_argument("--detector", default="auto", choices=("auto", "retinaface", "yunet"))
    parser.add_argument("--detector-file", type=Path, help="as in gpen-restore")
    parser.add_argument("--max-face", type=float, help="as in gpen-restore")
    parser.add_argument("--upscale", type=float, default=1, help="as in gpen-restore (default %(default)s)")
    parser.add_argument("--keep-color", action="store_true", help="as in gpen-restore")
    parser.add_argument("--host", default="127.0.0.1", help="address; 0.0.0.0 lets others in (default %(default)s)")
    parser.add_argument("--port", type=int, help="default: the first free one from 7860")
    parser.add_argument(
        "--login", metavar="NAME", help=f"ask visitors for this name and the password in {PASSWORD}, or typed at start"
    )
    parser.add_argument(
        "--max-upload", type=float, default=200, metavar="MB", help="largest file that is taken (default %(default)s)"
    )
    return parser


def _login(name: str | None) -> tuple[str, str] | None:
    if name is None:
        return None
    password = os.environ.get(PASSWORD) or (getpass.getpass(f"Password of {name}: ") if sys.stdin.isatty() else "")
    if not name or not password:
        raise OptionError("--login", f"got {name!r} without a password", "both", f"Set {PASSWORD}.")
    return name, password


@contextlib.contextmanager
def _interrupted_by_signals() -> Iterator[None]:
    """Let SIGTERM, and a terminal that is closed, do what Ctrl-C does: KeyboardInterrupt, which ends the block."""

    def interrupt(*_) -> None:
        for each in signals:  # a second one must not stop the cleaning up
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
            footer_links=[],
            share=False,
            quiet=True,
            prevent_thread_lock=True,
        )
    except OSError as error:
        port = arguments.port or "any that was tried"
        got = f"no page can be served at {arguments.host}, port {port}"
        raise OptionError("--port", got, "a port that is free", "Name another.") from error
    print(f"page: {blocks.local_url}  (Ctrl-C ends it)", flush=True)
    if login is None and not _is_local(arguments.host):
        print("All who reach this address can use the page. Add --login NAME to ask for a password.", flush=True)
    try:
        while True:
            time.sleep(HOUR)
    finally:
        blocks.close(verbose=False)


def _is_local(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


if __name__ == "__main__":
    sys.exit(main())
