"""A relay in front of a server on this machine: it adds latency, and counts requests and bytes.

    python relay.py PORT SERVER_PORT MILLISECONDS COUNTS

Half of the latency is added on each way; the order of the bytes and the bandwidth stay as they are.  Once a second,
and at the end, the counts are written to the file as JSON.
"""

import asyncio
import json
import re
import sys
from collections import Counter
from pathlib import Path

_REQUEST = re.compile(rb"(GET|PUT|HEAD|POST|DELETE) [^ ]+ HTTP/1\.1\r\n")
_PIECE = 256 << 10


class Relay:
    def __init__(self, server: int, latency: float) -> None:
        self._server, self._each_way = server, latency / 2
        self.counts: Counter[str] = Counter()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        await asyncio.sleep(2 * self._each_way)  # the handshake's round trip
        there, back = await asyncio.open_connection("127.0.0.1", self._server)
        self.counts["connections"] += 1
        await asyncio.gather(self._carry(reader, back, "sent"), self._carry(there, writer, "received"))

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, way: str) -> None:
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        sending = asyncio.create_task(self._deliver(queue, sink))
        clock = asyncio.get_running_loop().time
        try:
            while data := await source.read(_PIECE):
                self.counts[way] += len(data)
                request = _REQUEST.match(data) if way == "sent" else None
                if request:
                    self.counts[request[1].decode()] += 1
                queue.put_nowait((clock() + self._each_way, data))
        except ConnectionError:
            pass
        queue.put_nowait((clock() + self._each_way, b""))
        await sending

    async def _deliver(self, queue: "asyncio.Queue[tuple[float, bytes]]", sink: asyncio.StreamWriter) -> None:
        clock = asyncio.get_running_loop().time
        try:
            while True:
                due, data = await queue.get()
                await asyncio.sleep(max(0.0, due - clock()))
                if not data:
                    break
                sink.write(data)
                await sink.drain()
            sink.close()
        except ConnectionError:
            pass


async def main(port: int, server: int, latency: float, counts: Path) -> None:
    relay = Relay(server, latency)
    await asyncio.start_server(relay.accept, "127.0.0.1", port)
    while True:
        counts.write_text(json.dumps(relay.counts))
        await asyncio.sleep(0.5)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]) / 1000, Path(sys.argv[4])))
