"""How the frames of archived segments are compressed: zstd."""

import zstandard

LEVEL = 9
"""A segment is written once, in the background, and kept for years."""


def pack(raw: bytes) -> bytes:
    """Compress a frame."""
    return zstandard.ZstdCompressor(level=LEVEL).compress(raw)


def unpack(raw: bytes) -> bytes:
    """Expand a frame that matches its checksum."""
    return zstandard.ZstdDecompressor().decompress(raw)
