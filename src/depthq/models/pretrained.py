"""Trained models in folders and on the hub: config.json, model.safetensors and a README.md, no pickle."""

import json
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from huggingface_hub.constants import CONFIG_NAME, SAFETENSORS_SINGLE_FILE
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn

from depthq.files import readable
from depthq.models.card import model_card
from depthq.models.config import DQAEConfig
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
        folder.mkdir(parents=True, exist_ok=True)
        save_model(self, str(folder / SAFETENSORS_SINGLE_FILE))
        readable(folder / SAFETENSORS_SINGLE_FILE)
        (folder / CONFIG_NAME).write_text(json.dumps(asdict(self.config), sort_keys=True, indent=2))
        if not (folder / "README.md").exists():
            num_parameters = sum(weight.numel() for weight in self.parameters())
            (folder / "README.md").write_text(model_card(self.config, num_parameters, notes))

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
        """
        folder = _local_folder(name) or _from_hub(str(name), hub_options)
        model = cls(_read_config(folder / CONFIG_NAME))
        weights = folder / SAFETENSORS_SINGLE_FILE
        try:
            load_model(model, weights)
        except FileNotFoundError:
            raise ValueError(f"{folder} must hold {weights.name}; got none; is it a save_pretrained folder?") from None
        except (SafetensorError, RuntimeError) as error:
            raise ValueError(f"{weights} must be whole and fit {CONFIG_NAME}; got: {error}; copy it again") from error
        return model.eval()


def _local_folder(name: str | Path) -> Path | None:
    """Of a run its model."""
    if not Path(name).is_dir():
        return shipped_folder(str(name))
    inside = Path(name) / "model"
    return inside if (inside / CONFIG_NAME).is_file() else Path(name)


def _from_hub(name: str, options: dict[str, Any]) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=[CONFIG_NAME, SAFETENSORS_SINGLE_FILE], **options))
    except (OSError, ValueError) as error:  # not there, not reachable, or no such name
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{name} must be a shipped model ({', '.join(SHIPPED)}), a save_pretrained folder or a repository on the "
            f"hub; got none of them: {reason}"
        ) from error


def _read_config(path: Path) -> DQAEConfig:
    try:
        return DQAEConfig.from_dict(json.loads(path.read_text()))
    except FileNotFoundError:
        raise ValueError(f"{path.parent} must hold {path.name}; got none; is it a save_pretrained folder?") from None
    except (json.JSONDecodeError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} must be a JSON object of config fields; got: {error}") from error
