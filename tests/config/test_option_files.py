"""What the option files say: the settings of paper and field, and what they have in common."""

import re
import sys
from copy import deepcopy
from pathlib import Path

import pytest
import torch
import yaml
from basicsr.utils.options import parse_options
from helpers import REPOSITORY
from helpers.small_networks import saved
from test_preflight import parsed

from gpen_plugin.archs.gpen_arch import GPEN
from gpen_plugin.archs.gpen_discriminator_arch import GPENDiscriminator
from gpen_plugin.checkpoints import checkpoint
from gpen_plugin.checkpoints.convert import to_layout
from gpen_plugin.errors import OptionError
from gpen_plugin.host import registered
from gpen_plugin.preflight import check_run

OPTIONS = REPOSITORY / "options"
PRIORS = {1024: "gpen_finetune.yml", 512: "gpen_finetune_512.yml", 256: "gpen_finetune_256.yml"}
VARIANTS = {  # file -> the one key in which it differs from gpen.yml
    "gpen_wo_ft": ("train", "freeze_decoder", False, True),
    "gpen_wo_noise": ("network_g", "noise_mode", "concat", "none"),
    "gpen_noise_add": ("network_g", "noise_mode", "concat", "add"),
}
RELEASE = OPTIONS / "gpen_finetune_from_release.yml"
SHRUNK = {"num_style_feat": 16, "num_mlp": 2}


def loaded(file: str | Path) -> dict:
    return yaml.safe_load((OPTIONS / file).read_text())


def arguments(section: dict) -> dict:
    return {key: value for key, value in section.items() if key != "type"}


def shapes(section: dict) -> dict[str, torch.Size]:
    with torch.device("meta"):
        return {k: v.shape for k, v in registered("arch")[section["type"]](**arguments(section)).state_dict().items()}


def in_small(options: dict, faces: Path) -> dict:
    """An option file shrunk to 32 px, the widths in the ratio that they have."""
    options = deepcopy(options)
    options["num_gpu"] = 0
    for phase, data in options["datasets"].items():
        data |= {"dataroot_gt": str(faces), "io_backend": {"type": "disk"}, "out_size": 32}
        data["degradation"] |= {"kernel_size": [3, 5], "downsample_range": [1, 4]}
        if phase == "train":
            data |= {"num_worker_per_gpu": 0, "persistent_workers": False, "pin_memory": False}
    for name in ("network_g", "network_d"):
        options[name] |= {"out_size": 32, "narrow": options[name]["narrow"] / 16}
    options["network_g"] |= SHRUNK
    options["train"]["total_iter"] = 4
    options["val"] |= {"val_freq": 4, "grid_images": 2, "metrics": None}
    options["logger"] |= {"print_freq": 1, "save_checkpoint_freq": 4}
    return options


@pytest.fixture
def parse(tmp_path, monkeypatch):
    """The host's own parser, with our checks of a run left out."""

    def run(file: Path, *words: str) -> dict:
        monkeypatch.setattr("gpen_plugin.host.run_hooks._checks", [])
        monkeypatch.setattr(sys, "argv", ["train.py", "-opt", str(file), *words])
        monkeypatch.setattr(sys, "excepthook", sys.excepthook)
        return parse_options(str(tmp_path))[0]

    return run


# --- stage one


@pytest.mark.parametrize("size", PRIORS)
def test_a_prior_is_trained_as_stylegan2_is(size):
    options = loaded(f"gpen_prior_{size}.yml")
    train, data = options["train"], options["datasets"]
    for name in ("optim_g", "optim_d"):
        assert (train[name]["lr"], train[name]["betas"]) == (0.002, [0, 0.99])
    assert (train["r1_reg_weight"], train["net_d_reg_every"]) == (10, 16)
    assert (train["path_reg_weight"], train["net_g_reg_every"], train["path_batch_shrink"]) == (2, 4, 2)
    assert (train["mixing_prob"], train["ema_half_life"], train["lazy_lr_scaling"]) == (0.9, 10000, True)
    assert options["network_g"]["lr_mlp"] == 0.01
    assert train["total_iter"] * 8 * data["train"]["batch_size_per_gpu"] == 25_000_000
    assert train["scheduler"]["gamma"] == 1
    assert train["augment_opt"] is None
    assert train["precision"] == "fp32"
    assert options["name"] == f"gpen_prior_{size}_{options['network_g']['noise_mode']}"
    assert options["val"]["metrics"] == {"swd": {"type": "calculate_swd", "better": "lower"}}


