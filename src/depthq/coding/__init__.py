"""Images and codes to bytes and back: whole numbers, a range coder, streams, files that decode on any machine."""

from depthq.coding.container import FORMAT_VERSION, FileError
from depthq.coding.files import Archive, compress, decompress

__all__ = ["FORMAT_VERSION", "Archive", "FileError", "compress", "decompress"]
