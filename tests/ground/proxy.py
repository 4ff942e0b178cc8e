"""A TCP proxy that does to connections what networks do."""

import asyncio
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Self

from tests.ground.ports import LOCALHOST, free_port

_CHUNK = 65_536
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # struct linger: on, for 0 seconds


class Proxy:
    """Stands between clients and one server; what a test asks of it holds for all connections.

    A context manager. Its methods are called from the test and return when their effect is in force; the
    proxy itself runs in a thread of its own, so do not fork while one is open.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = free_port()
        self._rules = _Rules()
        self._links: set[_Link] = set()
        self._listener: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.accept()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.heal()
        self.refuse()
        self._run(self._end_links())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def lost(self) -> int:
        """How many replies `lose_reply` has swallowed so far."""
        return self._rules.lost

    def through(self, url: str) -> str:
        """Return a URL of the server, of any scheme, changed so that it leads through the proxy."""
        direct = f"{LOCALHOST}:{self.target}"
        assert direct in url, f"{url} is not a URL of {direct}"
        return url.replace(direct, f"{LOCALHOST}:{self.port}")

    def cut(self) -> None:
        """Reset every open connection; new ones are served."""
        self._run(self._cut())

    def refuse(self) -> None:
        """Reset every open connection and refuse new ones, as when the server is down."""
        self._run(self._refuse())

    def accept(self) -> None:
        """Take connections again."""
        self._run(self._accept())

    def hold(self) -> None:
        """Keep all bytes back, both ways. `heal` delivers them, however late, as networks do."""
        self._run(self._change(hold=True))

    def drop(self) -> None:
        """Lose all bytes, both ways, and leave connections open. `heal` resets those that lost some."""
        self._run(self._change(drop=True))

    def delay(self, seconds: float) -> None:
        """Deliver each reply that much later."""
        self._run(self._change(delay=seconds))

    def lose_reply(self, to: bytes = b"", *, times: int = 1) -> None:
        """Let the next requests that hold these bytes run on the server, but never answer.

        When the server's reply comes, it is thrown away and the connection is reset: the client cannot know
        whether its command ran, and it did. A pipeline counts as one request.
        """
        self._run(self._change(lose=to, lose_times=times))

    def heal(self) -> None:
        """Be a plain wire again."""
        self._run(self._heal())

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=5)

    async def _change(self, **rules: Any) -> None:
        for name, value in rules.items():
            setattr(self._rules, name, value)
        self._rules.changed.set()
        self._rules.changed = asyncio.Event()

    async def _heal(self) -> None:
        for link in [link for link in self._links if link.torn]:
            link.reset()
        await self._change(hold=False, drop=False, delay=0.0, lose_times=0)
        await self._accept()

    async def _accept(self) -> None:
        if self._listener is None:
            self._listener = await asyncio.start_server(self._serve, LOCALHOST, self.port)

    async def _refuse(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        await self._cut()

    async def _cut(self) -> None:
        for link in list(self._links):
            link.reset()

    async def _end_links(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream = await asyncio.open_connection(LOCALHOST, self.target)
        except OSError:
            writer.transport.abort()
            return
        link = _Link(self._rules, (reader, writer), upstream)
        self._links.add(link)
        try:
            await link.carry()
        finally:
            self._links.discard(link)


class _Rules:
    """What all connections of a proxy obey at present."""

    def __init__(self) -> None:
        self.hold = False
        self.drop = False
        self.delay = 0.0
        self.lose = b""
        self.lose_times = 0
        self.lost = 0
        self.changed = asyncio.Event()

    def takes_reply_of(self, request: bytes) -> bool:
        """Tell whether the reply to this request is to be lost, and count it."""
        if self.lose_times == 0 or self.lose not in request:
            return False
        self.lose_times -= 1
        return True


class _Link:
    """One client's connection and its counterpart to the server."""

    def __init__(
        self,
        rules: _Rules,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self.torn = False
        self._rules = rules
        self._client = client
        self._server = server
        self._reply_is_lost = False

    async def carry(self) -> None:
        """Carry bytes both ways until one side ends, then close both in order."""
        (from_client, to_client), (from_server, to_server) = self._client, self._server
        pumps = [
            asyncio.create_task(_pump(from_client, to_server, self._lets_request_pass)),
            asyncio.create_task(_pump(from_server, to_client, self._lets_reply_pass)),
        ]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        to_client.close()
        to_server.close()

    def reset(self) -> None:
        """End both sides at once; the client sees a connection reset by its peer."""
        for _, writer in (self._client, self._server):
            sock = writer.get_extra_info("socket")
            if not writer.transport.is_closing():
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            writer.transport.abort()

    async def _lets_request_pass(self, data: bytes) -> bool:
        if not await self._lets_pass():
            return False
        self._reply_is_lost = self._reply_is_lost or self._rules.takes_reply_of(data)
        return True

    async def _lets_reply_pass(self, _: bytes) -> bool:
        if self._reply_is_lost:
            self._rules.lost += 1
            self.reset()
            return False
        await asyncio.sleep(self._rules.delay)
        return await self._lets_pass()

    async def _lets_pass(self) -> bool:
        while self._rules.hold:
            await self._rules.changed.wait()
        self.torn = self.torn or self._rules.drop
        return not self._rules.drop


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, passes: Callable[[bytes], Awaitable[bool]]
) -> None:
    while data := await reader.read(_CHUNK):
        if await passes(data):
            writer.write(data)
            await writer.drain()
