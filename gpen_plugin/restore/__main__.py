"""``gpen-restore INPUT... -o OUT``: photographs and videos in, photographs and videos out."""

import sys
import time
from argparse import Namespace
from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from gpen_plugin import fetch
from gpen_plugin.errors import DataError, OptionError, told_plainly
from gpen_plugin.restore.command_line import parser
from gpen_plugin.restore.face_network import TorchNetwork
from gpen_plugin.restore.inputs import Job, expand
from gpen_plugin.restore.photograph import read_photograph
from gpen_plugin.restore.report import JobReport, Report
from gpen_plugin.restore.restorer import Restorer
from gpen_plugin.restore.running import Outputs, Runner
from gpen_plugin.restore.tasks import Inpaint, task_called
from gpen_plugin.restore.variants import VariedNetwork, variation_of


@told_plainly
def main(argv: Sequence[str] | None = None) -> int:
    """Restore what the command line names.

    Args:
        argv: command line without the program's name; None for the real one.
    Returns:
        Exit status, see the command's help.
    """
    arguments = parser().parse_args(argv)
    started = time.monotonic()
    if arguments.weights_dir:
        fetch.use_folder(arguments.weights_dir)
    jobs = expand(arguments.inputs, arguments.output, arguments.suffix)
    _check_videos(arguments, jobs)
    restorer = _restorer(arguments)
    folder = arguments.output if len(jobs) != 1 or jobs[0].target != arguments.output else arguments.output.parent
    outputs = Outputs(folder, arguments.save_faces, arguments.compare, _variants(arguments, restorer))
    print(f"network: {restorer.network.description}")
    if not arguments.aligned:
        print(f"faces: {restorer.detector.notice}\nmask: {restorer.mask.notice}")
    report = Report(restorer.network.description, _settings(arguments), arguments.aligned)
    with tqdm(total=len(jobs), unit="input") as progress:

        def done(job: JobReport) -> None:
            report.jobs.append(job)
            progress.set_postfix(faces=sum(each.found for each in report.jobs), refresh=False)
            progress.update()
            if job.error is not None:
                progress.write(f"gpen_plugin: failed: {job.error}", file=sys.stderr)
            for note in job.notes:
                progress.write(f"{job.source}: {note}", file=sys.stderr)

        Runner(restorer, outputs, aligned=arguments.aligned)(jobs, done)
    report.seconds = time.monotonic() - started
    if arguments.report:
        report.write(arguments.report)
    print(report.summary())
    return report.status


def _check_videos(arguments: Namespace, jobs: Sequence[Job]) -> None:
    """Refuse options that only photographs have, rather than pass over them."""
    video = next((job for job in jobs if job.kind == "video"), None)
    given = [name for name in ("aligned", "save_faces", "variants") if getattr(arguments, name)]
    if video is not None and given:
        where, came = f"--{given[0].replace('_', '-')}", f"got it for the video {video.source}"
        raise OptionError(where, came, "photographs", "Leave it out, or restore videos apart.")


def _restorer(arguments: Namespace) -> Restorer:
    return Restorer(
        arguments.model or task_called(arguments.task or "restore").released,
        key=arguments.key,
        device=arguments.device,
        precision=arguments.precision,
        task=_task(arguments),
        detector=arguments.detector,
        detector_file=arguments.detector_file,
        min_face=arguments.min_face,
        template=arguments.template,
        mask=arguments.mask,
        alpha=arguments.alpha,
        upscale=arguments.upscale,
        background=arguments.background,
        tile=arguments.tile,
        batch=arguments.batch,
        keep_color=arguments.keep_color,
        identity=arguments.identity,
    )


def _task(arguments: Namespace) -> str | Inpaint | None:
    if arguments.inpaint_mask is None:
        return arguments.task
    if arguments.task != "inpaint" or not arguments.aligned:
        raise OptionError("--inpaint-mask", "got it without --task inpaint and --aligned", "both", "Add them.")
    mask = read_photograph(arguments.inpaint_mask).pixels[:, :, 0]
    return Inpaint(mask > np.iinfo(mask.dtype).max // 2)


def _variants(arguments: Namespace, restorer: Restorer) -> dict[str, Restorer]:
    """Restorers of the further results, by the name that is put behind that of the file."""
    if not arguments.variants:
        return {}
    if not isinstance(restorer.network, TorchNetwork):
        came, way_out = "an ONNX file gives one result alone", "Name the weight file that it was made of."
        raise OptionError("--variants", came, way_out=way_out)
    reference = _reference(arguments, restorer) if arguments.reference else None
    variation = variation_of(arguments.variant_layers, arguments.variant_strength, arguments.seed, reference)
    return {
        f"_{number}": restorer.with_network(VariedNetwork(restorer.network, variation, number))
        for number in range(1, arguments.variants + 1)
    }


def _reference(arguments: Namespace, restorer: Restorer) -> np.ndarray:
    """The face whose styles are mixed in: all of the picture with --aligned, else the one that is found in it."""
    photograph = read_photograph(arguments.reference)
    face = photograph.pixels if arguments.aligned else restorer.aligned_face(photograph)
    if face is None:
        raise DataError(str(arguments.reference), "no face was found", "a photograph of one face", "Try another.")
    return face


def _settings(arguments: Namespace) -> dict[str, object]:
    plain = int | float | bool | str | None
    return {name: value if isinstance(value, plain) else str(value) for name, value in vars(arguments).items()}


if __name__ == "__main__":
    sys.exit(main())
