"""``mlx_gemma4 agent``: a task that is done by calling functions. Steps on stderr, the answer on stdout."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, cast

from mlx_gemma4.cli.shared.consent import Consent, allowed_names
from mlx_gemma4.cli.shared.drafts import add_drafts, check_drafts, drafted, open_drafter
from mlx_gemma4.cli.shared.notes import note, plural
from mlx_gemma4.cli.shared.options import add_model, add_sampling, load_model, sampling
from mlx_gemma4.cli.shared.outputs import STDOUT, add_overwrite, text_output
from mlx_gemma4.cli.shared.signals import PROBLEM
from mlx_gemma4.cli.shared.steps import Steps
from mlx_gemma4.cli.shared.tools import add_tools, note_unbound, note_unwritten, opened_tools
from mlx_gemma4.printable import show

if TYPE_CHECKING:
    from collections.abc import Generator

    from mlx_gemma4.decoder.model import Model
    from mlx_gemma4.inputs.processor import Processor
    from mlx_gemma4.outputs.sample import Sampling
    from mlx_gemma4.outputs.tools.sources import Tools
    from mlx_gemma4.programs.agent import Agent, AgentLimits, Allow
    from mlx_gemma4.programs.agent_events import Ended, Stepped
    from mlx_gemma4.programs.agent_replay import Recording
    from mlx_gemma4.programs.agent_transcript import AgentTranscript
    from mlx_gemma4.programs.chat import Content

COMMON = (
    "--help",
    "--help-all",
    "--model",
    "--tools",
    "--yes",
    "--image",
    "--audio",
    "--max-steps",
    "--max-tokens",
    "--max-seconds",
    "--transcript",
    "--replay",
)
"""The options that ``--help`` shows."""
EXAMPLES = (
    'mlx_gemma4 agent "Turn off all lights." --tools lights.py --yes rooms',
    "mlx_gemma4 agent --replay run.jsonl",
)
FIXED = ("task", "system", "image", "audio", "video", "tools", "yes")
"""What ``--replay`` takes from its file."""
INTERRUPTED = 130
WORDS = {
    "steps": "The run was stopped after {steps} (--max-steps).",
    "tokens": "The run was stopped at {tokens} (--max-tokens).",
    "seconds": "The run was stopped after {seconds:.0f} s (--max-seconds).",
    "context": "The run was stopped: the context is full (--context).",
    "loop": "The run was stopped: the model repeats itself (--max-repeats).",
    "interrupted": "The run was interrupted.",
}
"""Why a run ended early."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", metavar="TASK", nargs="?", help="what to do; - reads it from stdin")
    add_model(parser)
    add_tools(parser, runs=True)
    parser.add_argument("--system", help="system message")
    parser.add_argument("--image", action="append", default=[], metavar="FILE", help="picture; can be repeated")
    parser.add_argument("--audio", action="append", default=[], metavar="FILE", help="recording; can be repeated")
    parser.add_argument("--video", action="append", default=[], metavar="FILE", help="video; can be repeated")
    parser.add_argument(
        "--max-steps", type=int, default=16, metavar="N", help="answers of the model, at most (default: 16)"
    )
    parser.add_argument(
        "--max-tokens", "-m", type=int, default=8192, metavar="N", help="tokens of all answers, at most (default: 8192)"
    )
    parser.add_argument(
        "--max-seconds", type=float, default=600.0, metavar="SECONDS", help="time of the run, at most (default: 600)"
    )
    parser.add_argument(
        "--max-repeats",
        type=int,
        default=3,
        metavar="N",
        help="end when the same calls have had the same results more often than this; 0: never (default: 3)",
    )
    parser.add_argument("--transcript", metavar="FILE", help="write each step to FILE, as lines of JSON")
    add_overwrite(parser)
    parser.add_argument("--replay", metavar="FILE", help="run a transcript again, with its results, and compare")
    parser.add_argument("--thinking", action="store_true", help="let the model think before it answers")
    parser.add_argument("--show-thoughts", action="store_true", help="print thoughts on stderr")
    parser.add_argument("--stats", action="store_true", help="print what the steps have computed on stderr")
    add_sampling(parser)
    add_drafts(parser)


@dataclass
class Job:
    """A task, and how it is done."""

    task: Content
    tools: Tools
    allow: Allow
    limits: AgentLimits
    system: str | None
    thinking: bool
    sampling: Sampling | None
    """None: as the options and the checkpoint say."""


def run(arguments: argparse.Namespace) -> int:
    check_drafts(arguments)
    with ExitStack() as stack:
        recording = None
        if arguments.replay is None:
            job = opened_job(arguments, stack)
        else:
            recording, job = replayed(arguments)
        transcript = None
        if arguments.transcript == STDOUT:
            raise ValueError("--transcript needs a file: the answer goes to stdout")
        if arguments.transcript is not None:
            inputs = [*arguments.image, *arguments.audio, *arguments.video, *arguments.tools]
            stream = stack.enter_context(
                text_output(arguments.transcript, "--transcript", overwrite=arguments.overwrite, inputs=inputs)
            )
            transcript = open_transcript(arguments.transcript, stream)
        model, processor = load_model(arguments)
        note_unwritten(processor, job.tools.schemas)
        note_unbound(processor, job.tools.schemas)
        agent = make_agent(arguments, job, model, processor)
        if transcript is not None:
            transcript.begin(job.task, **settings(arguments, job))
        steps, ended = work(agent, job.task, transcript, Steps(arguments.show_thoughts))
        if arguments.stats:
            note(statistics(steps, agent))
        code = finish(ended)
        return code if recording is None or ended.reason == "interrupted" else compare(recording, steps)


