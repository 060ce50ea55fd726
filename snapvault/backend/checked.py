"""For stores whose put-if-absent is no promise: look first, so that at least nobody is overwritten knowingly."""

from collections.abc import Sequence

from snapvault.backend.protocol import Buffer, Exists, NotFound
from snapvault.backend.wrapper import Wrapper


class CheckedBackend(Wrapper):
    """put_if_absent asks for the object before it puts.

    For a store that failed the probe: one user at a time is safe then, racing ones are not.
    """

    def put_if_absent(self, name: str, data: Sequence[Buffer]) -> None:
        try:
            self.inner.head(name)
        except NotFound:
            self.inner.put_if_absent(name, data)
        else:
            raise Exists(f"{name} is already in {self.url}", affected=[name])
