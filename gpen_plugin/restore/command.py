"""The work behind ``gpen-restore``, once its command line is known to be right."""

import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from gpen_plugin.checkpoints import download
from gpen_plugin.errors import DataError, OptionError, plain_message
from gpen_plugin.images.photograph import read_photograph
from gpen_plugin.restore.batch import Runner
from gpen_plugin.restore.inputs import Inputs
from gpen_plugin.restore.outputs import Outputs
from gpen_plugin.restore.report import JobReport, Report
from gpen_plugin.restore.request import Request
from gpen_plugin.restore.restorer import Restorer
from gpen_plugin.restore.tasks import Inpaint
from gpen_plugin.restore.variants import VariedNetwork, variation_of


def run(arguments: Namespace, request: Request) -> int:
    """Restore what a command line asks for; the command's exit status, see its help."""
    started = time.monotonic()
    if arguments.weights_dir:
        download.add_search_dir(arguments.weights_dir)
    inputs = request.inputs
    outputs = Outputs(
        request.folder, faces=arguments.save_faces, compare=arguments.compare, overwrite=arguments.overwrite
    )
    outputs.check_names(inputs.jobs)
    outputs.open()
    try:
        restorer = _restorer(arguments)
        restorer.restore_all([], aligned=arguments.aligned)  # fails where the options are wrong for every photograph
        runner = Runner(restorer, outputs, _variants(arguments, restorer, request.endings), aligned=arguments.aligned)
        print(f"network: {restorer.network.description}")
        if not arguments.aligned:
            print(f"faces: {restorer.detector.notice}\nmasks: {restorer.mask.notice}")
        report = Report(
            restorer.network.description,
            vars(arguments),
            len(inputs.jobs) + len(inputs.unreadable),
            arguments.aligned,
            passed_over=inputs.passed_over,
            has_file=bool(arguments.report),
        )
        try:
            _restore(inputs, runner, report)
        finally:
            report.seconds = time.monotonic() - started
            print(report.summary(), flush=True)
            is_written = not arguments.report or _write(report, arguments.report)
        return report.status if is_written else 1
    finally:
        outputs.close()


def _restore(inputs: Inputs, runner: Runner, report: Report) -> None:
    """Run the jobs, and tell of each as soon as it is done."""
    with tqdm(total=report.total, unit="input") as progress:

        def done(job: JobReport) -> None:
            report.add(job)
            progress.set_postfix(faces=report.faces, refresh=False)
            progress.update()
            if job.error is not None:
                progress.write(f"gpen_plugin: failed: {job.error}", file=sys.stderr)
            for note in job.notes:
                progress.write(f"{job.source}: {note}", file=sys.stderr)

        for folder, error in inputs.unreadable:
            done(JobReport(folder, None, error=plain_message(error)))
        runner(inputs.jobs, done)


def _write(report: Report, path: Path) -> bool:
    """Write the report file; where that fails, print the report, so that it is not lost, and return False."""
    try:
        report.write(path)
        return True
    except DataError as error:
        print(f"gpen_plugin: {plain_message(error)} The report follows.", file=sys.stderr)
        print(report.to_json(), flush=True)
        return False


def _restorer(arguments: Namespace) -> Restorer:
    return Restorer(
        arguments.model,
        key=arguments.key,
        device=arguments.device,
        precision=arguments.precision,
        task=_task(arguments),
        detector=arguments.detector,
        detector_file=arguments.detector_file,
        min_face=arguments.min_face,
        max_face=arguments.max_face,
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
    """The face whose styles are mixed in: all of the image with --aligned, else the one that is found in it."""
    photograph = read_photograph(arguments.reference)
    face = photograph.pixels if arguments.aligned else restorer.aligned_face(photograph)
    if face is None:
        raise DataError(str(arguments.reference), "no face was found", "a photograph of one face", "Try another.")
    return face
