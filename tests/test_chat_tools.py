"""Functions in a conversation of turns: called, allowed, answered, and what the template makes of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from golden import named
from light_tools import BATH, CALL, ran, written
from reference_cases import media_file

from mlx_gemma4 import Conversation, Model, Processor, Session
from mlx_gemma4.cli import main
from mlx_gemma4.cli.chat_loop import Chat
from mlx_gemma4.inputs.prompt import Prompt
from mlx_gemma4.inputs.text.template import ChatTemplate
from mlx_gemma4.outputs.channels import Kind
from mlx_gemma4.outputs.generate import GenerationResponse
from mlx_gemma4.outputs.tools.sources import Tools
from mlx_gemma4.outputs.tools.toolbox import load_tools

WRITES_TOOLS = """{{ bos_token }}{% for tool in tools or [] %}<|tool>{{ tool.function.name }}<tool|>{% endfor %}
{%- for message in messages %}<|turn>{{ message.role }}
{% for call in message.tool_calls or [] %}<|tool_call>call:{{ call.function.name }}{{ call.function.arguments | tojson }}<tool_call|>{% endfor %}
{%- for each in message.tool_responses or [] %}<|tool_response>{{ each.name }}={{ each.response }}<tool_response|>{% endfor %}
{%- if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}{{ part.text or "<|" ~ part.type ~ "|>" }}{% endfor %}{% endif %}
{%- if message.content or not message.tool_responses %}<turn|>
{% endif %}{% endfor %}{% if add_generation_prompt and not messages[-1].tool_responses %}<|turn>model
{% endif %}"""  # noqa: E501
STOPS = '''
def stops(x: int = 1) -> str:
    """Be interrupted."""
    raise SystemExit
'''


@pytest.fixture
def tools(tmp_path: Path) -> Tools:
    return written(tmp_path, STOPS)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The prompts that scripted answers were given to."""
    return []


@pytest.fixture
def writing(demo: tuple[Model, Processor]) -> tuple[Model, Processor]:
    """The demo with a template that writes tools."""
    model, processor = demo
    return model, Processor(processor.config, processor.tokenizer, ChatTemplate(WRITES_TOOLS, {}))


def scripted(
    monkeypatch: pytest.MonkeyPatch, asked: list[str], *turns: Sequence[tuple[Kind, str]] | BaseException
) -> None:
    """Answers that are what they are told to be, in a session that holds them."""
    left = list(turns)

    def respond(
        model: Model, processor: Processor, prompt: Prompt, *, session: Session, before: list[int], **_: object
    ) -> Iterator[GenerationResponse]:
        session.extend(prompt)
        asked.append(processor.tokenizer.decode([*before, *prompt.token_ids.tolist()], skip_special=False))
        turn = left.pop(0)
        if isinstance(turn, BaseException):
            raise turn
        for number, (kind, text) in enumerate(turn):
            tokens = processor.tokenizer.encode_markup(text)
            session.extend(tokens)
            reason = "stop" if number + 1 == len(turn) else None
            yield GenerationResponse(text, kind, tuple(tokens), len(prompt), 1.0, 1, 1.0, 1.0, 1.0, reason)

    monkeypatch.setattr("mlx_gemma4.programs.chat.stream_generate", respond)


def said(responses: Iterator[GenerationResponse]) -> str:
    return "".join(response.text for response in responses if response.kind == "text")


