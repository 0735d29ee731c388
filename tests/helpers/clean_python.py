"""A fresh Python without the second or two that PyTorch takes to import: forks of one that has imported what is slow.

BasicSR, this package and facexlib are not imported, so that what happens when they are can be tested. The hook of
Python's start-up is where it is in any Python of this installation.
"""

import importlib
import json
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import types
from pathlib import Path

TIME_LIMIT = 300  # seconds; a program that waits for ever is what it is for
SLOW = ("torch", "torchvision", "torch.utils.tensorboard", "cv2", "lmdb", "PIL.TiffImagePlugin", "setuptools", "yaml")
SLOW += tuple(f"scipy.{name}" for name in ("linalg", "ndimage", "optimize", "special", "stats"))
NOT_IMPORTED = {"basicsr", "facexlib", "gfpgan", "gpen_plugin"}


class CleanPython:
    """Starts that process; to be used as a context manager."""

    def __enter__(self) -> "CleanPython":
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        environment.pop("PYTHONPATH", None)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._server = subprocess.Popen([sys.executable, __file__], env=environment, cwd=tempfile.gettempdir(), **pipes)
        return self

    def __exit__(self, *_: object) -> None:
        # Its input may stay open: a worker of a data loader, a fork of this process, has it as well.
        self._server.kill()
        self._server.communicate()

    def _ask(self, **request: object) -> int:
        print(json.dumps(request), file=self._server.stdin, flush=True)
        answer = self._server.stdout.readline()
        assert answer, "the process that forks has died"
        return json.loads(answer)

    def start(
        self,
        *arguments: str,
        cwd: Path,
        stdin: Path = os.devnull,
        stdout: Path,
        stderr: Path,
        limit: int = TIME_LIMIT,
        **variables: str,
    ) -> int:
        """Start Python with these arguments: ``-c PROGRAM``, ``-m MODULE`` or a script, and more.

        Args:
            arguments: of Python.
            cwd: the folder to run in.
            stdin: a file, as the next two; named pipes will do.
            stdout: replaced.
            stderr: replaced.
            limit: seconds after which it is killed; 0 for never.
            variables: of the environment, beside or in place of those of this process.
        Returns:
            The process id.
        """
        files = {"stdin": str(stdin), "stdout": str(stdout), "stderr": str(stderr)}
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **variables}
        return self._ask(arguments=arguments, cwd=str(cwd), limit=limit, environment=environment, **files)

    def wait(self, pid: int) -> int:
        """The exit code of a process that `start` started; negative if it was killed."""
        return self._ask(wait=pid)

    def run(self, *arguments: str, cwd: Path, stdin: str = "", **variables: str) -> subprocess.CompletedProcess:
        """Run Python to its end; what it printed."""
        with tempfile.TemporaryDirectory() as folder:
            files = {name: Path(folder, name) for name in ("stdin", "stdout", "stderr")}
            files["stdin"].write_text(stdin)
            code = self.wait(self.start(*arguments, cwd=cwd, **files, **variables))
            return subprocess.CompletedProcess(
                arguments, code, files["stdout"].read_text(), files["stderr"].read_text()
            )


def execute(arguments: list[str], cwd: str, limit: int, environment: dict[str, str], **files: str) -> None:
    """What a fork does."""
    signal.alarm(limit)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    for number, (name, mode) in enumerate({"stdin": "r", "stdout": "w", "stderr": "w"}.items()):
        file = open(files[name], mode)  # noqa: SIM115 - open to the end
        os.dup2(file.fileno(), number)
        setattr(sys, name, open(number, mode, closefd=False, buffering=1))  # noqa: SIM115
    sys.path[:0] = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    kind, *words = arguments
    if kind == "-c":
        sys.path.insert(0, "")
        sys.argv = ["-c", *words[1:]]
        sys.modules["__main__"] = main = types.ModuleType("__main__")
        exec(words[0], vars(main))
    elif kind == "-m":
        sys.path.insert(0, cwd)
        sys.argv = words
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    else:
        sys.path.insert(0, os.path.dirname(os.path.abspath(kind)))
        sys.argv = arguments
        runpy.run_path(kind, run_name="__main__")


def serve() -> None:
    """Read requests, fork, answer with process ids and exit codes."""
    for name in SLOW:
        importlib.import_module(name)
    del sys.path[0]  # the folder of this file
    assert not NOT_IMPORTED & sys.modules.keys()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    forking, processes = multiprocessing.get_context("fork"), {}
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            process = processes.pop(request["wait"])
            process.join()
            answer = process.exitcode
        else:
            process = forking.Process(target=execute, kwargs=request)
            process.start()
            answer = process.pid
            processes[answer] = process
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    serve()
