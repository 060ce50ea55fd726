"""The sizes of chunks: parameters of a repository."""

from dataclasses import dataclass

from snapvault.foundation.errors import InvalidInput

KIB = 1024
MIB = 1024 * KIB

WINDOW = 64  # bytes that decide a cut; a chunk is never shorter, so the window never reaches into the one before
MAXIMUM_CHUNK = 8 * MIB  # of the format: no reader has to hold more


@dataclass(frozen=True, slots=True)
class Chunking:
    """Minimum, average and maximum length of a chunk, in bytes.

    ``average`` is the length from which on cuts are sixteen times likelier than before; with the usual ratios of 1:4:16
    the mean length comes out 14 % above it. Smaller chunks deduplicate better and cost more index.

    Raises InvalidInput unless 64 <= minimum < average < maximum <= 8 MiB and average is a power of two.
    """

    minimum: int = 16 * KIB
    average: int = 64 * KIB
    maximum: int = 256 * KIB

    def __post_init__(self) -> None:
        if not WINDOW <= self.minimum < self.average < self.maximum <= MAXIMUM_CHUNK:
            raise InvalidInput(
                f"chunk sizes {self.minimum}, {self.average}, {self.maximum} are out of order",
                hint=f"they must be {WINDOW} <= minimum < average < maximum <= {MAXIMUM_CHUNK}",
            )
        if self.average & (self.average - 1):
            raise InvalidInput(f"the average chunk size must be a power of two, not {self.average}")