def test_a_result_goes_back_in_the_templates_form(
    writing: tuple[Model, Processor], monkeypatch: pytest.MonkeyPatch, tools: Tools, asked: list[str]
) -> None:
    """Behind its call, in the model's turn; what is said behind it belongs to the same message."""
    scripted(monkeypatch, asked, [("text", "Wait."), CALL, BATH], [("text", "Done.")], [("text", "Yes.")])
    conversation = Conversation(*writing, tools=tools.schemas)
    assert said(conversation.ask("Lights on!")) == "Wait."
    first, second = conversation.calls
    assert (first.name, first.arguments, second.arguments) == ("lights", {"room": "hall"}, {"room": "bath"})
    assert said(conversation.reply({second.id: "bath on", first.id: "hall on"})) == "Done."
    assert conversation.calls == []
    assert said(conversation.ask("Really?")) == "Yes."
    wanted, resumed, last = asked
    assert "<|tool>lights<tool|>" in wanted
    calls = '<|tool_call>call:lights{"room": "hall"}<tool_call|><|tool_call>call:lights{"room": "bath"}<tool_call|>'
    results = "<|tool_response>lights=hall on<tool_response|><|tool_response>lights=bath on<tool_response|>"
    assert resumed.endswith(f"<|turn>assistant\nWait.<turn|>\n<|turn>assistant\n{calls}{results}")
    assert last.endswith(f"{calls}{results}Done.<turn|>\n<|turn>user\nReally?<turn|>\n<|turn>model\n")


def test_a_template_that_knows_no_results_gets_messages(
    demo: tuple[Model, Processor], monkeypatch: pytest.MonkeyPatch, tools: Tools, asked: list[str]
) -> None:
    scripted(monkeypatch, asked, [CALL], [("text", "Done.")])
    conversation = Conversation(*demo, tools=tools.schemas)
    list(conversation.ask("Lights on!"))
    (call,) = conversation.calls
    list(conversation.reply({call.id: "hall on"}))
    assert asked[-1].endswith("<|turn>tool\nhall on<turn|>\n<|turn>model\n")
    assert conversation.messages[-2:] == [
        {"role": "tool", "tool_call_id": call.id, "name": "lights", "content": "hall on"},
        {"role": "assistant", "content": "Done."},
    ]


def test_a_result_that_is_missing(
    writing: tuple[Model, Processor], monkeypatch: pytest.MonkeyPatch, tools: Tools, asked: list[str]
) -> None:
    scripted(monkeypatch, asked, [CALL])
    conversation = Conversation(*writing, tools=tools.schemas)
    with pytest.raises(ValueError, match=r"^The last answer called no functions: there is nothing to reply to$"):
        conversation.reply({})
    list(conversation.ask("Lights on!"))
    with pytest.raises(ValueError, match=r"^Results are missing for the calls call_1 of the last answer$"):
        conversation.reply({"call_2": "on"})


def test_an_answer_that_is_stopped_calls_nothing(
    writing: tuple[Model, Processor], monkeypatch: pytest.MonkeyPatch, tools: Tools, asked: list[str]
) -> None:
    scripted(monkeypatch, asked, [("text", "Wait."), CALL, ("text", "Done.")])
    conversation = Conversation(*writing, tools=tools.schemas)
    responses = conversation.ask("Lights on!")
    assert [next(responses).kind, next(responses).kind] == ["text", "tool_call"]
    responses.close()  # type: ignore[attr-defined]
    assert conversation.calls == []
    assert conversation.messages[-1] == {"role": "assistant", "content": "Wait."}


def test_an_error_leaves_the_conversation_as_it_was(
    demo: tuple[Model, Processor], monkeypatch: pytest.MonkeyPatch, asked: list[str]
) -> None:
    """Also one in the middle of an answer; the next one is right again."""
    conversation = Conversation(*demo)
    with monkeypatch.context() as patch:
        scripted(patch, asked, [("text", "One.")], ValueError("NaN"))
        list(conversation.ask("First?"))
        before = list(conversation.messages)
        with pytest.raises(ValueError, match=r"^NaN$"):
            list(conversation.ask("Second?"))
        assert conversation.messages == before
    picture = [
        {"type": "image", "image": media_file("picture-01.png")},
        {"type": "text", "text": "Describe the image."},
    ]
    fresh = Conversation(*demo)
    fresh.messages = list(before)
    assert said(conversation.ask(picture)) == said(fresh.ask(picture))


def typing(monkeypatch: pytest.MonkeyPatch, *lines: str | type[BaseException], terminal: bool = True) -> None:
    left = list(lines)

    def read(prompt: str = "") -> str:
        if not left:
            raise EOFError
        line = left.pop(0)
        if not isinstance(line, str):
            raise line
        return line

    monkeypatch.setattr("builtins.input", read)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: terminal, raising=False)