def work(agent: Agent, task: Content, transcript: AgentTranscript | None, steps: Steps) -> tuple[list[Stepped], Ended]:
    """Run, show and write; the steps and the end. Ctrl-C is an end, too."""
    from mlx_gemma4.programs.agent_events import Ended, Stepped

    made, ended = list[Stepped](), Ended("interrupted", "", 0, 0, 0.0)
    with closing(cast("Generator[Any, None, None]", agent.run(task))) as events:
        try:
            for event in events:
                if transcript is not None:
                    transcript.take(event)
                steps.show(event)
                if isinstance(event, Stepped):
                    made.append(event)
                    ended = Ended("interrupted", event.text, event.step, ended.tokens + event.tokens, 0.0)
                elif isinstance(event, Ended):
                    return made, event
        except KeyboardInterrupt:
            note("")
        finally:
            if transcript is not None:
                transcript.end(ended)
    return made, ended


def finish(ended: Ended) -> int:
    """Print the answer; the exit code."""
    if ended.reason == "done":
        show(ended.answer)
        return 0
    if ended.reason == "interrupted":
        note(WORDS["interrupted"])
        return INTERRUPTED
    if ended.answer:
        show(ended.answer)
    steps, tokens = plural(ended.steps, "step"), plural(ended.tokens, "token")
    note(WORDS[ended.reason].format(steps=steps, tokens=tokens, seconds=ended.seconds))
    return PROBLEM


def compare(recording: Recording, steps: list[Stepped]) -> int:
    """Say whether a run was as recorded; the exit code."""
    difference = recording.difference(steps)
    if difference is None:
        note(f"As recorded: {plural(len(steps), 'step')}.")
        return 0
    note(f"Not as recorded: {difference}.")
    return PROBLEM


def opened_job(arguments: argparse.Namespace, stack: ExitStack) -> Job:
    """What the options describe.

    Raises:
        ValueError: There is no task or no function.
    """
    from mlx_gemma4.inputs.messages import user_content
    from mlx_gemma4.programs.agent import AgentLimits

    if arguments.task is None:
        raise ValueError('There is no task; write mlx_gemma4 agent "what to do" --tools FILE')
    if not arguments.tools:
        raise ValueError("An agent needs functions: name a file of them with --tools FILE")
    text = sys.stdin.read() if arguments.task == "-" else arguments.task
    if not text.strip():
        raise ValueError("The task is empty; write what to do")
    limits = AgentLimits(arguments.max_steps, arguments.max_tokens, arguments.max_seconds, arguments.max_repeats)
    tools = stack.enter_context(opened_tools(arguments))
    assert tools is not None
    media = [{"type": kind, kind: path} for kind in ("image", "audio", "video") for path in getattr(arguments, kind)]
    return Job(
        user_content(text, media) if media else text,
        tools,
        Consent(allowed_names(arguments, tools)),
        limits,
        arguments.system,
        arguments.thinking,
        None,
    )


def replayed(arguments: argparse.Namespace) -> tuple[Recording, Job]:
    """What a transcript describes.

    Raises:
        ValueError: It cannot be read, or options say what it says, too.
    """
    from mlx_gemma4.outputs.sample import Sampling
    from mlx_gemma4.programs.agent import AgentLimits
    from mlx_gemma4.programs.agent_replay import RecordedTools, read_transcript

    given = [name if name == "task" else f"--{name}" for name in FIXED if getattr(arguments, name)]
    if given:
        raise ValueError(f"--replay takes the task and the functions from its file: leave out {', '.join(given)}")
    recording = read_transcript(arguments.replay)
    if recording.problem is not None:
        note(f"{recording.problem}.")
    began = recording.began
    try:
        limits, chosen = AgentLimits(**began["limits"]), Sampling(**began["sampling"])
        model, system, thinking = str(began["model"]), began["system"], bool(began["thinking"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"line 1 of {arguments.replay} cannot be read: {error}; is it a transcript?") from error
    if chosen.temperature > 0 and chosen.seed is None:
        note("The run drew its tokens without --seed: this one draws others.")
    arguments.model = arguments.model or model
    tools = RecordedTools(recording, arguments.replay)
    system = None if system is None else str(system)
    return recording, Job(recording.task(), tools, tools.allow, limits, system, thinking, chosen)


def open_transcript(path: str, stream: Any) -> AgentTranscript:
    from mlx_gemma4.programs.agent_transcript import AgentTranscript, media_folder

    return AgentTranscript(stream, media_folder(path))


def make_agent(arguments: argparse.Namespace, job: Job, model: Model, processor: Processor) -> Agent:
    from mlx_gemma4.programs.agent import Agent

    job.sampling = job.sampling or sampling(arguments, processor.generation)
    return Agent(
        model,
        processor,
        job.tools,
        allow=job.allow,
        limits=job.limits,
        system=job.system,
        enable_thinking=job.thinking,
        sampling=job.sampling,
        drafter=open_drafter(arguments),
    )


def settings(arguments: argparse.Namespace, job: Job) -> dict[str, Any]:
    """What the first line of a transcript says beside the task."""
    from mlx_gemma4.checkpoint.hub import default_model

    assert job.sampling is not None
    return {
        "model": arguments.model or default_model(),
        "system": job.system,
        "tools": job.tools.schemas,
        "limits": asdict(job.limits),
        "sampling": asdict(job.sampling),
        "thinking": job.thinking,
    }


def statistics(steps: list[Stepped], agent: Agent) -> str:
    """What the steps have computed, in a line."""
    session = agent.conversation.session
    prompts, tokens = sum(step.prompt_tokens for step in steps), sum(step.tokens for step in steps)
    return (
        f"{plural(len(steps), 'step')}: {prompts:,} positions of prompts, {plural(tokens, 'token')} of answers; "
        f"{session.position:,} positions held" + drafted(agent.conversation.drafter)
    )
