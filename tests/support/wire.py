"""Sends a provider's requests to a simulator over a real socket, without syncd's own transport in between."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, TypeVar

import aiohttp
from yarl import URL

from syncd.providers.contract import Answer, Answered, Auth, Outcome, Provider, Request, Response, StreamArguments

T = TypeVar("T")


class Wire:
    """A session with one CRM: asks, pulls and converses as the pipelines would."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str, auth: Auth, provider: Provider) -> None:
        self._session, self._base_url, self._auth, self.provider = session, base_url, auth, provider

    async def send(self, request: Request) -> Response:
        """Send one request and return its complete answer."""
        query = [*(self._auth.query.items() if request.is_signed else ()), *request.query]
        url = URL(f"{self._base_url}{request.path}", encoded=True).with_query(query)
        data = aiohttp.FormData(request.form) if request.form else request.json
        headers = {"accept": request.accept}
        async with self._session.request(request.verb, url, data=data, headers=headers) as answer:
            kept = {name.lower(): value for name, value in answer.headers.items()}
            return Response(answer.status, kept, await answer.read())

    async def pull(self, stream: str, arguments: StreamArguments) -> list[Any]:
        """Ask for one stream and return the rows of the answer."""
        read = self.provider.streams[stream]
        response = await self.send(read.request(arguments))
        refusal = self.provider.judge(response, read.operation)
        assert refusal is None, refusal
        return [row for batch in read.decode(response) for row in batch.rows]

    async def converse(self, conversation: Generator[Request, Answer, Outcome]) -> Outcome:
        """Hold a conversation to its end."""
        given: Answer | None = None
        while True:
            try:
                request = next(conversation) if given is None else conversation.send(given)
            except StopIteration as end:
                outcome: Outcome = end.value
                return outcome
            given = Answered(await self.send(request))
