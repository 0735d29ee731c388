"""ffmpeg, where it is: what a video holds beside its pictures, and a pipe that encodes pictures and takes that over."""

import contextlib
import functools
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from gpen_plugin.errors import DataError

PATIENCE = 60  # seconds for a question about a file
ENCODERS = {  # of pictures, the best first, each with its options
    "libx264": ("-crf", "16", "-preset", "medium"),
    "libopenh264": ("-b:v", "12M"),
    "mpeg4": ("-q:v", "2"),
}
SOUND = "aac"  # encoder of sound that cannot be taken over as it is
_STREAM = re.compile(r"^\s*Stream #\d+:\d+.*?: (Video|Audio|Subtitle): (\w+)(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Container:
    """What a kind of file is filled with.

    Attributes:
        subtitles: encoder of those that cannot be taken over as they are.
        foreign: how the names of those codecs of sound begin that it could hold, but hardly a player understands.
        options: of the file itself.
    """

    subtitles: str
    foreign: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


_PLAYED_WHILE_LOADED = ("-movflags", "+faststart")
CONTAINERS = {
    ".mp4": Container("mov_text", ("pcm_", "vorbis"), _PLAYED_WHILE_LOADED),
    ".mov": Container("mov_text", (), _PLAYED_WHILE_LOADED),
    ".mkv": Container("srt"),
}
"""The files that can be written, by suffix."""


def find_ffmpeg() -> str | None:
    """The program: that of the system, or else the one that the package imageio-ffmpeg brings; None without either."""
    found = shutil.which("ffmpeg")
    if found:
        return found
    try:
        import imageio_ffmpeg

        return imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        return None


@dataclass(frozen=True)
class Contents:
    """What a video file holds, as ffmpeg tells it.

    Attributes:
        sound: the codec of each stream of sound.
        subtitles: the same of subtitles.
        delay: seconds from the start of the file to its first picture.
        deep: whether a colour has more than 8 bits.
    """

    sound: tuple[str, ...] = ()
    subtitles: tuple[str, ...] = ()
    delay: float = 0.0
    deep: bool = False


def contents(ffmpeg: str, path: Path) -> Contents:
    """Ask ffmpeg what a file holds; nothing, if it does not understand it."""
    text = _asked([ffmpeg, "-hide_banner", "-i", f"file:{path}"]).stderr
    streams = [match.groups() for match in _STREAM.finditer(text)]
    pictures = next((rest for kind, _, rest in streams if kind == "Video"), "")
    starts = [re.search(r"\bstart:? (-?[\d.]+)", part) for part in (text, pictures)]
    of_file, of_pictures = (float(start[1]) if start else 0.0 for start in starts)
    return Contents(
        sound=tuple(codec for kind, codec, _ in streams if kind == "Audio"),
        subtitles=tuple(codec for kind, codec, _ in streams if kind == "Subtitle"),
        delay=max(0.0, of_pictures - of_file),
        deep=re.search(r"\b\w*p(010|1[02]|16)(le|be)?\b", pictures) is not None,
    )


class FFmpegPipe:
    """Encodes pictures into a file, together with the sound, the subtitles and the metadata of another.

    Args:
        ffmpeg: the program.
        path: what is written, over what is there.
        source: the video that the rest is taken from.
        size: width and height of the pictures, even.
        rate: pictures per second.
        aspect: width of a pixel by its height.
    Raises:
        DataError: ffmpeg has no encoder, or does not run.

    Attributes:
        notes: what a person should know, such as sound that had to be encoded anew.
    """

    def __init__(self, ffmpeg: str, path: Path, source: Path, size: tuple[int, int], rate: Fraction, aspect: Fraction):
        container = CONTAINERS[path.suffix.lower()]
        held = contents(ffmpeg, source)
        companions, self.notes = _companions(ffmpeg, source, held, path.suffix.lower())
        if held.deep:
            self.notes.append("colours of more than 8 bits became 8 bits")
        width, height = size
        command = [ffmpeg, "-hide_banner", "-loglevel", "error", "-y"]
        command += ["-f", "rawvideo", "-pix_fmt", "bgr24", "-s", f"{width}x{height}", "-framerate", str(rate)]
        command += ["-itsoffset", f"{held.delay:.6f}", "-i", "pipe:0", "-i", f"file:{source}", "-map", "0:v"]
        command += [*companions, "-map_metadata", "1", "-map_chapters", "1", *_colours(aspect)]
        command += [*_encoder(ffmpeg), *container.options, f"file:{path}"]
        self._where = str(path)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - a pipe that nobody reads would fill up and stop it
        # In a session of its own Ctrl-C does not reach it: whoever opened it says what becomes of the file.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self._errors, start_new_session=True
        )

    def write(self, picture: np.ndarray) -> None:
        """Add a picture, (H, W, 3) uint8 BGR. DataError if ffmpeg gave up."""
        try:
            self._process.stdin.write(np.ascontiguousarray(picture).data)
        except OSError as error:
            self._process.wait()
            raise self._failure() from error

    def finish(self) -> None:
        """Close the file. DataError if it could not be written whole."""
        with contextlib.suppress(OSError):  # it ended before; its status says why
            self._process.stdin.close()
        if self._process.wait() != 0:
            raise self._failure()

    def stop(self) -> None:
        """End the program, if it still runs; then what was written is worth nothing."""
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._errors.close()

    def _failure(self) -> DataError:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        last = lines[-1].strip() if lines else f"it ended with status {self._process.returncode}"
        return DataError(self._where, f"ffmpeg could not write it ({last})", "a writable folder with space left")


