"""One writer at a time in a folder that is written bit by bit."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from depthq.extras import explain_missing
from depthq.files import LOCK_NAME

with explain_missing():
    from filelock import FileLock, Timeout


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold the folder for the block. The operating system gives the lock back when a process ends, however it ends.

    It holds between machines where a network file system has locks (NFS 4, Lustre with flock, CephFS); where it has
    none, each machine has its own.

    Raises:
        ValueError: If another process holds it.
    """
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / LOCK_NAME
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ValueError(
            f"{folder} must have one writer; got two: {_holder(file)} writes there; wait for it, or stop it"
        ) from error
    try:
        file.write_text(json.dumps({"process": os.getpid(), "host": socket.gethostname()}))
        yield
    finally:
        file.unlink(missing_ok=True)
        lock.release()
        if is_new and not any(folder.iterdir()):  # nothing came of it
            folder.rmdir()


def _holder(file: Path) -> str:
    try:
        holder = json.loads(file.read_text())
        return f"process {holder['process']} on {holder['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
