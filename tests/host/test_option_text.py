"""What the host's parser would stumble over, or read otherwise than meant, in an option file that names GPEN."""

import sys

import basicsr.train
import pytest
import yaml

from gpen_plugin.errors import OptionError


@pytest.fixture
def parse(tmp_path, monkeypatch):
    """Parses the bytes of an option file with the host's parser, with this package's part in it."""

    def run(content: str | bytes, *words: str) -> dict:
        path = tmp_path / "o.yml"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        monkeypatch.setattr(sys, "argv", ["train.py", "-opt", str(path), *words])
        monkeypatch.setattr(sys, "excepthook", sys.excepthook)
        return basicsr.train.parse_options(str(tmp_path), is_train=True)[0]

    return run


def text_of(options: dict, **changes: object) -> str:
    return yaml.safe_dump({**options, **changes}, sort_keys=False)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-16-le", "utf-8-sig"])
def test_encodings(options, parse, encoding):
    content = ("# größe\n" + text_of(options)).encode(encoding)
    if encoding == "utf-8-sig":
        assert parse(content)["name"] == "small"
        return
    output = {"latin-1": r"line 1 of .*o\.yml is not utf-8 \(byte 0xf6\)", "utf-16": r"is not utf-8 \(byte 0xff\)"}
    with pytest.raises(OptionError, match=f"-opt: .*{output.get(encoding, '')}"):
        parse(content)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("512", 'name: got 512, which YAML reads as a number; expected a text. Write it in quotes: name: "512"'),
        ("2026-11-29", 'name: got 2026-11-29, which YAML reads as a date.*: name: "2026-11-29"'),
        ("on", 'name: got on, which YAML reads as true or false.*: name: "on"'),
        ("1e5", None),  # YAML 1.1 wants 1.0e+5 for a number
        ("1.5", "name: got 1.5, which YAML reads as a number"),
        ("~", "name: is empty; expected a name for the folder"),
        ("''", "name: got ''; expected a name for one folder"),
        ("[a]", "name: got a list; expected a text"),
        ("a/b", "name: got 'a/b'; expected a name for one folder, without /"),
        ("..", r"name: got '\.\.'; expected a name for one folder"),
        ('"a\\0b"', "name: got .*; expected a name for one folder"),
        ("x" * 201, "name: got 201 bytes, xxxxx.*; expected at most 200 bytes"),
        ('"512"', None),
        ("größe 2", None),
    ],
)
def test_names(options, parse, text, message):
    content = text_of(options).replace("name: small\n", f"name: {text}\n", 1)
    if message is None:
        assert parse(content)["name"] == yaml.safe_load(text)
        return
    with pytest.raises(OptionError, match=message):
        parse(content)


@pytest.mark.parametrize("name", ["512", "2026-11-29", "true", "1e-4"])
def test_a_forced_name_is_always_a_text(options, parse, name):
    opt = parse(
        text_of(options, name=3), "--force_yml", f"name={name}", "train:total_iter=5", "train:r1_reg_weight=1e-4"
    )
    assert (opt["name"], opt["train"]["total_iter"], opt["train"]["r1_reg_weight"]) == (name, 5, 1e-4)
    with pytest.raises(OptionError, match="name: got 'a/b'"):
        parse(text_of(options), "--force_yml", "name=a/b")


@pytest.mark.parametrize("seed", ["-1", "4294967296", "1.5", "one", "[1]", "true"])
def test_seeds_that_a_generator_would_refuse(options, parse, seed):
    content = text_of(options).replace("manual_seed: 3", f"manual_seed: {seed}")
    with pytest.raises(OptionError, match=r"manual_seed: got .*; expected a whole number from 0 to 4294901760"):
        parse(content)
    with pytest.raises(OptionError, match="manual_seed: got"):
        parse(text_of(options), "--force_yml", f"manual_seed={seed}")


def test_keys_that_are_written_twice_are_named_with_both_lines(options, parse):
    content = text_of(options).replace("batch_size_per_gpu: 2", "batch_size_per_gpu: 2\n    batch_size_per_gpu: 3")
    content += "path: {}\n"
    with pytest.raises(OptionError, match="2 problems") as caught:
        parse(content)
    message = str(caught.value)
    assert "datasets:train:batch_size_per_gpu: is written twice, in lines" in message
    assert "- path: is written twice" in message


def test_an_anchor_that_is_used_again_is_no_key_written_twice(options, parse):
    content = text_of(options)
    assert "&id001" in content  # the degradation, which both sets share
    assert parse(content)["datasets"]["val"]["degradation"] == options["datasets"]["val"]["degradation"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"datasets": {"train": {"type": "GPENFaceDataset", "dataroot_gt": {"path": "a"}}}},
            "train:dataroot_gt: got a section with keys; expected a path or a list",
        ),
        ({"datasets": {"train": None}}, "datasets:train: got nothing; expected a section with keys"),
        ({"path": None}, "path: got nothing; expected a section with keys"),
        ({"datasets": ["a"]}, "datasets: got a list; expected a section"),
        ({"logger": None}, "logger"),
    ],
)
def test_sections_of_the_wrong_kind_are_named(options, parse, change, message):
    with pytest.raises(OptionError, match=message):
        parse(text_of(options, **change))


def test_reading_the_outline_executes_nothing(options, parse, tmp_path):
    content = text_of(options) + f"extra: !!python/object/apply:os.mkdir ['{tmp_path}/made']\n"
    content += f"extra: !!python/object/apply:os.mkdir ['{tmp_path}/made']\n"
    with pytest.raises(OptionError, match="extra: is written twice"):
        parse(content)
    assert not (tmp_path / "made").exists()


def test_lists_of_roots_are_for_our_data_sets(options, parse, faces, monkeypatch):
    monkeypatch.setenv("HOME", str(faces.parent))
    roots = [{"path": f"~/{faces.name}", "weight": weight} for weight in (1, 3)]
    options["datasets"]["train"]["dataroot_gt"] = roots
    read = parse(text_of(options), "--force_yml", f"datasets:val:dataroot_gt=[~/{faces.name}]")["datasets"]
    assert [dict(root) for root in read["train"]["dataroot_gt"]] == [{"path": str(faces), "weight": w} for w in (1, 3)]
    assert read["val"]["dataroot_gt"] == [str(faces)]
    roots[1]["weight"] = -1
    with pytest.raises(OptionError, match="datasets:train:dataroot_gt:1:weight: got -1; expected a number above 0"):
        parse(text_of(options))
    options["datasets"]["train"]["type"] = "PairedImageDataset"
    with pytest.raises(OptionError, match=r"dataroot_gt: got a list; expected a path\. BasicSR takes one a set"):
        parse(text_of(options))
