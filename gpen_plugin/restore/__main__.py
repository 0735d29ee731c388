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
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        print("\ngpen_plugin: stopped; each file that is written is whole", file=sys.stderr)
        return 130


def _run(arguments: Namespace) -> int:
    started = time.monotonic()
    if arguments.weights_dir:
        fetch.use_folder(arguments.weights_dir)
    if arguments.report and arguments.report.suffix.lower() != ".json":  # which might be a photograph
        raise OptionError("--report", f"got {arguments.report}", "a name that ends in .json")
    endings = _endings(arguments)
    jobs = expand(arguments.inputs, arguments.output, arguments.suffix, endings=endings)
    _check_videos(arguments, jobs)
    _check_aligned(arguments)
    output = arguments.output.expanduser()
    folder = output.parent if output == jobs[0].target else output
    outputs = Outputs(folder, arguments.save_faces, arguments.compare)
    outputs.check(jobs)
    restorer = _restorer(arguments)
    restorer.restore_all([], aligned=arguments.aligned)  # fails on what no photograph could mend
    runner = Runner(restorer, outputs, _variants(arguments, restorer, endings), aligned=arguments.aligned)
    print(f"network: {restorer.network.description}")
    if not arguments.aligned:
        print(f"faces: {restorer.detector.notice}\nmasks: {restorer.mask.notice}")
    report = Report(restorer.network.description, vars(arguments), len(jobs), arguments.aligned)
    try:
        _restore(jobs, runner, report)
    finally:
        report.seconds = time.monotonic() - started
        print(report.summary(), flush=True)
        if arguments.report:
            report.write(arguments.report)
    return report.status


def _restore(jobs: Sequence[Job], runner: Runner, report: Report) -> None:
    """Run the jobs, and tell of each as soon as it is done."""
    with tqdm(total=len(jobs), unit="input") as progress:

        def done(job: JobReport) -> None:
            report.jobs.append(job)
            progress.set_postfix(faces=sum(each.found for each in report.jobs), refresh=False)
            progress.update()
            if job.error is not None:
                progress.write(f"gpen_plugin: failed: {job.error}", file=sys.stderr)
            for note in job.notes:
                progress.write(f"{job.source}: {note}", file=sys.stderr)

        runner(jobs, done)


def _endings(arguments: Namespace) -> list[str]:
    """What is put behind the names of further results."""
    if arguments.variants < 0:
        raise OptionError("--variants", f"got {arguments.variants}", "a number from 0")
    number = arguments.variants or (1 if arguments.reference else 0)
    for name in ("variant_layers", "variant_strength"):
        if getattr(arguments, name) is not None and not number:
            raise OptionError(f"--{name.replace('_', '-')}", "got it without --variants", "both", "Add --variants 3.")
    return [f"_{number}" for number in range(1, number + 1)]


def _check_videos(arguments: Namespace, jobs: Sequence[Job]) -> None:
    """Refuse options that only photographs have, rather than pass over them."""
    video = next((job for job in jobs if job.kind == "video"), None)
    given = [name for name in ("aligned", "save_faces", "variants", "reference") if getattr(arguments, name)]
    if video is not None and given:
        where, came = f"--{given[0].replace('_', '-')}", f"got it for the video {video.source}"
        raise OptionError(where, came, "photographs", "Leave it out, or restore videos apart.")


def _check_aligned(arguments: Namespace) -> None:
    """Refuse options that only whole photographs have."""
    given = [name for name in ("background", "upscale") if getattr(arguments, name) not in (None, 1)]
    if arguments.aligned and given:
        came = "got it with --aligned, whose results have the network's own size"
        raise OptionError(f"--{given[0]}", came, "whole photographs", "Leave one of the two out.")


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
        identity_model=arguments.identity_model,
    )


def _task(arguments: Namespace) -> str | Inpaint | None:
    if arguments.inpaint_mask is None:
        return arguments.task
    if arguments.task != "inpaint" or not arguments.aligned:
        raise OptionError("--inpaint-mask", "got it without --task inpaint and --aligned", "both", "Add them.")
    mask = read_photograph(arguments.inpaint_mask).pixels[:, :, 0]
    return Inpaint(mask > np.iinfo(mask.dtype).max // 2)


def _variants(arguments: Namespace, restorer: Restorer, endings: Sequence[str]) -> dict[str, Restorer]:
    """Restorers of the further results, by the endings of their names."""
    if not endings:
        return {}
    reference = _reference(arguments, restorer) if arguments.reference else None
    variation = variation_of(arguments.variant_layers, arguments.variant_strength, arguments.seed, reference)
    return {
        ending: restorer.with_network(VariedNetwork(restorer.network, variation, number))
        for number, ending in enumerate(endings, 1)
    }


def _reference(arguments: Namespace, restorer: Restorer) -> np.ndarray:
    """The face whose styles are mixed in: all of the picture with --aligned, else the one that is found in it."""
    photograph = read_photograph(arguments.reference)
    face = photograph.pixels if arguments.aligned else restorer.aligned_face(photograph)
    if face is None:
        raise DataError(str(arguments.reference), "no face was found", "a photograph of one face", "Try another.")
    return face


if __name__ == "__main__":
    sys.exit(main())