def _companions(ffmpeg: str, source: Path, held: Contents, suffix: str) -> tuple[list[str], list[str]]:
    """The options that take sound and subtitles over: as they are, else encoded anew, else not; and notes on that."""
    container = CONTAINERS[suffix]
    options, notes = [], []
    for what, letter, codecs, encoder in (
        ("sound", "a", held.sound, SOUND),
        ("subtitles", "s", held.subtitles, container.subtitles),
    ):
        if not codecs:
            continue
        ways = [encoder] if any(codec.startswith(container.foreign) for codec in codecs) else ["copy", encoder]
        for way in ways:
            chosen = ["-map", f"1:{letter}", f"-c:{letter}", way]
            if _can_be_held(ffmpeg, source, suffix, chosen):
                options += chosen
                notes += [] if way == "copy" else [f"{what} encoded anew ({', '.join(codecs)} to {encoder})"]
                break
        else:
            notes.append(f"{what} left out: {suffix} cannot hold {', '.join(codecs)}")
    return options, notes


def _can_be_held(ffmpeg: str, source: Path, suffix: str, options: Sequence[str]) -> bool:
    """Whether a file of this kind takes these streams; tried on the first second."""
    with tempfile.TemporaryDirectory() as folder:
        target = f"file:{Path(folder, 'trial')}{suffix}"
        first = ["-f", "lavfi", "-i", "color=s=16x16:d=0.1", "-t", "1", "-i", f"file:{source}"]  # as in earnest: 1:a
        command = [ffmpeg, "-loglevel", "error", *first, *options, target]
        return _asked(command).returncode == 0


def _colours(aspect: Fraction) -> list[str]:
    """4:2:0, marked with the colours that it has; and the shape of a pixel."""
    # Without accurate_rnd all colours come out up to three grey levels too green.
    exact = "scale=out_color_matrix=bt709:out_range=tv:flags=bicubic+accurate_rnd+full_chroma_int,format=yuv420p"
    marks = "setparams=range=tv:colorspace=bt709:color_primaries=bt709:color_trc=bt709"
    return ["-vf", f"{exact},{marks},setsar={aspect.numerator}/{aspect.denominator}"]


def _encoder(ffmpeg: str) -> list[str]:
    """The best encoder of pictures that this ffmpeg has, with its options."""
    for name, options in ENCODERS.items():
        if name in _encoders(ffmpeg):
            return ["-c:v", name, *options]
    raise DataError(ffmpeg, "has no encoder of pictures", " or ".join(ENCODERS), "Install a fuller ffmpeg.")


@functools.cache
def _encoders(ffmpeg: str) -> frozenset[str]:
    """Names of the encoders of pictures that this ffmpeg was built with."""
    text = _asked([ffmpeg, "-hide_banner", "-encoders"]).stdout
    return frozenset(re.findall(r"^ V\S+ (\S+)", text, re.MULTILINE))


def _asked(command: Sequence[str]) -> subprocess.CompletedProcess:
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=PATIENCE
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DataError(command[0], f"does not answer ({error})", "a working ffmpeg", "Mend or remove it.") from error
