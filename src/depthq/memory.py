"""Whether it was memory that ran out."""

import re


def is_of_memory(error: Exception) -> bool:
    """Whether an error says that memory ran out: PyTorch tells so in words alone, on a CPU as on a GPU."""
    return (
        isinstance(error, MemoryError)
        or re.search("allocate memory|out of memory|enough memory", str(error)) is not None
    )
