"""One model and all that requests need of it: the engine, limits, counts. No sockets."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import BinaryIO, TypeVar

import mlx.core as mx

from mlx_gemma4.decoder.model import Model
from mlx_gemma4.inputs.processor import Processor
from mlx_gemma4.outputs.drafter import Drafter
from mlx_gemma4.outputs.together import compute_together
from mlx_gemma4.prefixes.store import PrefixStore
from mlx_gemma4.serve.engine import Engine, Job, Work
from mlx_gemma4.serve.events import ChatEvent, SpeechEvent
from mlx_gemma4.serve.hearing import Hearing
from mlx_gemma4.serve.limits import Limits
from mlx_gemma4.serve.metrics import Metrics
from mlx_gemma4.serve.outbox import Outbox
from mlx_gemma4.serve.protocols.failure import Failure
from mlx_gemma4.serve.protocols.speech_answer import SpeechAnswer
from mlx_gemma4.serve.protocols.speech_request import SpeechRequest
from mlx_gemma4.serve.work.chat import Answerer, Question, answer
from mlx_gemma4.serve.work.conversation import Parts, converse
from mlx_gemma4.serve.work.hearing import Inbox, hear
from mlx_gemma4.serve.work.histories import Histories
from mlx_gemma4.serve.work.questions import Questions
from mlx_gemma4.serve.work.speech import TARGET, Recognition, Transcribers, instruction_of, recognise

T = TypeVar("T")


class Service:
    """Answers requests with one model.

    Args:
        load: Loads the checkpoint. It runs in the engine's thread, which owns the model from then on.
        names: What clients may call the model; ``/v1/models`` shows the first one.
        most_sessions: Requests that are computed at the same time.
        most_waiting: Requests that may wait.
        language: What is spoken if a client does not say; an English name.
        load_drafter: Makes what guesses tokens, in the engine's thread; None: answers are decoded token by token.

    Attributes:
        questions: Makes questions of requests.
        histories: Makes prompts of conversations.

    Raises:
        ValueError: What ``load`` has raised.
    """

    def __init__(
        self,
        load: Callable[[], tuple[Model, Processor]],
        names: Sequence[str],
        *,
        most_sessions: int = 4,
        most_waiting: int = 32,
        language: str = "English",
        limits: Limits | None = None,
        load_drafter: Callable[[], Drafter | None] = lambda: None,
    ) -> None:
        self.language = language
        self.names = tuple(dict.fromkeys(names))
        self.limits = limits or Limits()
        self.metrics = Metrics()
        self.created = int(time.time())
        self.engine = Engine(most_sessions=most_sessions, most_waiting=most_waiting, together=compute_together)
        try:
            self.model, self.processor = self.engine.run(load)
            self.store = self.engine.run(lambda: PrefixStore(self.model))
            self.drafter = self.engine.run(load_drafter)
            self.transcribers = self.engine.run(lambda: Transcribers(self.model, self.processor))
        except BaseException:
            self.engine.close()
            raise
        self._answerer = Answerer(self.model, self.processor, self.store, self.drafter, lambda: self.engine.resumed)
        self.questions = Questions(self.model, self.processor, self.limits)
        self.histories = Histories(self.questions, self.processor, self.limits.answer_tokens)

    @property
    def takes(self) -> tuple[str, ...]:
        """What the checkpoint takes."""
        config = self.processor.config
        pictures = ("image", "video") if config.vision_config is not None else ()
        return ("text", *pictures, *(("audio",) if config.audio_config is not None else ()))

    def warm_up(self) -> None:
        """Compute the usual instruction, and load what hearing needs, before the first client waits for it."""
        if self.processor.config.audio_config is not None:
            instruction = instruction_of(SpeechRequest(translates=False), self.language)
            self.engine.run(lambda: self.transcribers.warm_up(instruction))

    def close(self) -> None:
        """Cancel what is computed, and end the engine."""
        self.engine.close()

    def check_model(self, name: str | None) -> None:
        """Raise a Failure if a client asks for another model."""
        if name is not None and name not in self.names:
            raise Failure(
                404,
                f"The model {name[:100]!r} does not exist; this server has {self.names[0]}. --name adds other names",
                param="model",
                code="model_not_found",
            )

    def ask(self, question: Question, outbox: Outbox[ChatEvent], *, takes_place: bool = True) -> Job:
        """Let the engine answer.

        Args:
            takes_place: False for an answer in a session that has a place already.

        Raises:
            Busy: There is no room for another request.
        """

        def begin(job: Job) -> Work:
            return answer(question, self._answerer, outbox)

        return self.submit(begin, outbox, takes_place=takes_place)

    def recognise(
        self, request: SpeechRequest, file: BinaryIO, outbox: Outbox[SpeechEvent]
    ) -> tuple[Job, SpeechAnswer]:
        """Let the engine transcribe a recording.

        Args:
            file: May be closed when the job has ended, or was cancelled.

        Raises:
            Busy: There is no room for another request.
            Failure: The checkpoint takes no sound.
        """
        if self.processor.config.audio_config is None:
            raise Failure(400, "This checkpoint takes no sound", param="file", code="unsupported_value")
        spoken = request.languages[0] if request.languages else self.language
        recognition = Recognition(request, file, instruction_of(request, self.language), self.limits.sound_seconds)
        job = self.submit(lambda job: recognise(recognition, self.transcribers, outbox, job.wake), outbox)
        return job, SpeechAnswer(request, TARGET if request.translates else spoken)

    def hear(self, inbox: Inbox, outbox: Outbox[Hearing]) -> Job:
        """Let the engine hear what comes into an inbox.

        Raises:
            Busy: All sessions are in use: live sound does not wait for one.
            Failure: The checkpoint takes no sound.
        """
        if self.processor.config.audio_config is None:
            raise Failure(400, "This checkpoint takes no sound", code="unsupported_value")
        job = self.submit(lambda job: hear(inbox, self.transcribers, self.language, outbox), outbox, waits=False)
        inbox.on_arrival = job.wake
        return job

    def converse(self, inbox: Inbox, outbox: Outbox[Hearing]) -> Job:
        """Let the engine hear the turns of a conversation, whose answers are asked for.

        Raises:
            Busy: All sessions are in use.
        """
        parts = Parts(self.processor, self.store, self.transcribers, self.language, self.questions.context)
        job = self.submit(lambda job: converse(inbox, parts, outbox), outbox, waits=False)
        inbox.on_arrival = job.wake
        return job

    def submit(
        self, begin: Callable[[Job], Work], outbox: Outbox[T], *, waits: bool = True, takes_place: bool = True
    ) -> Job:
        """Queue a job whose events go to an outbox.

        Args:
            waits: Whether it may wait for a session.
            takes_place: False for a part of a session that has a place already.

        Raises:
            Busy: There is no room for another request.
        """
        job = self.engine.submit(begin, outbox.end, waits=waits, takes_place=takes_place)
        outbox.on_room = job.wake
        return job

    def figures(self) -> str:
        """The text of ``/metrics``."""
        gauges = {
            "sessions": self.engine.active,
            "waiting": self.engine.waiting,
            "memory_bytes": mx.get_active_memory(),
        }
        counts = {("turns_total", turn.name.lower()): count for turn, count in self.engine.turns.items()}
        if self.drafter is not None:
            counts["drafted_tokens_total", "all"] = self.drafter.drafted
            counts["drafted_tokens_total", "right"] = self.drafter.accepted
        return self.metrics.text(gauges, counts)
