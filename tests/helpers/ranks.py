"""A process that has imported everything and nothing else, and forks ranks; joined over gloo, they run BasicSR.

Each rank keeps a record of what it did. A fork of the test process would inherit the threads and hooks of other tests;
a fresh process for every rank would spend most of its time on imports.
"""

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path

import torch

from helpers.clean_python import CleanPython

TIME_LIMIT = 180  # seconds; a rank that waits for another one for ever is what it is for


class Ranks:
    """Starts that process, from the clean one; to be used as a context manager.

    Args:
        python: the clean one.
        folder: for the pipes that lead to the process.
    """

    def __init__(self, python: CleanPython, folder: Path):
        self._python, self._folder = python, folder

    def __enter__(self) -> "Ranks":
        pipes = {name: self._folder / name for name in ("stdin", "stdout")}
        for pipe in pipes.values():
            os.mkfifo(pipe)
        path = os.pathsep.join([*map(str, Path(__file__).parents[1:3]), os.environ.get("PYTHONPATH", "")])
        words, errors = ("-m", "helpers.ranks"), self._folder / "stderr"
        self._server = self._python.start(*words, cwd=self._folder, **pipes, stderr=errors, limit=0, PYTHONPATH=path)
        self._requests, self._answers = open(pipes["stdin"], "w"), open(pipes["stdout"])
        return self

    def __exit__(self, *_: object) -> None:
        os.kill(self._server, signal.SIGKILL)  # see `CleanPython.__exit__`
        self._requests.close()
        self._answers.close()
        self._python.wait(self._server)

    def run(
        self,
        count: int,
        job: str,
        options: Path,
        *arguments: str,
        spoilt: Sequence[int] = (),
        stopped: int | None = None,
        apart: bool = False,
    ) -> list[dict]:
        """Run a job on so many ranks, below the folder of the option file; one rank is a run without a launcher.

        Args:
            count: how many ranks.
            job: ``train``, ``test``, or ``validate`` for a model that has just been built.
            options: the option file.
            arguments: more of the command line.
            spoilt: iterations in which the last rank is fed images of infinite values. Their distance to others has a
                gradient that is finite, so that this rank alone notices.
            stopped: iteration in which the last rank sends itself SIGUSR1.
            apart: whether each rank has a folder of its own, ``machine_0`` and so on, as without a common disk.
        Returns:
            The record of each rank; see `Record`. ``error`` is how it ended, empty where all went well.
        """
        folder = options.parent
        request = {"count": count, "job": job, "folder": str(folder), "spoilt": list(spoilt), "apart": apart}
        request["stopped"] = stopped
        request["arguments"] = ["-opt", str(options), *(["--launcher", "pytorch"] if count > 1 else []), *arguments]
        print(json.dumps(request), file=self._requests, flush=True)
        answer = self._answers.readline()
        assert answer, "the process that forks ranks has died"
        states = json.loads(answer)
        output = (folder / "output.txt").read_text()[-8000:]
        assert states == [0] * count, f"exit states {states}; None is a rank that never ended\n{output}"
        return [torch.load(folder / f"rank_{rank}.pt", weights_only=False) for rank in range(count)]


class Record(dict):
    """What a rank did.

    Entries: ``images`` (files of each training batch), ``logs`` (one per iteration), ``restored`` (numbers of the
    validation's images), ``measured`` (how many times a metric was asked), ``results`` (of the last validation),
    ``written`` (names of the images), ``error``; and as the model ended ``networks``, ``own`` (what it remembers),
    ``skipped`` (steps that were not finite), ``best`` (metrics), ``seed``.
    """

    def __init__(self):
        super().__init__(images=[], logs=[], restored=[], measured=0, results={}, written=[], error="")

    def keep(self, model: object) -> None:
        """Take over how a model ended."""
        nets = {name: getattr(model, name) for name in ("net_g", "net_d", "net_g_ema") if hasattr(model, name)}
        self["networks"] = {name: model.get_bare_model(net).state_dict() for name, net in nets.items()}
        if model.is_train:
            self["own"], self["skipped"] = model.extra_state(), model.guard.skipped
            self["seed"] = model.opt["manual_seed"]
            self["best"] = getattr(model, "best_metric_results", {})


