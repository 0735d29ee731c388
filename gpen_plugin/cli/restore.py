"""``gpen-restore INPUT... [-o OUTPUT]``: restore the faces of photographs and videos."""

import argparse
import contextlib
import dataclasses
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpen_plugin.errors import DataError, OptionError, handle_errors, plain_message
from gpen_plugin.nets.onnx_providers import PROVIDERS
from gpen_plugin.restore.ranks import ALONE, Ranks
from gpen_plugin.restore.selection import parse_selection
from gpen_plugin.version import __version__

if TYPE_CHECKING:
    import numpy as np

    from gpen_plugin.restore.batch import Runner
    from gpen_plugin.restore.inputs import Inputs, Job
    from gpen_plugin.restore.manifest import Manifest
    from gpen_plugin.restore.outputs import Outputs
    from gpen_plugin.restore.report import JobReport
    from gpen_plugin.restore.restorer import Restorer
    from gpen_plugin.restore.tasks import Inpaint
    from gpen_plugin.restore.workers import Facts, Inline, Workers

DESCRIPTION = "Restore the faces of photographs and videos. Input files are never changed."
EPILOG = """
examples:
  gpen-restore old.jpg                                       every face of a photograph; the result is restored/old.jpg
  gpen-restore album/ 'scans/*.tif' -o restored --compare    folders and globs, with before/after images
  gpen-restore film.mp4 -o restored                          a video, with its sound and subtitles
  gpen-restore faces/ -o restored --aligned -m net_g_latest.pth

The output folder gets a manifest.jsonl. The same command again continues: it skips what is done, and retries failures.

exit status: 0 all inputs restored, 1 an input failed (the others are restored), 2 unknown or missing options,
3 no face in any photograph, 130 stopped by Ctrl-C, 143 stopped by SIGTERM (no file is left half written)
"""

# options that one engine has and the other has not
_OF_RAY = ("address", "workers", "num_cpus", "num_gpus", "shard_size")
_NOT_OF_RAY = ("jobs", "variants", "reference", "save_faces", "compare")
# options that do not change what is restored; and files whose contents do
_WITHOUT_EFFECT = ("inputs", "output", "overwrite", "redo", "report", "device", "batch", "jobs", "weights_dir")
_WITHOUT_EFFECT += ("engine", "runtime", "provider", "benchmark", *_OF_RAY)
_FILES = ("detector_file", "like", "reference", "inpaint_mask", "identity_model", "background")
MEMORY_PER_JOB = 2 << 30  # bytes, for --jobs auto
IMPORTS = ("gpen_plugin.restore.batch",)  # all that `open_runner` needs
SHARD_SIZE = 200  # of --engine ray