@pytest.mark.parametrize(("size", "stage_two"), PRIORS.items())
def test_stage_two_finds_the_prior_and_its_discriminator_and_they_fit(size, stage_two):
    prior, whole = loaded(f"gpen_prior_{size}.yml"), loaded(stage_two)
    for key, file in (("pretrain_prior", "net_g_latest"), ("pretrain_network_d", "net_d_latest")):
        assert whole["path"][key] == f"experiments/{prior['name']}/models/{file}.pth"
    assert whole["path"]["param_key_prior"] is None
    decoder = {k.removeprefix("decoder."): v for k, v in shapes(whole["network_g"]).items() if k.startswith("decoder.")}
    assert shapes(prior["network_g"]) == decoder
    assert shapes(prior["network_d"]) == shapes(whole["network_d"])


@pytest.mark.parametrize("size", [512, 256])
def test_the_three_priors_differ_in_size_and_widths_alone(size):
    def rest(own: int) -> tuple[str, list[dict]]:
        options = loaded(f"gpen_prior_{own}.yml")
        networks = [options.pop(name) for name in ("network_g", "network_d")]
        widths = {"out_size", "channel_multiplier", "narrow"}
        others = [{key: value for key, value in net.items() if key not in widths} for net in networks]
        return yaml.safe_dump(options).replace(str(own), "SIZE"), others

    assert rest(size) == rest(1024)


@pytest.mark.parametrize("size", PRIORS)
def test_the_example_of_augmentation_is_right(size, faces):
    text = (OPTIONS / f"gpen_prior_{size}.yml").read_text()
    example = re.search(r"  augment_opt: ~.*\n((?:  # .*\n)+)", text)
    options = yaml.safe_load(text.replace(example[0], example[1].replace("  # ", "  ")))
    assert options["train"]["augment_opt"]["target"] == 0.6
    options["num_gpu"] = 0
    for data in options["datasets"].values():
        data |= {"dataroot_gt": str(faces), "io_backend": {"type": "disk"}}
    check_run(parsed(options))


@pytest.mark.parametrize("mode", ["add", "none"])
@pytest.mark.parametrize("size", PRIORS)
def test_the_commands_for_the_variants_priors_do_what_they_say(parse, size, mode):
    """The host's own --force_yml takes the text none for nothing, so noise_mode: none could not be forced."""
    file = OPTIONS / f"gpen_prior_{size}.yml"
    (words,) = re.findall(rf"#   (--force_yml .*noise_mode={mode} .*)", file.read_text())
    opt = parse(file, *words.split())
    assert opt["network_g"]["noise_mode"] == mode
    assert opt["name"] == f"gpen_prior_{size}_{mode}"


# --- Table 1


def differing_lines(one: str, other: str) -> list[tuple[str, str]]:
    pairs = list(zip(one.splitlines(), other.splitlines(), strict=True))
    return [(a, b) for a, b in pairs if a != b]


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_differs_from_gpen_in_one_key_and_one_line(name):
    section, key, value, changed = VARIANTS[name]
    gpen, variant = loaded("ablation/gpen.yml"), loaded(f"ablation/{name}.yml")
    assert (gpen[section][key], variant[section][key]) == (value, changed)
    gpen["name"], gpen[section][key] = f"ablation_{name}", changed
    assert variant == gpen
    texts = [(OPTIONS / f"ablation/{file}.yml").read_text() for file in ("gpen", name)]
    spelt = {True: "true", False: "false"}
    assert differing_lines(*texts) == [
        tuple(f"# python basicsr/train.py -opt options/ablation/{file}.yml" for file in ("gpen", name)),
        tuple(f"name: ablation_{file}" for file in ("gpen", name)),
        tuple(f"  {key}: {spelt.get(v, v)}" for v in (value, changed)),
    ]


def test_there_are_no_other_variants():
    assert {file.stem for file in (OPTIONS / "ablation").iterdir()} == {"gpen", *VARIANTS}


def test_the_whole_gpen_of_table_1_is_the_papers_setting(parse):
    gpen, paper = parse(OPTIONS / "ablation/gpen.yml"), parse(OPTIONS / "gpen_finetune.yml")
    assert gpen["train"].pop("freeze_decoder") is False
    for options in (gpen, paper):
        del options["name"]
        options["path"] = {k: v for k, v in options["path"].items() if "experiments" not in k and "root" not in k}
        for added in ("models", "training_states", "log", "visualization"):
            del options["path"][added]
    assert gpen == paper


@pytest.mark.parametrize("name", ["gpen", *VARIANTS])
def test_each_variant_finds_the_prior_of_its_noise_mode(parse, name):
    opt = parse(OPTIONS / f"ablation/{name}.yml")
    folder = f"experiments/gpen_prior_1024_{opt['network_g']['noise_mode']}/models"
    assert opt["path"]["pretrain_prior"] == f"{folder}/net_g_latest.pth"
    assert opt["path"]["pretrain_network_d"] == f"{folder}/net_d_latest.pth"


