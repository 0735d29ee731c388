"""The start-up hook: every import of BasicSR registers the plugin; other programs do not become slower."""

import re
import textwrap
from pathlib import Path

import pytest
from backend import STARTUP_FILES
from helpers.fresh_python import HOST, PLUGIN, FreshPython, write

BROKEN_PLUGIN = PLUGIN | {"gpen_plugin/archs.py": "def fall():\n    raise OSError('no such library')\nfall()\n"}


@pytest.fixture
def site(tmp_path: Path) -> FreshPython:
    return FreshPython(tmp_path / "venv")


@pytest.fixture
def guest(site: FreshPython) -> FreshPython:
    """A site with a stand-in for the host and one for the plugin."""
    write(site.packages, HOST | PLUGIN)
    return site


def test_importing_the_host_brings_in_the_plugin(guest):
    program = "import sys, basicsr; print('gpen_plugin' in sys.modules, basicsr.train)"
    write(guest.packages, {"basicsr/__init__.py": HOST["basicsr/__init__.py"] + "train = 'seen'\n"})
    assert guest.execute(program) == "True seen"


def test_a_program_without_the_host_loads_one_small_module(guest):
    count = "import sys; print(*sorted(sys.modules))"
    with_hook = set(guest.execute(count).split())
    write(guest.packages, dict.fromkeys(STARTUP_FILES, "# reading a file like this is not our cost\n"))
    assert with_hook - set(guest.execute(count).split()) == {"gpen_plugin_hook"}


def test_the_hook_costs_less_than_5_ms(site):
    def milliseconds():
        message = site.start("-X", "importtime", "-c", "").stderr
        return int(re.search(r"\|\s*(\d+) \| +gpen_plugin_hook$", message, re.MULTILINE)[1]) / 1000

    assert min(milliseconds() for _ in range(5)) < 5


@pytest.mark.parametrize(("switch", "seen"), [("0", "False"), ("1", "True"), ("", "True")])
def test_a_switch_leaves_the_host_as_it_is(guest, switch, seen):
    program = "import sys, basicsr; print('gpen_plugin' in sys.modules)"
    assert guest.run("-c", program, GPEN_PLUGIN=switch) == seen
    program = "import sys, gpen_plugin, basicsr; from basicsr.train import look_up; print(look_up('GPEN'))"
    assert guest.run("-c", program, GPEN_PLUGIN=switch) == "gpen_plugin.archs"  # asked for by name


def test_a_hook_that_is_gone_does_not_spoil_the_interpreter(site):
    (site.packages / "gpen_plugin_hook.py").unlink()
    assert site.execute("print('fine')") == "fine"


@pytest.mark.parametrize(
    "program",
    [
        "import basicsr",
        "import basicsr.utils.registry",
        "import gpen_plugin",
        "import gpen_plugin.archs, basicsr",
        "import basicsr, gpen_plugin",
        "import gpen_plugin_hook, basicsr; gpen_plugin_hook.install()",
        "import importlib.util; importlib.util.find_spec('basicsr'); import basicsr",
        "import importlib, basicsr; importlib.reload(basicsr)",
        "import importlib, gpen_plugin; importlib.reload(gpen_plugin)",
        "import importlib, gpen_plugin_hook as h; importlib.reload(h); h.install(); import basicsr",
    ],
)
def test_any_order_of_importing_registers_once(guest, program):
    check = """
    import sys
    from basicsr.utils.registry import ARCH_REGISTRY
    assert ARCH_REGISTRY.get("GPEN").__module__ == "gpen_plugin.archs"
    assert [type(finder).__name__ for finder in sys.meta_path].count("HostFinder") == 1
    """
    guest.execute(program + textwrap.dedent(check))


def test_threads_that_import_host_and_plugin_at_once(guest):
    slow = "import time\ntime.sleep(0.2)\n"
    write(guest.packages, {"basicsr/utils/__init__.py": slow})
    program = """
    import importlib, threading
    names = ["basicsr", "gpen_plugin", "basicsr.utils.registry", "gpen_plugin.archs"] * 3
    threads = [threading.Thread(target=importlib.import_module, args=(name,)) for name in names]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    print(importlib.import_module("basicsr").utils.registry.ARCH_REGISTRY.get("GPEN").__module__)
    """
    assert guest.execute(program) == "gpen_plugin.archs"


def test_the_host_keeps_its_own_loader(guest):
    program = """
    import importlib.resources, inspect, basicsr
    from importlib.machinery import SourceFileLoader
    loader = basicsr.__loader__
    assert type(loader) is SourceFileLoader is type(basicsr.__spec__.loader)
    assert loader == SourceFileLoader("basicsr", basicsr.__file__)
    assert importlib.resources.files("basicsr").joinpath("train.py").is_file()
    assert "FINISHED" in inspect.getsource(basicsr)
    """
    guest.execute(program)


def test_another_hook_that_asks_all_finders_but_itself(guest):
    program = """
    import sys

    class Other:
        asked = 0

        def find_spec(self, name, path=None, target=None):
            Other.asked += name == "basicsr"
            found = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
            return next(filter(None, found), None)

    sys.meta_path.insert(0, Other())
    from basicsr.train import look_up
    print(look_up("GPEN"), Other.asked)
    """
    assert guest.execute(program) == "gpen_plugin.archs 1"


