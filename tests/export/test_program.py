import json

import torch
from helpers.small_networks import SMALL, built, rounding_error

from gpen_plugin import GPEN
from gpen_plugin.export.checking import make_test_inputs
from gpen_plugin.export.exporting import export
from gpen_plugin.export.plan import Plan


def images(count):
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(5)) * 2 - 1


def test_a_program_gives_what_the_network_gives(tmp_path, capfd):
    net = built(lambda: GPEN(16, **SMALL)).eval()
    plan = Plan("program", precision="fp16")
    exported = export(net, tmp_path / "model.pt2", plan, {"gpen_task": "restore"})
    largest, _ = rounding_error(net, torch.cat([images(5), *make_test_inputs(net.in_size, None)]), torch.float16)
    assert 0 < exported.difference.largest < largest / 2 < 0.05  # of the range from -1 to 1
    assert capfd.readouterr() == ("", "")
    facts = {"gpen.json": ""}
    program = torch.export.load(str(exported.path), extra_files=facts).module()
    assert json.loads(facts["gpen.json"]) == {"gpen_task": "restore"}
    for count in (1, 2, 5):
        with torch.no_grad():
            assert (program(images(count)) - net(images(count))).abs().max() < largest
    assert [file.name for file in tmp_path.iterdir()] == ["model.pt2"]
