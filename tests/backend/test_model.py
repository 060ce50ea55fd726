"""Random calls on every local kind of backend against a plain dict."""

import tempfile
from collections.abc import Sequence
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from snapvault.backend.local import LocalBackend
from snapvault.backend.memory import MemoryBackend
from snapvault.backend.protocol import Backend, Exists, NotFound, ObjectInfo
from snapvault.foundation.errors import Damaged

COMPONENT = st.text("ab-._0Z", min_size=1, max_size=2).filter(lambda text: text[0] != ".")
# folders and objects never share a name: the last component of an object begins with n
NAMES = st.builds(lambda folders, last: "/".join([*folders, "n" + last]), st.lists(COMPONENT, max_size=2), COMPONENT)


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.backends: Sequence[Backend] = [LocalBackend(self.folder.name), MemoryBackend()]
        self.model: dict[str, bytes] = {}

    def teardown(self) -> None:
        self.folder.cleanup()

    @rule(name=NAMES, data=st.lists(st.binary(max_size=20), max_size=3))
    def put(self, name: str, data: list[bytes]) -> None:
        for backend in self.backends:
            backend.put(name, data)
        self.model[name] = b"".join(data)

    @rule(name=NAMES, data=st.lists(st.binary(max_size=20), max_size=3))
    def put_if_absent(self, name: str, data: list[bytes]) -> None:
        for backend in self.backends:
            try:
                backend.put_if_absent(name, data)
                assert name not in self.model
            except Exists:
                assert name in self.model
        self.model.setdefault(name, b"".join(data))

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        for backend in self.backends:
            backend.delete(name)
        self.model.pop(name, None)

    @rule(pick=st.data(), start=st.integers(0, 25), length=st.none() | st.integers(0, 25))
    def get(self, pick: Any, start: int, length: int | None) -> None:
        name = pick.draw(st.sampled_from(sorted(self.model)) | NAMES if self.model else NAMES)
        body = self.model.get(name)
        whole = body is not None and start <= len(body) and (length is None or start + length <= len(body))
        for backend in self.backends:
            try:
                found = backend.get(name, start, length)
                assert whole and body is not None
                assert found == body[start : None if length is None else start + length]
            except NotFound:
                assert body is None
            except Damaged:
                assert body is not None and not whole

    @rule(pick=st.data())
    def list(self, pick: Any) -> None:
        name = pick.draw(st.sampled_from(sorted(self.model)) | NAMES if self.model else NAMES)
        for prefix in ("", name[: len(name) // 2], name):
            expected = [ObjectInfo(n, len(b)) for n, b in sorted(self.model.items()) if n.startswith(prefix)]
            for backend in self.backends:
                assert [*backend.list(prefix)] == expected


TestModel = Machine.TestCase
TestModel.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