def test_unknown_name_in_braces_is_an_error(parse, tmp_path):
    options = loaded("ablation/gpen.yml")
    for path in ("experiments/{size}/net_g.pth", "experiments/{0}/net_g.pth", "experiments/{out_size.x}", "a}b"):
        options["path"]["pretrain_prior"] = path
        file = tmp_path / "options.yml"
        file.write_text(yaml.safe_dump(options))
        with pytest.raises(
            OptionError, match=r"path:pretrain_prior: got .*; expected in braces only keys of network_g"
        ):
            parse(file)


# --- from the released weights


def for_512(text: str) -> dict:
    """What the comments of the file say for 512 px."""
    return yaml.safe_load(re.sub(r"(?m)^(\s*\w+:) [^#\n]+# 512: ([^;\n]+).*$", r"\1 \2", text))


def test_from_release_has_the_networks_of_the_released_files():
    options = loaded(RELEASE)
    for net, section in (
        (lambda: GPEN(256, channel_multiplier=1, narrow=0.5), options["network_g"]),
        (lambda: GPENDiscriminator(256, channel_multiplier=1, narrow=1), options["network_d"]),
    ):
        with torch.device("meta"):
            released = net().state_dict()
        assert shapes(section) == {key: tensor.shape for key, tensor in released.items()}
    assert options["path"]["pretrain_network_g"].endswith("/GPEN-BFR-256.pth")
    assert options["path"]["pretrain_network_d"].endswith("/GPEN-BFR-256-D.pth")


def test_from_release_says_what_to_change_for_512(faces):
    changed, wanted = for_512(RELEASE.read_text()), loaded("gpen_finetune_512.yml")
    for name in ("network_g", "network_d"):
        assert shapes(changed[name]) == shapes(wanted[name])
    for phase in ("train", "val"):
        assert changed["datasets"][phase]["out_size"] == 512
        assert changed["datasets"][phase]["degradation"] == wanted["datasets"][phase]["degradation"]
        changed["datasets"][phase] |= {"dataroot_gt": str(faces), "io_backend": {"type": "disk"}}
    for key, file in (("pretrain_network_g", "GPEN-BFR-512.pth"), ("pretrain_network_d", "GPEN-BFR-512-D.pth")):
        assert changed["path"][key] == f"weights/{file}"
        changed["path"][key] = None
    check_run(parsed({**changed, "num_gpu": 0}))


def test_from_release_fine_tunes_files_of_two_widths(faces, train, tmp_path):
    """Flat files under the authors' names, the discriminator twice as wide as the generator."""
    options = in_small(loaded(RELEASE), faces)
    options["train"]["optim"]["lr"] = 1e-12  # what was loaded is still there at the end
    released = {}
    for name, build in (("network_g", GPEN), ("network_d", GPENDiscriminator)):
        torch.manual_seed(1)
        released[name] = build(**arguments(options[name])).state_dict()
        path = saved(tmp_path / f"{name}.pth", to_layout(released[name], "authors"))
        options["path"][f"pretrain_{name}"] = str(path)
    widths = [checkpoint.infer_spec(state).narrow for state in released.values()]
    assert widths[1] == 2 * widths[0]
    folder = train(options)
    for name, label in (("network_g", "net_g"), ("network_d", "net_d")):
        state = torch.load(folder / f"models/{label}_4.pth", weights_only=True)
        for entry, tensors in state.items():
            for key, tensor in released[name].items():
                torch.testing.assert_close(tensors[key], tensor, atol=1e-6, rtol=0, msg=f"{label} {entry} {key}")


@pytest.mark.parametrize(
    ("entry", "read"),
    [
        ("val:val_freq=-1", -1),
        ("train:lr=1e-4", 1e-4),
        ("train:augment_opt={target: 0.6}", {"target": 0.6}),
        ("path:pretrain_network_g=a/b.pth", "a/b.pth"),
        ("path:pretrain_network_g=~", None),
        ("name=mine", "mine"),
    ],
)
def test_forced_values_are_read_as_yaml_reads_them(parse, entry, read):
    value = parse(OPTIONS / "gpen_finetune.yml", "--force_yml", entry)
    for key in entry.partition("=")[0].split(":"):
        value = value[key]
    assert value == read
    assert type(value) is type(read)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("nosuch:key=3", "--force_yml nosuch:key=3: the option file has no section nosuch"),
        ("train:augment_opt:target=0.6", "--force_yml train:augment_opt:target=0.6: .* no section train:augment_opt"),
        ("noequal", "--force_yml noequal: 0 signs =; expected key=value"),
    ],
)
def test_wrong_forced_entry_is_an_error(entry, message, monkeypatch):
    from basicsr.utils import options as host_options

    file = REPOSITORY / "options" / "gpen_prior_256.yml"
    monkeypatch.setattr("sys.argv", ["train.py", "-opt", str(file), "--force_yml", "name=x", entry])
    monkeypatch.setattr("sys.excepthook", sys.excepthook)
    with pytest.raises(OptionError, match=message):
        host_options.parse_options(".", is_train=True)
