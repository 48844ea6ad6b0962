"""Data sets of the hub, by name."""

import difflib
import socket
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies

from depthq.data.errors import DataError
from depthq.extras import explain_missing

if TYPE_CHECKING:  # `datasets` takes a second to import: load it where it is used
    from datasets import Dataset

_SECONDS_TO_CONNECT = 3


def load_hub(name: str) -> dict[str, "Dataset"]:
    """The splits of a data set, by their names, from the cache of `datasets` or from the hub.

    Raises:
        DataError: If there is none of that name, or the hub cannot be reached.
    """
    with explain_missing():
        import datasets
        from datasets.exceptions import DatasetsError

    _check_hub(name)
    try:
        splits = datasets.load_dataset(name)
    except (DatasetsError, OSError, ValueError, RuntimeError) as error:  # RuntimeError: a set that needs a script
        raise DataError(
            f"data source must be 'bundled', an existing folder or parquet file, or a hub data set; got "
            f"{name}, neither here nor loadable from the hub ({error}); check the spelling and the network"
        ) from error
    return {str(key): table for key, table in splits.items()}


def _check_hub(name: str) -> None:
    """Raise DataError at once, where the hub's own machinery would try again and again for long."""
    from datasets.config import HF_DATASETS_CACHE, HF_ENDPOINT, HF_HUB_OFFLINE

    if HF_HUB_OFFLINE or getproxies() or (Path(HF_DATASETS_CACHE) / name.replace("/", "___")).is_dir():
        return
    address = urlsplit(HF_ENDPOINT)
    try:
        socket.create_connection((address.hostname or "", address.port or 443), _SECONDS_TO_CONNECT).close()
    except OSError as error:
        close = difflib.get_close_matches(name, ["bundled"])
        hint = f"did you mean {close[0]}?" if close else "check the spelling and the network"
        raise DataError(
            f"data source must be 'bundled', an existing folder or parquet file, or a hub data set; got {name}, which "
            f"is not here, and the hub cannot be reached ({error}); {hint}"
        ) from error