def watch(record: Record, spoilt: Sequence[int], stopped: int | None) -> None:
    """Have the model's methods leave their traces in the record. For the life of this process."""
    from gpen_plugin.models import adversarial_model, validation
    from gpen_plugin.models.adversarial_model import AdversarialModel
    from gpen_plugin.models.gan_prior_model import GPENPriorModel

    def around(owner: type, name: str, before: Callable | None = None, after: Callable | None = None) -> None:
        original = vars(owner)[name]

        @wraps(original)
        def called(*arguments, **named):
            if before:
                before(*arguments)
            result = original(*arguments, **named)
            if after:
                after(result, *arguments)
            return result

        setattr(owner, name, called)

    def hold(model, opt) -> None:
        record.model = model

    def see_files(model, data) -> None:
        record.fed = [Path(path).name for path in data["gt_path"]]

    def see_batch(model, iteration) -> None:
        record["images"].append(record.fed)
        if iteration == stopped:
            os.kill(os.getpid(), signal.SIGUSR1)
        if iteration in spoilt:
            model.gt.fill_(float("inf"))

    def count(*_) -> None:
        record["measured"] += 1

    around(AdversarialModel, "__init__", before=hold)
    around(AdversarialModel, "feed_data", before=see_files)
    around(AdversarialModel, "get_current_log", after=lambda log, model: record["logs"].append(dict(log)))
    around(
        AdversarialModel,
        "nondist_validation",
        after=lambda _, model, *more: record["results"].update(model.metric_results),
    )
    around(validation, "calculate_metric", before=count)
    around(adversarial_model, "imwrite", before=lambda image, path: record["written"].append(Path(path).name))
    for model in AdversarialModel.__subclasses__():
        around(model, "optimize_parameters", before=see_batch)
    for model in (AdversarialModel, GPENPriorModel):
        around(model, "to_images", before=lambda model, batch, index: record["restored"].append(index))


def train(folder: str) -> None:
    """The host's training."""
    import basicsr.train

    basicsr.train.train_pipeline(folder)


def test(folder: str) -> None:
    """The host's test."""
    import basicsr.test

    basicsr.test.test_pipeline(folder)


def validate(folder: str) -> None:
    """A validation of what the seed gives, before any training."""
    import basicsr.train

    opt, _ = basicsr.train.parse_options(folder)
    basicsr.train.make_exp_dirs(opt)
    _, _, loaders, _, _ = basicsr.train.create_train_val_dataloader(opt, basicsr.train.get_root_logger())
    model = basicsr.train.build_model(opt)
    for loader in loaders:
        model.validation(loader, 1, None, opt["val"]["save_img"])


JOBS = {"train": train, "test": test, "validate": validate}


def rank_process(rank: int, port: int, request: dict) -> None:
    """All that a forked rank does; it does not return."""
    output = open(Path(request["folder"], "output.txt"), "a")  # noqa: SIM115 - open to the end
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    count = request["count"]
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"  # the parent holds the store, as torchrun does
    sys.argv = ["train.py", *request["arguments"]]
    record = Record()
    try:
        last = rank == count - 1
        watch(record, request["spoilt"] if last else (), request["stopped"] if last else None)
        try:
            JOBS[request["job"]](os.path.join(request["folder"], f"machine_{rank}" if request["apart"] else ""))
        except (Exception, SystemExit) as error:
            traceback.print_exc()
            record["error"] = f"{type(error).__name__}: {error}"
        if hasattr(record, "model"):
            record.keep(record.model)
        torch.save(dict(record), Path(request["folder"], f"rank_{rank}.pt"))
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    sys.stdout.flush()
    os._exit(0)


def states_of(children: list[int]) -> list[int | None]:
    """Exit states; None, and killed, where the time limit came first."""
    states, until = dict.fromkeys(children), time.monotonic() + TIME_LIMIT
    while None in states.values() and time.monotonic() < until:
        for child in [child for child, state in states.items() if state is None]:
            done, state = os.waitpid(child, os.WNOHANG)
            if done:
                states[child] = os.waitstatus_to_exitcode(state)
        time.sleep(0.02)
    for child in [child for child, state in states.items() if state is None]:
        os.kill(child, 9)
        os.waitpid(child, 0)
    return [*states.values()]


def serve() -> None:
    """Read requests, fork, answer with the exit states."""
    import gpen_plugin  # noqa: F401, I001 - before BasicSR
    import basicsr.test
    import basicsr.train  # noqa: F401 - for the ranks

    signal.alarm(0)  # the ranks have a limit, not this process
    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        Path(request["folder"], "output.txt").touch()
        store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        children = []
        for rank in range(request["count"]):
            child = os.fork()
            if not child:
                rank_process(rank, store.port, request)
            children.append(child)
        print(json.dumps(states_of(children)), file=answers, flush=True)
        del store


if __name__ == "__main__":
    serve()
