"""Networks in folders and on the Hugging Face Hub, by huggingface_hub's `PyTorchModelHubMixin`."""

from collections.abc import Mapping
from os import PathLike, path
from pathlib import Path

import torch
from torch import nn

from gpen_plugin.checkpoints import checkpoint, metadata
from gpen_plugin.checkpoints.download import HUB_WEIGHTS, hub_errors, import_hub, is_offline
from gpen_plugin.checkpoints.metadata import Conventions, Metadata
from gpen_plugin.config import schema
from gpen_plugin.errors import CheckpointError, MissingFileError

PAPER = "https://arxiv.org/abs/2105.06070"
FACTS = ("title", "license", "data")
LICENSE_IDS = ("apache-2.0", "mit", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-nc-4.0")
"""Licenses that the Hub knows by these names, of those that our files state."""

CARD = """---
{{ card_data }}
---

# {{ title }}

{{ architecture }}, {{ size }} px, of GPEN (CVPR 2021), [blind face restoration with a GAN prior]({{ paper_url }}).

```python
from gpen_plugin import {{ architecture }}

net = {{ architecture }}.from_pretrained("user/repo")
```
{% if restores %}
It restores aligned faces; `gpen-restore photo.jpg -m hf:user/repo` restores those of a photograph.
Task: {{ task }}; alignment: {{ template }}; RGB in {{ value_range }}.

Not for identifying people: where an image has no information, the network invents it.
{% endif %}
License of the weights: {{ license }}. Training data: {{ data }}.
"""


def from_pretrained(
    cls: type[nn.Module], source: str | PathLike, *, device: str | torch.device = "cpu", **how: object
) -> nn.Module:
    """See `Pretrained.from_pretrained`."""
    if not path.isdir(source) and str(source).startswith((".", "/", "~")):
        raise MissingFileError("from_pretrained", f"{source} is not there", "a folder or user/repo", "Check the path.")
    offline = how.pop("local_files_only") or is_offline()
    with hub_errors(str(source)):
        net = _repository().from_pretrained(source, local_files_only=offline, **how)
    if not isinstance(net, cls):
        raise CheckpointError(str(source), f"holds a {type(net).__name__}", f"a {cls.__name__}", "Use its class.")
    return net.to(device).eval()


def save_pretrained(net: nn.Module, folder: str | PathLike, facts: Mapping[str, object]) -> None:
    """See `Pretrained.save_pretrained`."""
    stated = _state(net, facts)
    _repository(stated)(net, stated).save_pretrained(folder, **_contents(stated))


def push_to_hub(net: nn.Module, repo_id: str, facts: Mapping[str, object], **how: object) -> str:
    """See `Pretrained.push_to_hub`."""
    stated = _state(net, facts)
    with hub_errors(repo_id):
        return _repository(stated)(net, stated).push_to_hub(repo_id, **_contents(stated), **how)


def _state(net: nn.Module, facts: Mapping[str, object]) -> Metadata:
    """What the file states of a network."""
    restores = type(net).__name__ == "GPEN"
    fields = {**Conventions.__dataclass_fields__} if restores else {}
    for name in facts:
        if name not in (*fields, *FACTS):
            raise schema.unknown_key(name, [*fields, *FACTS], "")
    start = net.stated or Metadata()
    conventions = {"value_range": tuple(net.value_range)} if restores else {}
    conventions = metadata.stated(Conventions(**conventions)) | dict(start.conventions) if restores else {}
    conventions |= {name: value for name, value in facts.items() if name in fields}
    plain = {name: facts.get(name, getattr(start, name)) for name in FACTS}
    stated = checkpoint.describe(net, conventions=conventions, **plain)
    metadata.parse(stated.texts(), "save_pretrained")  # checks the values
    return stated


def _contents(stated: Metadata) -> dict[str, dict]:
    """Arguments of the mixin: ``config.json`` and the words of the model card."""
    plain = {name: getattr(stated, name) or "not stated" for name in ("license", "data")}
    plain |= {"title": stated.title or stated.architecture, "architecture": stated.architecture}
    conventions = dict(stated.conventions)
    if conventions:
        conventions["value_range"] = list(conventions["value_range"])
    words = {"size": stated.arguments.get("out_size"), "restores": bool(conventions), **plain, **conventions}
    return {"config": {"architecture": stated.architecture, **stated.arguments}, "model_card_kwargs": words}


def _repository(stated: Metadata | None = None) -> type:
    """A class of the mixin that writes and reads our files."""
    hub = import_hub()
    license = (stated and stated.license) or None
    known = license is not None and license.lower() in LICENSE_IDS
    named = {"license": license.lower()} if known else {"license": "other", "license_name": license} if license else {}

    class Repository(
        hub.PyTorchModelHubMixin,
        library_name="gpen_plugin",
        pipeline_tag="image-to-image",
        tags=["face-restoration", "gpen"],
        paper_url=PAPER,
        model_card_template=CARD,
        **named,
    ):
        def __init__(self, net: nn.Module, stated: Metadata):
            self._net, self._stated = net, stated

        def _save_pretrained(self, save_directory: Path) -> None:
            state = {name: tensor.cpu() for name, tensor in self._net.state_dict().items()}
            checkpoint.write(save_directory / HUB_WEIGHTS, state, self._stated)

        @classmethod
        def _from_pretrained(cls, *, model_id: str, **how: object) -> nn.Module:
            if path.isdir(model_id):
                file = path.join(model_id, HUB_WEIGHTS)
            else:
                names = ("revision", "cache_dir", "force_download", "local_files_only", "token")
                file = hub.hf_hub_download(model_id, HUB_WEIGHTS, **{name: how[name] for name in names})
            return checkpoint.read_network(file)[0]

    return Repository
