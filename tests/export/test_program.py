import json

import pytest
import torch
from small_networks import SMALL, built

from gpen_plugin import GPEN
from gpen_plugin.export import Plan, export


def pictures(count):
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(5)) * 2 - 1


@pytest.mark.parametrize(("batch", "precision", "tried"), [(None, "fp32", (1, 2, 5)), (1, "fp16", (1,))])
def test_a_program_gives_what_the_network_gives(batch, precision, tried, tmp_path, capfd):
    net = built(lambda: GPEN(32, in_size=16, **SMALL)).eval()
    plan = Plan("program", batch=batch, precision=precision)
    exported = export(net, tmp_path / "model.pt2", plan, {"gpen_task": "restore"})
    assert exported.difference.largest < {"fp32": 1e-6, "fp16": 5e-3}[precision]
    assert capfd.readouterr() == ("", "")
    facts = {"gpen.json": ""}
    program = torch.export.load(str(exported.path), extra_files=facts).module()
    assert json.loads(facts["gpen.json"]) == {"gpen_task": "restore"}
    for count in tried:
        with torch.no_grad():
            assert torch.allclose(program(pictures(count)), net(pictures(count)), atol=1e-2)
    assert [file.name for file in tmp_path.iterdir()] == ["model.pt2"]
