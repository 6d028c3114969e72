"""The pages: ``/livez`` (the loop turns), ``/readyz`` (as ``health`` says), ``/metrics``."""

from __future__ import annotations

from types import TracebackType

from aiohttp import web

from syncd.domain.errors import ConfigurationError
from syncd.ops.health import Health

_PAGES = "syncd\n\n/livez\n/readyz\n/metrics\n"


class OpsServer:
    """An HTTP server for the length of an ``async with`` block; port 0 in the settings means there is none."""

    def __init__(self, health: Health, host: str, port: int) -> None:
        self._health = health
        self._host, self._port = host, port
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> OpsServer:
        if self._port:
            self._runner = web.AppRunner(self._application(), access_log=None, handle_signals=False, shutdown_timeout=1)
            await self._runner.setup()
            await self._listen(self._runner)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _listen(self, runner: web.AppRunner) -> None:
        try:
            await web.TCPSite(runner, self._host, self._port).start()
        except OSError as error:
            await runner.cleanup()
            raise ConfigurationError(
                f"the health pages cannot listen on {self._host}:{self._port} ({error.strerror}); "
                "set SYNCD_OPS_PORT to a free port, or to 0 for none"
            ) from None

    def _application(self) -> web.Application:
        application = web.Application()
        application.add_routes(
            [
                web.get("/", self._index),
                web.get("/livez", self._livez),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics),
            ]
        )
        return application

    async def _index(self, _: web.Request) -> web.Response:
        return web.Response(text=_PAGES)

    async def _livez(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        found = await self._health.readiness()
        body = {"ready": found.is_ready, "waiting_for": found.waiting_for, "accounts": dict(found.accounts)}
        return web.json_response(body, status=200 if found.is_ready else 503)

    async def _metrics(self, _: web.Request) -> web.Response:
        body = await self._health.refresh_metrics()
        return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})
