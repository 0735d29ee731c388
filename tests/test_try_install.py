"""packaging/try_install.py with an interpreter that only pretends to install."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import try_install

# An interpreter: `-m venv` copies it, pip does nothing but refuse the extra "web", `-c` is this test's Python.
PYTHON = f"""#!/bin/sh
case "$*" in
  "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && cp "$(dirname "$0")/restore" "$3/bin/gpen-restore" ;;
  "-m pip "*web*) echo Collecting gradio; echo "ERROR: No matching distribution found for gradio"; exit 1 ;;
  "-m pip "*) ;;
  *) exec "{sys.executable}" "$@" ;;
esac
"""
INVERT = 'import sys, cv2; cv2.imwrite(sys.argv[2] + "/portrait.jpg", 255 - cv2.imread(sys.argv[1]))'
RESTORE = f"""#!/bin/sh
mkdir "$3"
"{sys.executable}" -c '{INVERT}' "$1" "$3"
"""

pytestmark = pytest.mark.skipif(os.name == "nt", reason="shell scripts stand for the interpreters")


def write_program(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def python(tmp_path, monkeypatch) -> str:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    monkeypatch.setattr(try_install, "EXTRAS", ())
    monkeypatch.setattr(try_install, "copy_checkout", Path.mkdir)
    monkeypatch.setattr(try_install, "PROGRAMS", {"heic": "assert 0, 'no HEIC'"})
    write_program(tmp_path / "bin" / "restore", RESTORE)
    return write_program(tmp_path / "bin" / "python", PYTHON)


def try_extras(monkeypatch, python: str, *extras: str) -> int:
    words = [word for names in extras for word in ("--extras", names)]
    monkeypatch.setattr(sys, "argv", ["try_install.py", *words, python])
    return try_install.main()


def test_a_failed_extra_stops_no_other_and_leaves_its_log(python, tmp_path, monkeypatch, capsys):
    assert try_extras(monkeypatch, python, "web", "heic", "video") == 1
    version = "{}.{}".format(*sys.version_info)
    printed = capsys.readouterr().out
    for names, result in {
        "core": "ok",
        "web": "ERROR: No matching distribution found for gradio",
        "heic": "AssertionError: no HEIC",
        "video": "ok",
    }.items():
        assert f"\nPython {version}, {names}: {result}\n" in f"\n{printed}"
        assert any(line.startswith(f"| {version} | {names} |") and result in line for line in printed.splitlines())
    (logs,) = (tmp_path / "temporary").iterdir()
    log = logs / f"{version}-web.log"
    assert f"Output of Python {version}, web: {log}\n" in printed
    assert "Collecting gradio" in log.read_text()


def test_nothing_is_left_when_all_goes_well(python, tmp_path, monkeypatch):
    assert try_extras(monkeypatch, python) == 0
    assert not [*(tmp_path / "temporary").iterdir()]


@pytest.mark.parametrize(
    ("program", "error"),
    [
        ('cp "$1" "$3"', "the result is the input"),
        ('echo > "$3/portrait.jpg"', "the result is not an image that OpenCV reads"),
        ("exit 3", "gpen-restore ended with 3"),
    ],
)
def test_a_result_that_is_no_restored_image_fails(python, tmp_path, monkeypatch, capsys, program, error):
    write_program(tmp_path / "bin" / "restore", f'#!/bin/sh\nmkdir "$3"\n{program}\n')
    assert try_extras(monkeypatch, python) == 1
    assert error in capsys.readouterr().out


def test_an_interrupted_run_leaves_only_its_logs(python, tmp_path):
    write_program(
        Path(python), PYTHON.replace('"-m pip "*) ;;', '"-m pip "*) mktemp; touch ../../../started; exec sleep 60 ;;')
    )
    temporary = tmp_path / "temporary"
    run = subprocess.Popen(
        [sys.executable, try_install.__file__, python],
        stderr=subprocess.PIPE,
        env=os.environ | {"TMPDIR": str(temporary)},
    )
    deadline = time.monotonic() + 60
    while not (temporary / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    run.send_signal(signal.SIGTERM)
    assert b"Interrupted" in run.communicate(timeout=60)[1]
    assert run.returncode == 1
    assert {path.name for path in temporary.iterdir()} - {"started"} == {
        next(temporary.glob("gpen-install-logs-*")).name
    }


def test_pythons_are_found_on_the_path_and_among_pyenvs(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "shims"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    write_program(
        tmp_path / "shims" / "python3.12", "#!/bin/sh\necho 'pyenv: python3.12: command not found'; exit 127\n"
    )
    on_path = write_program(tmp_path / "shims" / "python3.13", "#!/bin/sh\necho 3.13\n")
    pyenvs = write_program(tmp_path / "pyenv" / "versions" / "3.12.1" / "bin" / "python", "#!/bin/sh\necho 3.12\n")
    assert try_install.find_pythons() == {"3.12": pyenvs, "3.13": on_path}
