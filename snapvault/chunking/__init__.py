"""Content-defined chunking: where a stream of bytes is cut, so that equal content is stored once."""

from snapvault.chunking.chunker import KEY_SIZE, Chunker
from snapvault.chunking.sizes import MAXIMUM_CHUNK, Chunking
from snapvault.foundation.native import NATIVE

__all__ = ["KEY_SIZE", "MAXIMUM_CHUNK", "NATIVE", "Chunker", "Chunking"]