@handle_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Restore what the command line names, and return the exit status: see `EPILOG`.

    Args:
        argv: command line without the program's name; None for the real one.
    """
    arguments = parser().parse_args(argv)
    if arguments.benchmark:
        return benchmark(arguments)
    if not arguments.inputs:
        parser().error("the following arguments are required: INPUT")
    try:
        with _raise_keyboard_interrupt(signal.SIGTERM):
            ranks = Ranks.of_environment()
            _check_engine(arguments, ranks)
            if arguments.engine == "ray":
                return restore_with_ray(arguments)
            inputs, folder, endings = check(arguments, ranks)  # before PyTorch is imported, which takes seconds
            with ranks.ending_together():
                return restore(arguments, inputs, folder, endings, ranks)
    except KeyboardInterrupt as stop:
        print("\ngpen_plugin: stopped; all written files are complete", file=sys.stderr)
        return 128 + (stop.args[0] if stop.args else signal.SIGINT)


def benchmark(arguments: argparse.Namespace) -> int:
    """Time the network in each runtime and precision of this machine."""
    if arguments.inputs:
        raise OptionError("--benchmark", f"got it with the input {arguments.inputs[0]}", "no input", "Leave one out.")

    import torch

    from gpen_plugin.checkpoints import download
    from gpen_plugin.ops.memory import keep_freed_memory
    from gpen_plugin.restore.benchmark import benchmark
    from gpen_plugin.restore.tasks import get_task

    keep_freed_memory()

    cores = _usable_cores()
    if arguments.jobs != 1:  # each of them gets as many threads as when it restores
        jobs = _default_jobs(cores) if arguments.jobs == "auto" else arguments.jobs
        torch.set_num_threads(max(1, cores // jobs))
    if arguments.weights_dir:
        download.add_search_dir(arguments.weights_dir)
    model = arguments.model or get_task(arguments.task or "restore").released
    for line in benchmark(model, key=arguments.key, device=arguments.device, batch=arguments.batch):
        print(line, flush=True)
    return 0


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(
        prog="gpen-restore",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("inputs", nargs="*", metavar="INPUT", help="photographs, videos, folders, globs")
    output_help = "a folder; or a file name for a single photograph or video (default: the folder %(default)s)"
    add("-o", "--output", type=_output, default=Path("restored"), help=output_help)
    add("--overwrite", action="store_true", help="replace existing files (default: an existing file is an error)")
    redo_help = (
        "restore everything again, and replace what earlier runs of this command have written (default: continue)"
    )
    add("--redo", action="store_true", help=redo_help)

    add = parser.add_argument_group("network").add_argument
    model_help = "name, weight file, ONNX file or hf:user/repo (default: GPEN-Faces-256, or that of the task)"
    add("-m", "--model", help=model_help)
    add("--key", help="entry of the weight file, e.g. params_ema (default: the averaged weights)")
    add("--task", choices=("restore", "colorize", "inpaint", "seg2face"), help="default: the task of the model")
    mask_help = "with --task inpaint --aligned: an image whose white pixels are filled"
    add("--inpaint-mask", type=Path, help=mask_help)
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default %(default)s)")
    precision_help = "of the network; auto: bf16 where this processor gains from it (default %(default)s)"
    add("--precision", default="fp32", choices=("auto", "fp32", "bf16"), help=precision_help)
    runtime_help = "that runs the network; auto: the fastest by --benchmark, else torch (default %(default)s)"
    add("--runtime", default="auto", choices=("auto", "torch", "onnxruntime", "openvino"), help=runtime_help)
    provider_help = f"of onnxruntime: {', '.join(PROVIDERS)}; or with a device, such as openvino:GPU"
    add("--provider", help=f"{provider_help} (default: that of --device)")
    benchmark_help = "time the network in each runtime and precision, remember the times, and stop"
    add("--benchmark", action="store_true", help=benchmark_help)
    add("--batch", type=int, default=8, help="faces per batch (default %(default)s)")
    jobs_help = "processes that restore photographs at the same time, or auto: one per core (default %(default)s)"
    add("--jobs", type=_job_count, default=1, metavar="N", help=jobs_help)
    add("--weights-dir", type=Path, help="folder that is searched first for published weights")

    add = parser.add_argument_group("faces").add_argument
    add("--aligned", action="store_true", help="each image shows one aligned face; no detection")
    detector_help = "default: retinaface if its weights are on this machine, else yunet"
    add("--detector", default="auto", choices=("auto", "retinaface", "yunet"), help=detector_help)
    add("--detector-file", type=Path, help="weights of RetinaFace (default: found on this machine)")
    only_help = "restore only the largest face, faces by number from left to right, or those centered in a rectangle"
    add("--only", metavar="largest|1,3|box:L,T,R,B", help=only_help)
    like_help = "restore only the face of each photograph that is most like the one in this photograph"
    add("--like", type=Path, metavar="PHOTO", help=like_help)
    likeness_help = "cosine similarity that a face needs for --like (default %(default)s)"
    add("--likeness", type=float, default=0.3, metavar="COSINE", help=likeness_help)
    add("--min-face", type=float, default=16, help="leave smaller faces unchanged, in pixels (default %(default)s)")
    add("--max-face", type=float, help="leave larger faces unchanged, in pixels (default: no limit)")
    sharp_help = "faces that are as sharp as the network's result already (default: keep without --model, else restore)"
    add("--sharp-faces", choices=("keep", "restore"), help=sharp_help)
    template_help = "face alignment: ffhq, gpen, arcface, dlib, or ten numbers (default: that of the model)"
    add("--template", help=template_help)

    add = parser.add_argument_group("result").add_argument
    add("--alpha", type=float, help="weight of the restored face, 0 to 1 (default: that of the model, usually 1)")
    mask_help = "which part of a face is pasted (default: parsing if its weights are on this machine, else soft)"
    add("--mask", default="auto", choices=("auto", "soft", "parsing"), help=mask_help)
    add("--upscale", type=float, default=1, help="enlarge the photograph by this factor (default 1)")
    background_help = "network for the rest of the photograph: RealESRGAN_x2plus, RealESRGAN_x4plus, or an option file"
    add("--background", help=f"{background_help} of BasicSR")
    add("--tile", type=int, default=512, help="side of the tiles for --background, in pixels (default %(default)s)")
    color_help = "keep the low frequencies of the input's light and color (default: without --model)"
    add("--keep-color", action=argparse.BooleanOptionalAction, help=color_help)
    noise_help = "remove strong noise from a face before the network (default: without --model)"
    add("--denoise", action=argparse.BooleanOptionalAction, help=noise_help)
    identity_help = "leave a face unchanged if its cosine similarity to the restored one is below this"
    add("--identity", type=float, metavar="COSINE", help=identity_help)
    recognition_help = "face recognition network for --identity (default: gfpgan's ArcFace)"
    add("--identity-model", type=Path, metavar="FILE.onnx", help=recognition_help)

    add = parser.add_argument_group("several results for one face (see docs/RESTORING.md)").add_argument
    add("--variants", type=int, default=0, metavar="N", help="write N more results with other latent codes")
    add("--variant-layers", metavar="A-B", help="latent codes that change, 0 is the coarsest (default: fine)")
    add("--variant-strength", type=float, help="how far they change, 0 to 1 (default 0.5)")
    add("--reference", type=Path, help="write one more result that mixes in latent codes of this face")
    add("--seed", type=int, default=0, help="random seed of the variants (default %(default)s)")

    add = parser.add_argument_group("clusters (see docs/SCALE.md)").add_argument
    engine_help = (
        "ray: Ray Data on a cluster or on this machine. Then INPUT can be tars and URLs, too, and OUTPUT a URL"
    )
    add("--engine", default="local", choices=("local", "ray"), help=f"{engine_help} or shard-%%06d.tar")
    add("--address", help="of a Ray cluster; auto finds the one of this machine (default: start Ray on this machine)")
    add("--workers", type=int, help="most processes that restore (default: as many as the cluster has room for)")
    add("--num-cpus", type=float, help="CPUs of each of them (default 1)")
    add("--num-gpus", type=float, help="GPUs of each of them, e.g. 0.25 (default: 1 if the cluster has any)")
    add("--shard-size", type=int, metavar="N", help="photographs in a written tar (default 200)")

    add = parser.add_argument_group("output files").add_argument
    add("--suffix", help="format of the written images, e.g. .png (default: that of the input)")
    add("--save-faces", action="store_true", help="write each face before and after to OUTPUT/faces")
    add("--compare", action="store_true", help="write inputs and results side by side to OUTPUT/compare")
    add("--report", type=Path, metavar="FILE.json", help="write faces, results and errors of each input")
    return parser


def _job_count(text: str) -> int | str:
    if text == "auto":
        return text
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text}; expected a number from 1, or auto")
    return int(text)


def _output(text: str) -> Path | str:
    return text if "://" in text else Path(text)


def _check_engine(arguments: argparse.Namespace, ranks: Ranks) -> None:
    """Refuse options of the other engine."""
    is_ray = arguments.engine == "ray"
    for name in _NOT_OF_RAY if is_ray else _OF_RAY:
        if getattr(arguments, name) != parser().get_default(name):
            hint = "Leave one of the two out." if is_ray else "Add it."
            got = f"got it {'with' if is_ray else 'without'} --engine ray"
            raise OptionError(f"--{name.replace('_', '-')}", got, hint=hint)
    for name in ("workers", "num_cpus", "num_gpus", "shard_size"):
        if getattr(arguments, name) is not None and getattr(arguments, name) <= 0:
            raise OptionError(f"--{name.replace('_', '-')}", f"got {getattr(arguments, name)}", "a number above 0")
    if is_ray and ranks.count > 1:
        got = f"got it in {ranks.count} processes of torchrun or srun"
        raise OptionError("--engine ray", got, "one process", "Run the command without torchrun or srun.")
    if not is_ray and (isinstance(arguments.output, str) or arguments.output.suffix == ".tar"):
        raise OptionError("--output", f"got {arguments.output}", "a local folder", "For others add --engine ray.")


def check(arguments: argparse.Namespace, ranks: Ranks) -> tuple["Inputs", Path, list[str]]:
    """Check the command line as far as that needs no PyTorch.

    Returns:
        The inputs of this rank; the output folder; and the endings of the names of further results.
    Raises:
        OptionError: options that do not go together, or an output among the inputs.
        DataError: inputs that are not there, or hold nothing to restore.
    """
    from gpen_plugin.restore.inputs import expand

    arguments.report = arguments.report and ranks.own_file(arguments.report)
    _check_report(arguments)
    endings = _variant_endings(arguments)
    inputs = expand(arguments.inputs, arguments.output, arguments.suffix, endings=endings)
    _check_videos(arguments, inputs.jobs)
    _check_aligned(arguments)
    parse_selection(arguments.only)
    output = arguments.output.expanduser()
    is_file = any(output == job.target for job in inputs.jobs)
    return _part(inputs, ranks), output.parent if is_file else output, endings


def _check_report(arguments: argparse.Namespace) -> None:
    report = arguments.report
    if report and report.suffix.lower() != ".json":  # which might be a photograph
        raise OptionError("--report", f"got {report}", "a name that ends in .json")
    if report and not arguments.overwrite and os.path.lexists(report):
        hint = "Pass --overwrite to replace it, or name another file."
        raise OptionError("--report", f"{report} is there already", "a new file", hint)


def _part(inputs: "Inputs", ranks: Ranks) -> "Inputs":
    """What this rank restores; the first one reports what is skipped."""
    jobs = [job for job in inputs.jobs if ranks.owns(job.source)]
    skipped = {} if ranks.rank == 0 else {"skipped_files": [], "unreadable": []}
    return dataclasses.replace(inputs, jobs=jobs, **skipped)


def _variant_endings(arguments: argparse.Namespace) -> list[str]:
    if arguments.variants < 0:
        raise OptionError("--variants", f"got {arguments.variants}", "a number from 0")
    number = arguments.variants or (1 if arguments.reference else 0)
    for name in ("variant_layers", "variant_strength"):
        if getattr(arguments, name) is not None and not number:
            raise OptionError(f"--{name.replace('_', '-')}", "got it without --variants", "both", "Add --variants 3.")
    return [f"_{number}" for number in range(1, number + 1)]


def _check_videos(arguments: argparse.Namespace, jobs: Sequence["Job"]) -> None:
    """Refuse options for photographs if all inputs are videos; otherwise each video gets a note, see `Runner`."""
    given = [name for name in ("aligned", "save_faces", "variants", "reference") if getattr(arguments, name)]
    if given and all(job.kind == "video" for job in jobs):
        where, got = f"--{given[0].replace('_', '-')}", f"got it for the video {jobs[0].source}"
        raise OptionError(where, got, "photographs", "Leave it out.")


def _check_aligned(arguments: argparse.Namespace) -> None:
    given = [name for name in ("background", "upscale") if getattr(arguments, name) not in (None, 1)]
    if arguments.aligned and given:
        got = "got it with --aligned, whose results have the size of the network"
        raise OptionError(f"--{given[0]}", got, "whole photographs", "Leave one of the two out.")
    given = [name for name in ("only", "like") if getattr(arguments, name)]
    if arguments.aligned and given:
        raise OptionError(f"--{given[0]}", "got it with --aligned", "photographs with several faces", "Leave it out.")


def restore(arguments: argparse.Namespace, inputs: "Inputs", folder: Path, endings: Sequence[str], ranks: Ranks) -> int:
    """Restore the inputs of a command line that `check` has passed, and return the exit status."""
    from gpen_plugin.restore.outputs import Outputs
    from gpen_plugin.restore.schedule import Schedule

    if ranks.count > 1 and arguments.device == "auto":
        arguments.device = _device_of(ranks)
    outputs = Outputs(folder, faces=arguments.save_faces, compare=arguments.compare, overwrite=arguments.overwrite)
    outputs.check_names(inputs.jobs)
    outputs.open()
    try:
        with _workers(arguments, outputs, endings, len(inputs.jobs)) as workers:
            facts = workers.facts
            print(f"network: {facts.network}")
            if not arguments.aligned:
                print(f"faces: {facts.detector}\nmasks: {facts.mask}")
            with _manifest(arguments, facts, folder, ranks) as manifest:
                schedule = partial(
                    Schedule,
                    inputs.jobs,
                    outputs,
                    endings,
                    chunk=facts.batch,
                    manifest=manifest,
                    redo=arguments.redo or arguments.overwrite,
                )
                return _run(arguments, inputs, facts.network, lambda done: workers.run(schedule(done)), ranks)
    finally:
        if ranks.count == 1:  # other ranks may be about to write
            outputs.close()


def _device_of(ranks: Ranks) -> str:
    import torch

    return f"cuda:{ranks.local_rank % torch.cuda.device_count()}" if torch.cuda.is_available() else "auto"


def _workers(
    arguments: argparse.Namespace, outputs: "Outputs", endings: Sequence[str], total: int
) -> "Inline | Workers":
    from gpen_plugin.restore.workers import Inline, Workers

    cores = max(1, _usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))  # torchrun's
    count = min(_default_jobs(cores) if arguments.jobs == "auto" else arguments.jobs, total)
    if count < 2:
        return Inline(open_runner(arguments, outputs, endings))
    threads = max(1, cores // count)
    openers = [partial(open_runner, arguments, outputs, endings, index, threads) for index in range(count)]
    return Workers(openers, fit_gpus=arguments.jobs == "auto", imports=IMPORTS, threads=threads)


def _default_jobs(cores: int) -> int:
    """For ``--jobs auto``: a process per core, if memory suffices."""
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows
        return cores
    return max(1, min(cores, memory // MEMORY_PER_JOB))


def _usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def open_runner(
    arguments: argparse.Namespace,
    outputs: "Outputs",
    endings: Sequence[str],
    index: int | None = None,  # of this process among those of --jobs; None if it is the only one
    threads: int | None = None,  # that this process uses; None: as many as there are cores
) -> "Runner":
    """What restores the inputs of a command line in a process."""
    import cv2
    import torch

    from gpen_plugin.checkpoints import download
    from gpen_plugin.ops.memory import keep_freed_memory
    from gpen_plugin.restore.batch import Runner

    keep_freed_memory()
    if threads is not None:
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)
    if index is not None and arguments.device in ("auto", "cuda") and torch.cuda.device_count() > 1:
        arguments = argparse.Namespace(**vars(arguments) | {"device": f"cuda:{index % torch.cuda.device_count()}"})
    if arguments.weights_dir:
        download.add_search_dir(arguments.weights_dir)
    restorer = _restorer(arguments)
    restorer.check_aligned(arguments.aligned)
    variants = _variants(arguments, restorer, endings)
    return Runner(restorer, outputs, variants, aligned=arguments.aligned, shows_frames=index is None)


def restore_with_ray(arguments: argparse.Namespace) -> int:
    """Restore the inputs of a command line on a cluster, and return the exit status."""
    from gpen_plugin.data.tar_file import is_remote
    from gpen_plugin.restore import ray_engine
    from gpen_plugin.restore.inputs import Inputs
    from gpen_plugin.restore.manifest import Manifest
    from gpen_plugin.restore.outputs import Outputs

    _check_report(arguments)
    output, shards = ray_engine.split_output(str(arguments.output))
    items, skipped_files = ray_engine.list_items(arguments.inputs, output, arguments.suffix)
    folder = Path(output).expanduser()
    outputs = Outputs(folder, overwrite=arguments.overwrite)
    # finds wrong options before Ray starts
    facts = open_runner(argparse.Namespace(**vars(arguments) | {"device": "cpu"}), outputs, ()).facts
    print(f"network: {facts.network}")
    settings, redo = _settings(arguments, facts), arguments.redo or arguments.overwrite
    options = {**_restorer_options(arguments), "weights_dir": arguments.weights_dir}
    for name in ("model", "weights_dir", *_FILES):  # the workers of a cluster have another folder
        if options.get(name) and os.path.exists(options[name]):
            options[name] = os.path.abspath(options[name])
    with contextlib.ExitStack() as stack:
        if shards or isinstance(arguments.output, str):
            records = ray_engine.SegmentRecords(output, settings, shards=shards, redo=redo)
        else:
            outputs.open()
            stack.callback(outputs.close)
            manifest = Manifest(folder, settings)
            records = ray_engine.ManifestRecords(folder, manifest, redo=redo, overwrite=arguments.overwrite)
        stack.callback(records.close)
        runner = ray_engine.RayRunner(
            {**options, "aligned": arguments.aligned},
            records,
            output if is_remote(output) else os.path.abspath(folder),
            suffix=arguments.suffix,
            address=arguments.address,
            workers=arguments.workers,
            num_cpus=arguments.num_cpus or 1,
            num_gpus=arguments.num_gpus,
            batch=arguments.batch,
            shard_size=(arguments.shard_size or SHARD_SIZE) if shards else None,
        )
        inputs = Inputs(items, skipped_files, [])
        return _run(arguments, inputs, facts.network, lambda done: runner(items, done), ALONE)


def _run(
    arguments: argparse.Namespace,
    inputs: "Inputs",
    network: str,
    run: Callable[[Callable[["JobReport"], None]], None],  # runs the jobs, and reports each
    ranks: Ranks,
) -> int:
    """Run the jobs, print notes and errors of each when it is done, and return the exit status."""
    from tqdm import tqdm

    from gpen_plugin.restore.report import NO_FACES, JobReport, Report, ReportFile

    started = time.monotonic()
    total = len(inputs.jobs) + len(inputs.unreadable)
    selects = bool(arguments.only or arguments.like)
    report = Report(total, arguments.aligned, selects, skipped_files=inputs.skipped_files)
    file = arguments.report and ReportFile(arguments.report, network, vars(arguments), inputs.skipped_files)
    lost = False

    def done(job: JobReport) -> None:
        nonlocal lost
        report.add(job)
        progress.set_postfix(faces=report.faces, refresh=False)
        progress.update()
        if job.error is not None:
            progress.write(f"gpen_plugin: failed: {job.error}", file=sys.stderr)
        for note in () if job.is_earlier else job.notes:
            progress.write(f"{job.source}: {note}", file=sys.stderr)
        if file:
            try:
                file.add(job)
            except DataError as error:
                lost = True
                entry = json.dumps(job.to_dict(), default=str)
                progress.write(f"gpen_plugin: {plain_message(error)} Its entry: {entry}", file=sys.stderr)

    try:
        with tqdm(total=total, unit="input", disable=ranks.rank > 0) as progress:
            for folder, error in inputs.unreadable:
                done(JobReport(folder, None, error=plain_message(error)))
            run(done)
    finally:
        report.seconds = time.monotonic() - started
        print(ranks.label + report.summary(), flush=True)
    if lost:
        return 1
    if ranks.count > 1 and report.status == NO_FACES:  # other ranks may have found some
        return 0
    return report.status


def _manifest(
    arguments: argparse.Namespace, facts: "Facts", folder: Path, ranks: Ranks
) -> "contextlib.AbstractContextManager[Manifest | None]":
    """The manifest of the output folder; none for a single input with an output file of its own."""
    from gpen_plugin.restore.manifest import Manifest

    if arguments.output.expanduser() != folder:
        return contextlib.nullcontext()
    return contextlib.closing(Manifest(folder, _settings(arguments, facts), ranks))


def _settings(arguments: argparse.Namespace, facts: "Facts") -> str:
    """Digest of all that decides the results, besides the inputs."""
    from gpen_plugin.restore.manifest import settings_digest

    files = [facts.network_file, *(getattr(arguments, name) for name in _FILES)]
    settings = {name: value for name, value in vars(arguments).items() if name not in _WITHOUT_EFFECT}
    if not arguments.aligned:
        settings |= {"detector": facts.detector, "mask": facts.mask}
    return settings_digest({**settings, "version": __version__}, files)


def _restorer(arguments: argparse.Namespace) -> "Restorer":
    from gpen_plugin.restore.restorer import Restorer

    return Restorer(**_restorer_options(arguments))


def _restorer_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Arguments of `Restorer`."""
    return {
        "model": arguments.model,
        "key": arguments.key,
        "device": arguments.device,
        "precision": arguments.precision,
        "runtime": _runtime(arguments),
        "provider": arguments.provider,
        "task": _task(arguments),
        "only": arguments.only,
        "like": arguments.like,
        "likeness": arguments.likeness,
        "detector": arguments.detector,
        "detector_file": arguments.detector_file,
        "min_face": arguments.min_face,
        "max_face": arguments.max_face,
        "skip_sharp": None if arguments.sharp_faces is None else arguments.sharp_faces == "keep",
        "template": arguments.template,
        "mask": arguments.mask,
        "alpha": arguments.alpha,
        "upscale": arguments.upscale,
        "background": arguments.background,
        "tile": arguments.tile,
        "batch": arguments.batch,
        "keep_color": arguments.keep_color,
        "denoise": arguments.denoise,
        "identity": arguments.identity,
        "identity_model": arguments.identity_model,
    }


