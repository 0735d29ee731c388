"""The work behind ``gpen-export``, once its command line is known to be right."""

import os
from argparse import Namespace
from pathlib import Path

from gpen_plugin.archs.gpen_arch import GPEN
from gpen_plugin.checkpoints.checkpoint import NetworkSpec
from gpen_plugin.checkpoints.download import find_weights, sha256_of
from gpen_plugin.errors import OptionError
from gpen_plugin.export.exporting import Exported, export
from gpen_plugin.export.plan import Plan
from gpen_plugin.restore import zoo
from gpen_plugin.restore.network import TorchNetwork, open_network, prepare_for_inference, read_gpen
from gpen_plugin.version import __version__


def run(options: Namespace, plan: Plan) -> None:
    """Export the network that a command line names, and tell what was written."""
    network = open_network(options.model, key=options.key, device=options.device)
    if not isinstance(network, TorchNetwork):
        raise OptionError("MODEL", f"{options.model} is an ONNX file already", "weights", "Name their file.")
    net, spec = read_gpen(_weights(options.model), options.key)  # what `network` holds is folded
    exported = export(
        prepare_for_inference(net, network.device, folded=False), options.output, plan, _facts(options, network, spec)
    )
    _tell(exported, plan, net, spec)


def _facts(options: Namespace, network: TorchNetwork, spec: NetworkSpec) -> dict[str, str]:
    """What the file says about itself. Tools that crop faces read their alignment and value range here."""
    low, high = network.value_range
    return {
        "gpen_version": __version__,
        "gpen_network": str(spec),
        "gpen_weights_sha256": sha256_of(_weights(options.model)),
        "gpen_precision": options.precision,
        "gpen_task": options.task or network.task,
        "gpen_template": options.template or network.template,
        "gpen_alpha": f"{network.alpha:g}",
        "gpen_value_range": f"[{low:g}, {high:g}]",
    }


def _weights(model: str) -> Path:
    """The file of a model that could be opened."""
    path = Path(os.path.expanduser(model))
    return path if path.is_file() else find_weights(zoo.get_released(path.name).file)


def _tell(exported: Exported, plan: Plan, net: GPEN, spec: NetworkSpec) -> None:
    batch = "N" if plan.batch is None else plan.batch
    sizes = f"({batch}, 3, {net.in_size}, {net.in_size}) -> ({batch}, 3, {net.out_size}, {net.out_size})"
    kind = f"ONNX opset {plan.opset}" if plan.format == "onnx" else "program of torch.export"
    megabytes = exported.path.stat().st_size / 1e6
    print(f"{exported.path}: {spec}")
    print(f"  {kind}, {plan.precision}, {sizes}, {megabytes:.1f} MB")
    print(f"  differs from PyTorch by {exported.difference} on {exported.images} images")
