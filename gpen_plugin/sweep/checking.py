"""All trainings of a sweep checked before the first one starts, each as its own run would check itself.

A process of its own does it, because the host's way of reading options leaves traces in the process that uses it, and
because the GPUs that it sees have to be those of a training.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence, Set
from contextlib import redirect_stdout

from gpen_plugin.cli import host_pipeline
from gpen_plugin.errors import GPENError, OptionError, TrainingError, handle_errors, join_errors, plain_message
from gpen_plugin.host.run_lock import no_claims
from gpen_plugin.sweep.plan import Training

LAST_LINES = 15


def check_trainings(trainings: Sequence[Training], environment: Mapping[str, str]) -> None:
    """Raise one error that lists what is wrong with any of the trainings; nothing is created.

    Args:
        trainings: those that will run.
        environment: variables of one of them.
    Raises:
        OptionError: a line for each problem, with the variants that have it.
        TrainingError: the check itself could not be made.
    """
    if not trainings:
        return
    command = [sys.executable, "-m", "gpen_plugin.sweep.checking"]
    words = json.dumps([training.words for training in trainings])
    child = subprocess.run(command, input=words, capture_output=True, text=True, env=environment, check=False)
    if child.returncode:
        tail = "\n".join(child.stderr.splitlines()[-LAST_LINES:])
        raise TrainingError("the check", f"ended with status {child.returncode}", "status 0", f"Its end:\n{tail}")
    owners: dict[str, list[str]] = {}  # of each problem
    for training, problems in zip(trainings, json.loads(child.stdout), strict=True):
        for problem in problems:
            owners.setdefault(problem, []).append(training.variant)
    if owners:
        variants = {training.variant for training in trainings}
        raise join_errors([OptionError(f"{_named(names, variants)}: {told}") for told, names in owners.items()])


def _named(owners: Sequence[str], variants: Set[str]) -> str:
    names = dict.fromkeys(owners)  # of several seeds once
    return "all variants" if 1 < len(names) == len(variants) else ", ".join(names)


def complaints(words: Sequence[str]) -> list[str]:
    """What the host would refuse about a run with this command line, each in a message; none if it would begin."""
    from basicsr.utils.options import parse_options

    sys.argv = ["train.py", *words]
    try:
        with redirect_stdout(sys.stderr), no_claims():
            parse_options(os.getcwd(), is_train=True)
    except GPENError as error:
        message = plain_message(error)
        return message.split("\n  - ")[1:] or [message]  # as `join_errors` puts several together
    return []


@handle_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Read a JSON list of command lines from the standard input, and write a list of messages for each."""
    with redirect_stdout(sys.stderr):
        host_pipeline("train")
    json.dump([complaints(words) for words in json.load(sys.stdin)], sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
