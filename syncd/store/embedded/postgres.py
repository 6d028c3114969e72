"""The embedded Postgres as its users see it: start it or join it, use its URL, leave it."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from syncd.store.embedded.installation import Installation, survey
from syncd.store.embedded.layout import Layout
from syncd.store.embedded.lock import FileLock, alone
from syncd.store.embedded.server import halt
from syncd.store.embedded.serving import serve
from syncd.store.embedded.socket import Answer, probe, url
from syncd.store.embedded.troubles import explained


@dataclass(slots=True)
class _Use:
    """That we use the server: ``users`` is our share of the lock that says so."""

    installation: Installation
    users: FileLock
    socket_dir: Path


class EmbeddedPostgres:
    """One process' use of the Postgres under ``data_dir``, shared with every other process that names it.

    ``binaries`` names a directory of Postgres programs to use instead of the wheel's. ``is_durable=False`` gives up
    fsync, for throw-away clusters only. Methods raise ConfigurationError for what a person must change, and
    InfrastructureError for what may pass (a full disk, a server that does not answer within ``timeout_s``).
    """

    def __init__(
        self, data_dir: Path, *, binaries: Path | None = None, is_durable: bool = True, timeout_s: float = 120.0
    ) -> None:
        self._layout = Layout.of(data_dir)
        self._configured = binaries
        self._is_durable = is_durable
        self._timeout_s = timeout_s
        self._use: _Use | None = None

    async def start(self) -> str:
        """Start the server, or join the one that runs, and return the URL of syncd's database on it."""
        if self._use is None:
            with explained(self._layout):
                self._use = await self._enter()
        return url(self._use.socket_dir)

    async def revive(self) -> bool:
        """Start the server again if it is gone, with all that was committed; tell whether it was gone.

        The URL stays as it was. Call it after ``start``, whenever connections are refused.
        """
        use = self._use
        if use is None or await probe(use.socket_dir) is not Answer.ABSENT:
            return False
        with explained(self._layout):
            async with self._start_lock(use.installation):
                use.socket_dir = await serve(use.installation, timeout_s=self._timeout_s)
        return True

    async def stop(self) -> None:
        """Leave the server; the last to leave stops it. Calling it again does nothing."""
        use, self._use = self._use, None
        if use is None:
            return
        try:
            with explained(self._layout):
                async with self._start_lock(use.installation):
                    await _leave(use.installation, use.users)
        finally:
            use.users.close()

    async def __aenter__(self) -> str:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _enter(self) -> _Use:
        installation = survey(self._layout, self._configured, is_durable=self._is_durable)
        async with self._start_lock(installation):
            users = FileLock(self._layout.users_lock, installation.owner)
            try:
                users.try_shared()  # granted: who asks for it alone holds the start lock, which is ours now
                return _Use(installation, users, await serve(installation, timeout_s=self._timeout_s))
            except BaseException:
                await _leave(installation, users)
                raise

    def _start_lock(self, installation: Installation) -> AbstractAsyncContextManager[None]:
        return alone(self._layout.start_lock, installation.owner, timeout_s=self._timeout_s)


async def _leave(installation: Installation, users: FileLock) -> None:
    """Give up our share; stop the server if nobody else has one. The caller holds the start lock alone."""
    try:
        if users.try_alone():
            await halt(installation)
    finally:
        users.close()