@pytest.mark.parametrize(
    "launch", [("basicsr/train.py",), ("-m", "basicsr.train"), ("-s", "basicsr/train.py")], ids=" ".join
)
def test_a_checkout_on_the_path(site, tmp_path, launch):
    write(site.packages, PLUGIN)
    write(tmp_path / "checkout", HOST)
    checkout = tmp_path / "checkout"
    message = site.run(*launch, cwd=checkout, PYTHONPATH=str(checkout))
    assert message == "gpen_plugin.archs gpen_plugin.archs"


@pytest.mark.parametrize("options", [("-I",), ("-E", "-s"), ("-O",)], ids=" ".join)
def test_options_of_the_interpreter(guest, options):
    assert guest.run(*options, "-c", "import basicsr.train as t; print(t.look_up('GPEN'))") == "gpen_plugin.archs"


def test_a_broken_plugin_leaves_the_host_alone_and_speaks_when_asked(site):
    write(site.packages, HOST | BROKEN_PLUGIN)
    program = """
    import traceback
    from basicsr.utils.registry import ARCH_REGISTRY, MODEL_REGISTRY
    assert ARCH_REGISTRY.get("Registry", suffix="x").__name__ == "Registry"
    for registry, name in (ARCH_REGISTRY, "GPENPrior"), (MODEL_REGISTRY, "GPENModel"), (ARCH_REGISTRY, "Other"):
        try:
            registry.get(name)
        except Exception as error:
            print(type(error).__name__, error)
            print(type(error.__cause__).__name__, [f.name for f in traceback.extract_tb(
                getattr(error.__cause__, "__traceback__", None))][-1:])
    """
    lines = site.execute(program).splitlines()
    message = "is missing because gpen_plugin could not be loaded (OSError: no such library)."
    assert lines[0].startswith(f"ImportError BasicSR's arch registry: 'GPENPrior' {message}")
    assert lines[2].startswith(f"ImportError BasicSR's model registry: 'GPENModel' {message}")
    assert lines[1] == lines[3] == "OSError ['fall']"
    assert lines[4].startswith("KeyError")


def test_a_plugin_that_loads_later_is_found(site):
    write(site.packages, HOST | BROKEN_PLUGIN)
    write(site.folder / "repaired", PLUGIN)
    program = """
    import importlib, shutil, basicsr, gpen_plugin
    shutil.copy("repaired/gpen_plugin/archs.py", gpen_plugin.__path__[0])
    importlib.invalidate_caches()
    import gpen_plugin.archs
    print(basicsr.utils.registry.ARCH_REGISTRY.get("GPEN").__module__)
    """
    assert site.execute(program) == "gpen_plugin.archs"


def test_a_python_that_did_not_start_with_the_hook_catches_up(site):
    write(site.packages, HOST | PLUGIN | dict.fromkeys(STARTUP_FILES, "# nothing\n"))
    program = """
    import basicsr
    from basicsr.utils.registry import ARCH_REGISTRY
    print("GPEN" in ARCH_REGISTRY, end=" ")
    import gpen_plugin
    print("GPEN" in ARCH_REGISTRY)
    """
    assert site.execute(program) == "False True"


def test_a_host_without_registries_still_imports(site):
    write(site.packages, {"basicsr/__init__.py": "FINISHED = True\n"} | PLUGIN)
    assert site.execute("import basicsr; print(basicsr.FINISHED)") == "True"


def test_a_folder_named_as_the_host_is_no_host(site, tmp_path):
    write(site.packages, PLUGIN)
    (tmp_path / "basicsr").mkdir()
    program = "import sys, basicsr; print(basicsr.__file__, 'gpen_plugin' in sys.modules)"
    assert site.run("-c", program, cwd=tmp_path) == "None False"


TORCHVISION = {
    "torchvision/__init__.py": "",
    "torchvision/transforms/__init__.py": "",
    "torchvision/transforms/functional.py": "def rgb_to_grayscale():\n    return 'heir'\n",
}
USE_LOST_MODULE = "from torchvision.transforms.functional_tensor import rgb_to_grayscale as f; print(f())"


def test_the_module_that_torchvision_lost(guest):
    write(guest.packages, TORCHVISION | {"basicsr/__init__.py": USE_LOST_MODULE + "\nFINISHED = True"})
    assert guest.execute("import basicsr") == "heir"


def test_the_lost_module_is_lazy(guest):
    write(guest.packages, TORCHVISION)
    program = """
    import sys, basicsr
    assert "torchvision" not in sys.modules
    import torchvision.transforms.functional_tensor as lost
    print("torchvision.transforms.functional" in sys.modules, lost.rgb_to_grayscale(), hasattr(lost, "nothing"))
    """
    assert guest.execute(program) == "False heir False"


def test_torchvisions_own_module_comes_first(guest):
    own = {"torchvision/transforms/functional_tensor.py": "def rgb_to_grayscale():\n    return 'own'\n"}
    write(guest.packages, TORCHVISION | own)
    assert guest.execute("import basicsr; " + USE_LOST_MODULE) == "own"


def test_programs_without_the_host_keep_their_import_error(guest):
    write(guest.packages, TORCHVISION)
    assert "ModuleNotFoundError" in guest.start("-c", USE_LOST_MODULE).stderr
