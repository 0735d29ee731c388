"""``from_pretrained``, ``save_pretrained`` and ``push_to_hub``: networks in a folder or on the Hugging Face Hub."""

from os import PathLike
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from typing_extensions import Self

    from gpen_plugin.checkpoints.metadata import Metadata


class Pretrained:
    """Methods of our networks by huggingface_hub's `PyTorchModelHubMixin`, which is imported when one is called.

    A folder or repository has ``model.safetensors``, whose metadata state architecture, conventions and license,
    ``config.json`` and a model card, ``README.md``. Nothing is fetched unless a repository is named.
    """

    stated: "Metadata | None" = None  # metadata of the file that the weights are from; `save_pretrained` writes them

    @classmethod
    def from_pretrained(
        cls,
        source: str | PathLike,  # a folder, or a repository of the Hub such as `user/repo`
        *,
        revision: str | None = None,  # branch, tag or commit of a repository; None is `main`
        token: str | bool | None = None,  # of an account; None takes that of `hf auth login`
        cache_dir: str | PathLike | None = None,  # None is huggingface_hub's own
        force_download: bool = False,  # also if the cache has the files
        local_files_only: bool = False,  # use the cache alone
        device: "str | torch.device" = "cpu",
    ) -> "Self":
        """The network with its weights, in eval mode; the tensors determine its sizes.

        Raises MissingFileError: there is no such folder or repository, or huggingface_hub is not installed;
        CheckpointError: the file holds something else than this class.
        """
        from gpen_plugin.checkpoints.hub import from_pretrained

        arguments = {"revision": revision, "token": token, "cache_dir": cache_dir, "force_download": force_download}
        return from_pretrained(cls, source, local_files_only=local_files_only, device=device, **arguments)

    def save_pretrained(self, folder: str | PathLike, **facts: object) -> None:
        """Write a folder that `from_pretrained` and ``gpen-restore -m FOLDER`` read.

        `facts` replace those of `stated`: `task`, `template`, `alpha`, `value_range`, `title`, `license`, `data`.
        Raises OptionError for another; CheckpointError if the folder cannot be written.
        """
        from gpen_plugin.checkpoints.hub import save_pretrained

        save_pretrained(self, folder, facts)

    def push_to_hub(
        self,
        repo_id: str,  # `user/repo`; it is created if there is none
        *,
        private: bool | None = None,
        token: str | None = None,  # see `from_pretrained`
        branch: str | None = None,
        commit_message: str = "Upload the network",
        create_pr: bool = False,
        **facts: object,  # see `save_pretrained`
    ) -> str:
        """Upload what `save_pretrained` writes. Returns the address of the commit."""
        from gpen_plugin.checkpoints.hub import push_to_hub

        how = {"private": private, "token": token, "branch": branch, "create_pr": create_pr}
        return push_to_hub(self, repo_id, facts, commit_message=commit_message, **how)
