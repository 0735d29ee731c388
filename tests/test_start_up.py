"""Starting: a command line that is wrong costs no PyTorch, and every order of importing ends in the same place."""

import argparse
import ast
import importlib
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest
from basicsr.utils import options as hosts_options
from helpers import REPOSITORY

import gpen_plugin
import gpen_plugin_hook
from gpen_plugin import cli, host
from gpen_plugin.cli import restore
from gpen_plugin.errors import RegistryClashError
from gpen_plugin.host import registry
from gpen_plugin.registration import register_all
from gpen_plugin.restore.tasks import TASKS

SCRIPTS = dict(re.findall(r'"(gpen-\w+) = ([\w.]+:\w+)"', (REPOSITORY / "setup.py").read_text()))

# What each script can refuse without PyTorch, beside a mistyped option: what is named is not there.
MISSING = {
    "gpen-train": [["-opt", "none.yml"], ["-opt", "none.yml", "--dry-run"]],
    "gpen-test": [["-opt", "none.yml"]],
    "gpen-restore": [["none.jpg", "-o", "out"]],
    "gpen-evaluate": [["-opt", "none.yml"]],
    "gpen-study": [["make", "-r", "none", "-o", "study.html"]],
    "gpen-export": [["none.pth", "-o", "model.jpg"]],
    "gpen-convert": [["none.pth", "-o", "model.jpg", "--to", "ours"]],
    "gpen-grow": [["none.pth", "-o", "model.jpg"]],
    "gpen-sample": [["-m", "none.pth", "-o", "film.nothing"]],
}

REFUSED = """
import contextlib, importlib, sys
module, _, function = sys.argv[1].partition(":")
main = getattr(importlib.import_module(module), function)
for words in ["--help"], ["--mistyped"], *eval(sys.argv[2]):
    try:
        status = main(words)
    except SystemExit as end:
        status = end.code
    print("status", status)
print("imported", *sorted({"torch", "torchvision", "basicsr", "scipy"} & sys.modules.keys()))
"""


def python(program: str, *arguments: str, cwd: Path) -> str:
    """Run a program in a Python of its own; its standard output."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", textwrap.dedent(program), *arguments]
    run = subprocess.run(command, capture_output=True, text=True, timeout=200, cwd=cwd, env=environment, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_scripts_are_found():
    assert len(SCRIPTS) >= 10
    assert MISSING.keys() < SCRIPTS.keys()


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_and_refusals_import_no_pytorch(script, tmp_path):
    missing = MISSING.get(script, [])
    lines = python(REFUSED, SCRIPTS[script], repr(missing), cwd=tmp_path).splitlines()
    status = [line for line in lines if line.startswith("status")]
    assert status[:2] == ["status 0", "status 2"]
    assert len(status) == 2 + len(missing)
    assert set(status[2:]) <= {"status 1", "status 2"}
    assert lines[-1] == "imported"
    assert not list(tmp_path.iterdir())


# Each order runs in a fork of a Python that has imported what BasicSR needs, but neither BasicSR nor this package.
# Before that, a fork that has forgotten all but PyTorch shows what restoring imports.
ORDERS = [
    "import basicsr",
    "import gpen_plugin, basicsr",
    "import gpen_plugin.archs.gpen_arch, basicsr",
    "import gpen_plugin.models.gan_prior_model",
    "import gpen_plugin.registration, basicsr",
    "import gpen_plugin.preflight",
    "from gpen_plugin import *",
    "import gpen_plugin as g; print(g.errors.GPENError.__name__, g.ops.__name__); print(g.checkpoints.__name__)",
    "import importlib, gpen_plugin; importlib.reload(gpen_plugin); import basicsr; importlib.reload(gpen_plugin)",
]
IN_EVERY_ORDER = """
import os, sys, traceback

def in_a_fork(title, action):
    if os.fork() == 0:
        try:
            action()
            sys.stdout.flush()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if os.wait()[1]:
        sys.exit(title)

def restore():
    for name in [name for name in sys.modules if name.partition(".")[0] in {"torchvision", "scipy"}]:
        del sys.modules[name]
    from gpen_plugin import GPEN, Restorer
    Restorer(device="cpu", detector="yunet")
    print("restoring imports", *sorted({"torchvision", "basicsr", "scipy"} & sys.modules.keys()))

in_a_fork("restoring", restore)

def check():
    import gpen_plugin_hook
    from basicsr.utils import registry
    from gpen_plugin.host import PATCHES
    from gpen_plugin.host.run_hooks import _checks

    for kind, names in gpen_plugin_hook.registered_names().items():
        held = dict(iter(getattr(registry, f"{kind.upper()}_REGISTRY")))
        for name in names:
            assert held[name].__module__.startswith("gpen_plugin."), (kind, name)
    assert [patch.name for patch in PATCHES if patch.present() and not patch.applied()] == []
    assert [one.__module__ for one in _checks] == ["gpen_plugin.registration"] * 2  # the check, and the lock

def forget_the_hook():
    sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__module__ != "gpen_plugin_hook"]
    sys.modules.pop("gpen_plugin_hook", None)

forget_the_hook()
assert not {"basicsr", "gpen_plugin"} & sys.modules.keys()
def run(order):
    if order.startswith("import basicsr"):  # 1.4.2 needs the hook for that
        import gpen_plugin_hook
        gpen_plugin_hook.install()
    exec(order, {})
    check()

for order in eval(sys.argv[1]):
    in_a_fork(f"in the order: {order}", lambda: run(order))