def chat(checkpoint: tuple[Model, Processor], tools: Tools | None = None) -> Conversation:
    """Run a chat on what is typed; the conversation that it was."""
    conversation = Conversation(*checkpoint, tools=None if tools is None else tools.schemas)
    Chat(conversation, checkpoint[1], {}, tools=tools, stats=False).loop()
    return conversation


@pytest.mark.parametrize(("typed", "expected"), [("y", ["hall"]), ("n", []), ("", []), (KeyboardInterrupt, [])])
def test_a_call_is_run_only_if_it_is_allowed(
    writing: tuple[Model, Processor],
    monkeypatch: pytest.MonkeyPatch,
    tools: Tools,
    asked: list[str],
    capsys: pytest.CaptureFixture[str],
    typed: str | type[BaseException],
    expected: list[str],
) -> None:
    """Each call is asked about; text goes to stdout, and calls do not."""
    scripted(monkeypatch, asked, [("text", "Wait."), CALL], [("text", "Done.")])
    typing(monkeypatch, "Lights on!", typed)
    chat(writing, tools)
    out, err = capsys.readouterr()
    assert (ran(tools), out) == (expected, "Wait.\nDone.\n")
    assert "Run lights(room='hall')? [y/N]\n" in err
    results = {"y": "hall on", KeyboardInterrupt: "The user stopped it."}
    assert f"lights={results.get(typed, 'The user did not allow it.')}<tool_response|>" in asked[-1]