def _runtime(arguments: argparse.Namespace) -> str:
    """Only PyTorch changes latent codes."""
    varies = arguments.variants or arguments.reference
    return "torch" if varies and arguments.runtime == "auto" else arguments.runtime


def _task(arguments: argparse.Namespace) -> "str | Inpaint | None":
    if arguments.inpaint_mask is None:
        return arguments.task
    if arguments.task != "inpaint" or not arguments.aligned:
        raise OptionError("--inpaint-mask", "got it without --task inpaint and --aligned", "both", "Add them.")

    import numpy as np

    from gpen_plugin.images.photograph import read_photograph
    from gpen_plugin.restore.tasks import Inpaint

    mask = read_photograph(arguments.inpaint_mask).pixels[:, :, 0]
    return Inpaint(mask > np.iinfo(mask.dtype).max // 2)


def _variants(arguments: argparse.Namespace, restorer: "Restorer", endings: Sequence[str]) -> dict[str, "Restorer"]:
    """Restorers of the further results, by the endings of their names."""
    if not endings:
        return {}

    from gpen_plugin.restore.variants import VariedNetwork, variation_of

    reference = _reference(arguments, restorer) if arguments.reference else None
    variation = variation_of(arguments.variant_layers, arguments.variant_strength, arguments.seed, reference)
    return {
        ending: restorer.with_network(VariedNetwork(restorer.network, variation, number))
        for number, ending in enumerate(endings, 1)
    }


def _reference(arguments: argparse.Namespace, restorer: "Restorer") -> "np.ndarray":
    """The face whose codes are mixed in: the whole image with --aligned, else the face that is detected in it."""
    from gpen_plugin.images.photograph import read_photograph

    photograph = read_photograph(arguments.reference)
    face = photograph.pixels if arguments.aligned else restorer.aligned_face(photograph)
    if face is None:
        raise DataError(str(arguments.reference), "no face was found", "a photograph of one face", "Try another.")
    return face


@contextlib.contextmanager
def _raise_keyboard_interrupt(number: int) -> Iterator[None]:
    """Raise `KeyboardInterrupt(number)` at a signal, once: the report is written even if the signal comes again."""

    def stop(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt(number)

    if threading.current_thread() is not threading.main_thread():  # signals cannot be handled there
        yield
        return
    before = signal.signal(number, stop)
    try:
        yield
    finally:
        signal.signal(number, before)


if __name__ == "__main__":
    sys.exit(main())
