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

from depthq.models.config import DQAEConfig

# The hub's own machinery takes half a second to import: it loads where the network is used.

CARD = """---
library_name: depthq
---

A depth-quantized auto-encoder: images to a few discrete codes per position and back.

```python
import depthq

model = depthq.DQAE.from_pretrained("this folder, or the name of its repository")
codes = model.encode(images)  # uint8 (B, C, H, W)
```
"""


class Pretrained(nn.Module):
    """A network that a config describes in full; it is saved, shared and loaded as that config and its weights."""

    config: DQAEConfig

    def __init__(self, config: DQAEConfig):
        super().__init__()
        self.config = config

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write the model into a folder, made if need be; a README.md that is there already stays as it is."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        save_model(self, str(folder / SAFETENSORS_SINGLE_FILE))
        (folder / CONFIG_NAME).write_text(json.dumps(asdict(self.config), sort_keys=True, indent=2))
        if not (folder / "README.md").exists():
            (folder / "README.md").write_text(CARD)

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
        """A trained model, in eval mode, from a folder that `save_pretrained` wrote or from a hub repository.

        Args:
            name: The folder, or the repository's "owner/name".
            hub_options: Passed to `huggingface_hub.snapshot_download` (revision, token, cache_dir, ...).

        Raises:
            ValueError: If the folder holds no model, or its config or weights are damaged or do not fit together.
        """
        folder = Path(name) if Path(name).is_dir() else _from_hub(str(name), hub_options)
        model = cls(_read_config(folder / CONFIG_NAME))
        weights = folder / SAFETENSORS_SINGLE_FILE
        try:
            load_model(model, weights)
        except FileNotFoundError:
            raise ValueError(f"{folder} must hold {weights.name}; got none; is it a save_pretrained folder?") from None
        except (SafetensorError, RuntimeError) as error:
            raise ValueError(f"{weights} must be whole and fit {CONFIG_NAME}; got: {error}; copy it again") from error
        return model.eval()


def _from_hub(name: str, options: dict[str, Any]) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=[CONFIG_NAME, SAFETENSORS_SINGLE_FILE], **options))
    except (OSError, ValueError) as error:  # not there, not reachable, or no such name
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{name} must be a save_pretrained folder or a repository on the hub; got neither: {reason}"
        ) from error


def _read_config(path: Path) -> DQAEConfig:
    try:
        return DQAEConfig.from_dict(json.loads(path.read_text()))
    except FileNotFoundError:
        raise ValueError(f"{path.parent} must hold {path.name}; got none; is it a save_pretrained folder?") from None
    except (json.JSONDecodeError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} must be a JSON object of config fields; got: {error}") from error