"""


@pytest.fixture(scope="module")
def imported(clean_python, tmp_path_factory) -> list[str]:
    """What that Python printed, by line."""
    folder = tmp_path_factory.mktemp("orders")
    run = clean_python.run("-c", IN_EVERY_ORDER, repr(ORDERS), cwd=folder, PYTHONPATH=str(REPOSITORY))
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


def test_every_order_of_importing_registers_and_patches(imported):
    assert imported[1:] == ["GPENError gpen_plugin.ops", "gpen_plugin.checkpoints"]


def test_restoring_needs_no_host(imported):
    assert imported[0] == "restoring imports"


def test_every_public_name_is_imported_from_where_the_stub_says():
    tree = ast.parse((REPOSITORY / "gpen_plugin" / "__init__.pyi").read_text())
    listed = {alias.name: f"gpen_plugin.{node.module}" for node in tree.body if node.module for alias in node.names}
    assert len(listed) > 15
    assert set(gpen_plugin.__all__) >= listed.keys()
    assert dir(gpen_plugin) == gpen_plugin.__all__
    for name, module in listed.items():
        assert getattr(gpen_plugin, name) is getattr(importlib.import_module(module), name)


def test_the_stub_lists_every_registered_name():
    """PSNR and SSIM are stand-ins for BasicSR's own."""
    for kind, names in gpen_plugin_hook.registered_names().items():
        ours = {name for name, cls in host.registered(kind).items() if cls.__module__.startswith("gpen_plugin.")}
        assert ours - {"calculate_psnr", "calculate_ssim"} == set(names), kind


def test_a_class_waits_for_the_host(monkeypatch):
    held = {}
    monkeypatch.setattr(registry, "_open", False)
    monkeypatch.setattr(registry, "_pending", [])
    monkeypatch.setattr(registry, "registered", lambda kind: held)
    hosts = SimpleNamespace(register=lambda cls: held.__setitem__(cls.__name__, cls))
    monkeypatch.setattr(registry, "_registry", lambda kind: hosts)
    early, late = (type(name, (), {}) for name in ("Early", "Late"))
    assert registry.register("arch")(early) is early
    assert held == {}
    registry.flush_pending()
    assert held == {"Early": early}
    registry.register("arch")(late)
    registry.flush_pending()
    assert held == {"Early": early, "Late": late}


def test_name_clash_is_an_error_each_time(monkeypatch):
    """The doctor asks again after BasicSR's import has asked."""
    other, ours = (type("GPEN", (), {"__module__": module}) for module in ("other.archs", "gpen_plugin.archs"))
    monkeypatch.setattr(registry, "_open", False)
    monkeypatch.setattr(registry, "_pending", [])
    monkeypatch.setattr(registry, "registered", lambda kind: {"GPEN": other})
    registry.register("arch")(ours)
    for _ in range(2):
        with pytest.raises(RegistryClashError, match=r"'GPEN' of gpen_plugin\.archs is already registered by other"):
            registry.flush_pending()


def test_name_clash_leaves_patches_and_the_hosts_runs_unchanged(monkeypatch):
    def clash():
        raise RegistryClashError("BasicSR's arch registry")

    called = []
    monkeypatch.setattr(host, "apply_patches", lambda: called.append("patched"))
    monkeypatch.setattr(host, "before_run", lambda check: called.append("checked"))
    monkeypatch.setattr(host, "flush_pending", clash)
    with pytest.raises(RegistryClashError, match="BasicSR's arch registry"):
        register_all()
    assert called == ["patched"]


@pytest.mark.parametrize("command", ["train", "test"])
def test_a_host_that_cannot_be_imported_leads_to_the_doctor(command, tmp_path):
    (tmp_path / "basicsr").mkdir()
    (tmp_path / "basicsr" / "__init__.py").write_text("raise RuntimeError('operator nms does not exist')")
    (tmp_path / "options.yml").write_text("name: run")
    program = f"""
    import sys
    from gpen_plugin.{command} import main
    sys.stderr = sys.stdout
    print(main(["-opt", "options.yml"]))
    """
    shown = python(program, cwd=tmp_path)
    expected = "gpen_plugin: error: BasicSR: cannot be loaded (RuntimeError: operator nms does not exist)"
    assert shown == f"{expected}. Run `python -m gpen_plugin.doctor` to see what to do.\n1\n"


def test_unknown_name():
    with pytest.raises(AttributeError, match="module 'gpen_plugin' has no attribute 'nothing'"):
        gpen_plugin.nothing  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        from gpen_plugin import nothing  # noqa: F401


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (
            RuntimeError("operator nms does not exist"),
            r"GPEN cannot be loaded \(RuntimeError: operator .*plugin.doctor",
        ),
        (ModuleNotFoundError("no", name="basicsr"), r"GPEN needs BasicSR\. Run: pip install"),
    ],
)
def test_failed_import_of_a_public_name_leads_to_the_doctor(monkeypatch, failure, message):
    def fail(module):
        raise failure

    monkeypatch.setattr(gpen_plugin, "import_module", fail)
    with pytest.raises(ImportError, match=message):
        gpen_plugin.__getattr__("GPEN")


def test_options_equal_those_of_the_host(monkeypatch):
    class Caught(Exception):
        """The parser is complete."""

    def described(parser):
        return {
            tuple(action.option_strings): (action.nargs, action.default, action.required, tuple(action.choices or ()))
            for action in parser._actions
        }

    def catch(parser, *_):
        raise Caught(described(parser))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", catch)
    with pytest.raises(Caught, match="--launcher") as caught:
        hosts_options.parse_options.__gpen_original__("")
    assert caught.value.args[0] == described(cli.parser("gpen-train", ""))


def test_the_tasks_of_the_command_are_all_there_are():
    task = next(action for action in restore.parser()._actions if action.dest == "task")
    assert set(task.choices) == TASKS.keys()
