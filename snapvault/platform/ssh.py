"""fsspec's SFTP with the host keys that ``ssh`` knows."""

import logging
from typing import Any

import paramiko
from fsspec.implementations.sftp import SFTPFileSystem

from snapvault.foundation.errors import InvalidInput

# Without any handler Python prints what paramiko logs, tracebacks and all; whoever wants to see it still can.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


class KnownHosts(SFTPFileSystem):  # type: ignore[misc]
    """fsspec accepts any host key unless told otherwise, and a password would go to whoever answers.

    InvalidInput: the key of this host is not known.
    """

    cachable = False

    def __init__(self, host: str, *, host_key_policy: Any = "reject", **options: Any) -> None:
        super().__init__(host, host_key_policy=host_key_policy, **options)

    def _connect(self) -> None:
        self.client = paramiko.SSHClient()
        self.client.load_system_host_keys()
        self.client.set_missing_host_key_policy(self.host_key_policy)
        try:
            self.client.connect(self.host, **self.ssh_kwargs)
        except paramiko.SSHException as err:
            if "not found in known_hosts" not in str(err):
                raise
            hint = "connect once with ssh to learn its key, or set the storage option host_key_policy to 'auto_add'"
            raise InvalidInput(f"the host key of {self.host} is not known", hint=hint) from err
        self.ftp = self.client.open_sftp()
