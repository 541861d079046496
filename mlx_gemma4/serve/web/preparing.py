"""Requests to questions, without the event loop waiting: media are fetched, then decoded in threads."""

from __future__ import annotations

from collections.abc import Sequence

from mlx_gemma4.serve.protocols.chat_messages import media_urls
from mlx_gemma4.serve.protocols.chat_request import ChatRequest
from mlx_gemma4.serve.service import Service
from mlx_gemma4.serve.web.fetching import Fetcher
from mlx_gemma4.serve.web.threads import Threads
from mlx_gemma4.serve.work.chat import Question
from mlx_gemma4.serve.work.questions import Tools


class Preparing:
    """Makes questions.

    Args:
        schemes: Kinds of addresses that may be fetched (``Fetcher``).

    Attributes:
        fetcher: Fetches what is named by address.
    """

    def __init__(self, service: Service, schemes: Sequence[str] = ()) -> None:
        self._questions, self._threads = service.questions, Threads()
        self.fetcher = Fetcher(schemes, service.limits)

    async def prepare(self, request: ChatRequest) -> tuple[Question, Tools | None]:
        """The question of a request, and the functions that the model may call.

        Raises:
            Failure: The request cannot be answered.
        """
        fetched = await self.fetcher.fetch(media_urls(request.messages))
        return await self._threads.run(lambda: self._questions.prepare(request, fetched))
