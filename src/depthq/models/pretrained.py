"""Trained models in folders and on the hub: config.json, model.safetensors and a README.md, no pickle."""

import json
from dataclasses import asdict
from inspect import signature
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from huggingface_hub.constants import CONFIG_NAME, SAFETENSORS_SINGLE_FILE
from torch import nn

from depthq.models.card import model_card
from depthq.models.config import DQAEConfig
from depthq.saved import load_module, save_module
from depthq.weights import SHIPPED, shipped_folder

# The hub's own machinery takes half a second to import: it loads where the network is used.


class Pretrained(nn.Module):
    """A network that a config describes in full; it is saved, shared and loaded as that config and its weights."""

    config: DQAEConfig

    def __init__(self, config: DQAEConfig):
        super().__init__()
        self.config = config

    def save_pretrained(self, save_directory: str | Path, notes: str = "") -> None:
        """Write the model into a folder, made if need be: its config, its weights, and a README.md that describes it.

        Args:
            save_directory: The folder. A README.md that is there already stays as it is.
            notes: Markdown that the README.md goes on with: data, recipe, figures, limits, licence.
        """
        folder = Path(save_directory)
        save_module(self, json.loads(json.dumps(asdict(self.config))), folder)
        if not (folder / "README.md").exists():
            num_parameters = sum(weight.numel() for weight in self.parameters())
            card = model_card(self.config, num_parameters, notes)
            (folder / "README.md").write_text(card, "utf-8", errors="backslashreplace")  # paths may be no text

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str = "Model by depthq",
        private: bool | None = None,
        token: str | None = None,
        branch: str | None = None,
    ) -> str:
        """Upload what `save_pretrained` writes to a repository on the hub, which is made if it does not exist.

        Args:
            repo_id: "owner/name".
            commit_message: Of the upload.
            private: Of a new repository; by default as its owner's settings say.
            token: By default the one that this machine is logged in with.
            branch: By default main.

        Returns:
            The commit's address.

        Raises:
            OSError: If the hub cannot be reached or refuses; huggingface_hub's own errors are such.
        """
        from huggingface_hub import HfApi

        hub = HfApi(token=token)
        repository = hub.create_repo(repo_id, private=private, exist_ok=True).repo_id
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return hub.upload_folder(
                repo_id=repository, folder_path=folder, commit_message=commit_message, revision=branch
            )

    @classmethod
    def from_pretrained(cls, name: str | Path, **hub_options: Any) -> Self:
        """A trained model, in eval mode, that comes with the package, or from a folder or a hub repository.

        Args:
            name: A name of `depthq.weights.SHIPPED`; or a folder that `save_pretrained` wrote, or of a run of `depthq
                train`; or the repository's "owner/name".
            hub_options: Passed to `huggingface_hub.snapshot_download` (revision, token, cache_dir, ...).

        Raises:
            ValueError: If the folder holds no model, or its config or weights are damaged or do not fit together.
            TypeError: If there are options that nothing takes.
        """
        folder = _local_folder(name)
        if folder is None:
            folder = _from_hub(str(name), hub_options)
        elif hub_options:
            raise TypeError(
                f"hub_options must be left out for a folder; got {', '.join(hub_options)}; they are for the hub"
            )
        return load_module(folder, lambda config: cls(DQAEConfig.from_dict(config)))


def _local_folder(name: str | Path) -> Path | None:
    """Of a run its model."""
    if not Path(name).is_dir():
        return shipped_folder(str(name))
    inside = Path(name) / "model"
    return inside if (inside / CONFIG_NAME).is_file() else Path(name)


def _from_hub(name: str, options: dict[str, Any]) -> Path:
    from huggingface_hub import snapshot_download

    unknown = sorted(set(options) - set(signature(snapshot_download).parameters))
    if unknown:
        raise TypeError(f"hub_options must be those of huggingface_hub.snapshot_download; got {', '.join(unknown)}")
    try:
        return Path(snapshot_download(name, allow_patterns=[CONFIG_NAME, SAFETENSORS_SINGLE_FILE], **options))
    except (OSError, ValueError) as error:  # not there, not reachable, or no such name
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{name} must be a shipped model ({', '.join(SHIPPED)}), a save_pretrained folder or a repository on the "
            f"hub; got none of them: {reason}"
        ) from error