def test_what_cannot_be_run_is_told_to_the_model(
    writing: tuple[Model, Processor],
    monkeypatch: pytest.MonkeyPatch,
    tools: Tools,
    asked: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Calls that are not as declared, and functions that fail: the chat goes on."""
    calls: list[tuple[Kind, str]] = [("tool_call", "call:lights{}"), ("tool_call", "call:stops{}")]
    scripted(monkeypatch, asked, calls, [("text", "Sorry.")], [("text", "Yes.")])
    typing(monkeypatch, "Lights on!", "y", "Really?")
    chat(writing, tools)
    assert "lights=error: the argument 'room' is missing<tool_response|>" in asked[1]
    assert "stops=error: SystemExit: <tool_response|>" in asked[1]
    out, err = capsys.readouterr()
    assert out == "\nSorry.\nYes.\n"
    assert "(lights was called in a way that is not declared: the argument 'room' is missing)" in err


def test_without_a_terminal_no_call_is_run(
    writing: tuple[Model, Processor],
    monkeypatch: pytest.MonkeyPatch,
    tools: Tools,
    asked: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A piped "y" is a message."""
    scripted(monkeypatch, asked, [CALL], [("text", "Sorry.")], [("text", "Yes?")])
    typing(monkeypatch, "Lights on!", "y", terminal=False)
    conversation = chat(writing, tools)
    assert "lights(room='hall') was not run: there is no terminal to ask on." in capsys.readouterr().err
    assert ran(tools) == []
    assert conversation.messages[-2]["content"] == [{"type": "text", "text": "y"}]


def test_declarations_are_never_run(
    writing: tuple[Model, Processor],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    asked: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "tools.json"
    path.write_text('[{"name": "lights", "parameters": {"properties": {"room": {"type": "string"}}}}]')
    scripted(monkeypatch, asked, [CALL], [("text", "Sorry.")])
    typing(monkeypatch, "Lights on!")
    chat(writing, load_tools(path))
    assert "lights(room='hall') was not run: it is only declared." in capsys.readouterr().err
    assert "lights=error: lights is not available<tool_response|>" in asked[-1]


def test_a_model_that_calls_forever_is_stopped(
    writing: tuple[Model, Processor],
    monkeypatch: pytest.MonkeyPatch,
    tools: Tools,
    asked: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("mlx_gemma4.cli.chat_loop.ROUNDS", 2)
    scripted(monkeypatch, asked, *[[("tool_call", "call:doors{}")]] * 3, [("text", "Yes?")])
    typing(monkeypatch, "Lights on!", "Are you there?")
    chat(writing, tools)
    out, err = capsys.readouterr()
    assert "(stopped after 2 rounds of calls)" in err and out.endswith("Yes?\n")


def test_a_file_that_cannot_be_read_is_not_kept(
    demo: tuple[Model, Processor],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is told at once, and the messages behind it are answered."""
    broken = tmp_path / "broken one.png"
    broken.write_text("no picture")
    lines = (
        f"/image {broken}",
        f"{broken} what is this?",
        f"/image {media_file('picture-01.png')}",
        "Describe the image.",
    )
    typing(monkeypatch, *lines)
    chat(demo)
    out, err = capsys.readouterr()
    assert out == f"{named('picture-01.png')}\n"
    assert err.count("error: ") == 2 and "broken one.png" in err


def test_a_message_that_begins_with_a_picture(
    demo: tuple[Model, Processor],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As it is when the file is dropped on the terminal; and a file that is dropped alone waits for its message."""
    picture = tmp_path / "my photo.png"
    picture.write_bytes(media_file("picture-01.png").read_bytes())
    dropped = str(picture).replace(" ", "\\ ")
    typing(monkeypatch, f"{dropped} Describe the image.", "/reset", f"{dropped} ", "Describe the image.")
    conversation = chat(demo)
    out, err = capsys.readouterr()
    assert out == f"{named('picture-01.png')}\n" * 2
    assert err == f"(image {picture} goes with the next message)\n" * 2
    assert len(conversation.messages) == 2


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("/nonsense now", "error: There is no command (/help lists them) called /nonsense"),
        ("/", "error: There is no command (/help lists them) called /"),
        ("/home/x/nowhere.png what?", "error: There is no file at '/home/x/nowhere.png'"),
        ("/image", "error: Type the name of a file after the command"),
    ],
)
def test_lines_that_mean_nothing(
    demo: tuple[Model, Processor],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    line: str,
    error: str,
) -> None:
    typing(monkeypatch, line)
    conversation = chat(demo)
    assert tuple(capsys.readouterr()) == ("", f"{error}\n")
    assert conversation.messages == []


def test_a_message_that_begins_with_another_path(
    demo: tuple[Model, Processor], monkeypatch: pytest.MonkeyPatch, asked: list[str]
) -> None:
    """It is a message, and no unknown command."""
    scripted(monkeypatch, asked, [("text", "Users.")])
    typing(monkeypatch, "/etc/passwd holds what?")
    chat(demo)
    assert "/etc/passwd holds what?" in asked[-1]


def test_a_message_that_fails_lets_go_of_its_files(
    demo: tuple[Model, Processor],
    monkeypatch: pytest.MonkeyPatch,
    asked: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    scripted(monkeypatch, asked, ValueError("NaN"), [("text", "Hello.")])
    typing(monkeypatch, f"/image {media_file('picture-01.png')}", "What is this?", "Hello?")
    conversation = chat(demo)
    error = "error: NaN (the message is not in the conversation; its files are no longer attached)"
    assert error in capsys.readouterr().err
    assert [message["content"] for message in conversation.messages] == [[{"type": "text", "text": "Hello?"}], "Hello."]


@pytest.mark.parametrize("command", ["generate", "chat", "live"])
def test_tools_that_cannot_be_read(command: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The same in every command, before the model is loaded."""
    more = {"generate": ["-p", "x"], "chat": [], "live": ["--no-camera"]}[command]
    assert main([command, "--model", "nowhere", "--tools", str(tmp_path / "absent.json"), *more]) == 2
    assert "There is no JSON file of tools at " in capsys.readouterr().err


def test_a_template_that_leaves_tools_out(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "tools.json").write_text('[{"name": "lights"}]')
    options = ["--model", "demo", "--dtype", "float32", "--temp", "0", "-m", "1"]
    assert main(["generate", *options, "-p", "x", "--tools", str(tmp_path / "tools.json")]) == 0
    assert "The checkpoint's chat template does not write tools" in capsys.readouterr().err
