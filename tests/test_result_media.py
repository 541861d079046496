"""Pictures and sound that functions return: where templates take them, and that the session holds them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from light_tools import BATH, CALL
from reference_cases import media_file
from test_assistant import answered, assert_same, assistant
from test_assistant import scripted as scripted_live
from test_chat_tools import said, scripted

from mlx_gemma4 import Conversation, Model, Processor
from mlx_gemma4.inputs.content import Content
from mlx_gemma4.inputs.messages import Message
from mlx_gemma4.inputs.text.template import ChatTemplate
from mlx_gemma4.inputs.vision.image import load_image
from mlx_gemma4.live.talk.events import Said
from mlx_gemma4.outputs.tools.messages import ResultForm, result_form
from mlx_gemma4.outputs.tools.result import ToolResult

PICTURE, OTHER = (load_image(media_file(name)) for name in ("picture-01.png", "picture-02.png"))
SOUND = np.linspace(-1, 1, 1600, dtype=np.float32)
SEEN = ToolResult.of("Seen:", {"type": "image", "image": PICTURE})
HEARD = ToolResult.of({"type": "image", "image": OTHER}, {"type": "audio", "audio": SOUND})

PARTS = """{% macro parts(content) %}{% if content is string %}{{ content }}{% else %}{% for part in content -%}
{{ part.text if part.type == 'text' else '<|' + part.type + '|>' }}{% endfor %}{% endif %}{% endmacro %}"""
# Each of these writes results as a template of the kind that its name says.
APART = (
    PARTS
    + """{% for m in messages %}{% if m.role == 'tool' -%}
<|tool_response>{{ m.name }}={{ m.content if m.content is string else m.content[0].text }}<tool_response|>
{%- if m.content is not string %}{{ parts(m.content[1:]) }}{% endif %}
{%- else %}{% if m.role == 'user' or messages[loop.index0 - 1].role == 'user' %}<|turn>{{ m.role }}
{% endif %}{% for c in m.tool_calls or [] %}<|tool_call>{{ c.function.name }}<tool_call|>{% endfor %}
{%- for r in m.tool_responses or [] %}<|tool_response>{{ r.name }}={{ r.response }}<tool_response|>{% endfor %}
{{- parts(m.content) }}{% if m.content %}<turn|>
{% endif %}{% endif %}{% endfor %}"""
)
JOINED = (
    PARTS
    + """{% for m in messages %}<|turn>{{ m.role }}
{% for c in m.tool_calls or [] %}<|tool_call>{{ c.function.name }}<tool_call|>{% endfor %}
{%- for r in m.tool_responses or [] %}<|tool_response>{{ r.name }}={{ r.response }}<tool_response|>{% endfor %}
{{- parts(m.content) }}{% if m.content or not m.tool_responses %}<turn|>
{% endif %}{% endfor %}"""
)
TURNS = (
    PARTS
    + """{% for m in messages %}<|turn>{{ m.role }}
{% for c in m.tool_calls or [] %}<|tool_call>{{ c.function.name }}<tool_call|>{% endfor %}{{ parts(m.content) }}<turn|>
{% endfor %}"""
)
USERS = (
    PARTS
    + """{% for m in messages %}<|turn>{{ m.role }}
{% if m.role == 'user' %}{{ parts(m.content) }}{% else %}{{ m.content }}{% endif %}<turn|>
{% endfor %}"""
)
ASKED = "<|turn>user\nLook!"
TEMPLATES = {
    APART: (
        ResultForm(joined=False, shows_media=True),
        "<|tool_response>lights=Seen:\n[image 1]<tool_response|><|image|>"
        "<|tool_response>lights=[image 1]\n[audio 1]<tool_response|><|image|><|audio|>Done.<turn|>\n",
    ),
    JOINED: (
        ResultForm(joined=True, shows_media=True),
        "<|tool_response>lights=Seen:\n[image 1]<tool_response|><|tool_response>lights=[image 2]\n[audio 1]"
        "<tool_response|><|image|><|image|><|audio|><turn|>\n<|turn>assistant\nDone.<turn|>\n",
    ),
    TURNS: (
        ResultForm(joined=False, shows_media=True),
        "<turn|>\n<|turn>tool\nSeen:\n[image 1]<|image|><turn|>\n<|turn>tool\n[image 1]\n[audio 1]<|image|><|audio|>"
        "<turn|>\n<|turn>assistant\nDone.<turn|>\n",
    ),
    USERS: (
        ResultForm(joined=False, shows_media=False),
        "<|turn>tool\nSeen:\n[image 1]<turn|>\n<|turn>tool\n[image 2]\n[audio 1]<turn|>\n"
        "<|turn>user\n<|image|><|image|><|audio|><turn|>\n<|turn>assistant\nDone.<turn|>\n",
    ),
}


@pytest.mark.parametrize("template", TEMPLATES, ids=["apart", "joined", "turns", "users"])
def test_where_templates_take_results(
    demo: tuple[Model, Processor], monkeypatch: pytest.MonkeyPatch, template: str
) -> None:
    """Each medium once, behind what returned it; the session holds what a new one would, and turns stay turns."""
    form, expected = TEMPLATES[template]
    processor = Processor(demo[1].config, demo[1].tokenizer, ChatTemplate(template, {}))
    assert result_form(processor) == form
    scripted(monkeypatch, [], [CALL, BATH], [("text", "Done.")])
    conversation = Conversation(demo[0], processor)
    list(conversation.ask("Look!"))
    first, second = conversation.calls
    assert said(conversation.reply({first.id: SEEN, second.id: HEARD})) == "Done."
    written = processor.render(conversation.messages, add_generation_prompt=False)
    assert written.startswith(ASKED) and written.endswith(expected)
    assert (conversation.turns, conversation.calls) == (1, [])
    prompt = processor.prompt(conversation.messages[:-1])
    assert conversation.session.content.common_prefix(Content.of(prompt)) >= len(prompt) - 1
    assert (len(prompt.frames), prompt.is_vision.sum()) == (3, 2 * len(processor.patches(PICTURE)))
    conversation.undo()
    assert conversation.messages == []


def test_a_template_that_does_not_begin_the_answer_behind_media(demo: tuple[Model, Processor]) -> None:
    """Its generation prompt is left out behind results; so media follow in a message of the user."""
    for condition, shows in (("", True), (" and not messages[-1].tool_responses", False)):
        begins = f"{{% if add_generation_prompt{condition} %}}<|turn>model\n{{% endif %}}"
        processor = Processor(demo[1].config, demo[1].tokenizer, ChatTemplate(JOINED + begins, {}))
        assert result_form(processor) == ResultForm(joined=True, shows_media=shows)


def test_a_template_that_goes_on_in_a_turn_that_media_have_closed(demo: tuple[Model, Processor]) -> None:
    """A later answer would stand in no turn: as Google's templates of 2026 write it before they took media apart."""
    header = "<|turn>{{ m.role }}\n"
    goes_on = f"{{% if loop.first or m.role != messages[loop.index0 - 1].role %}}{header}{{% endif %}}"
    processor = Processor(demo[1].config, demo[1].tokenizer, ChatTemplate(JOINED.replace(header, goes_on), {}))
    assert goes_on in processor.template.source  # type: ignore[operator]
    assert result_form(processor) == ResultForm(joined=True, shows_media=False)


def test_a_template_of_calls_without_media(demo: tuple[Model, Processor]) -> None:
    """One that refuses calls, and none at all: results are messages of their own."""
    for source in ("{% if messages[1] %}{{ messages[1].tool_calls[0].nothing.here }}{% endif %}", None):
        processor = Processor(demo[1].config, demo[1].tokenizer, ChatTemplate(source, {}))
        assert result_form(processor) == ResultForm(joined=False, shows_media=False)


def test_a_chat_with_results_is_saved(
    demo: tuple[Model, Processor], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    scripted(monkeypatch, [], [CALL], [("text", "Done.")])
    conversation = Conversation(*demo)
    list(conversation.ask("Look!"))
    list(conversation.reply({"call_1": SEEN}))
    conversation.save(tmp_path / "a.chat")
    again = Conversation.load(*demo, tmp_path / "a.chat")
    before, after = (demo[1].prompt(each.messages) for each in (conversation, again))
    assert before.common_prefix(after) == len(before) == len(after)
    assert again.turns == 1


def test_a_medium_that_the_model_cannot_take(demo: tuple[Model, Processor], monkeypatch: pytest.MonkeyPatch) -> None:
    """The model reads why, and the conversation goes on."""
    asked: list[str] = []
    scripted(monkeypatch, asked, [CALL], [("text", "Sorry.")])
    conversation = Conversation(*demo)
    list(conversation.ask("Listen!"))
    long = ToolResult(({"type": "audio", "audio": np.zeros(16_000 * 40, np.float32)},))
    assert said(conversation.reply({"call_1": long})) == "Sorry."
    assert "<|turn>tool\nerror: A prompt takes at most " in asked[-1]


def live(
    released: tuple[Model, Processor], monkeypatch: pytest.MonkeyPatch, result: ToolResult, **options: Any
) -> tuple[Any, Any]:
    """What an assistant's session holds behind a question when a call has this result, and its processor."""
    scripted_live(monkeypatch, [CALL], [("text", "Done.")])
    engine = assistant(released, **options)
    engine.ask("Look!")
    question = len(engine.dialogue.sequence)
    answered(engine)
    engine.reply(result)
    assert answered(engine)[0] == Said("Done.")
    engine.dialogue.compute()
    whole = engine.dialogue.sequence
    assert engine.dialogue.session.content.common_prefix(Content.of(whole)) == len(whole)
    return whole[question:], released[1]


def test_live_media_stand_behind_their_response(
    released: tuple[Model, Processor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The finished turn keeps them, so the next question can be about them."""
    result = ToolResult.of("Seen:", {"type": "image", "image": PICTURE}, {"type": "audio", "audio": SOUND})
    mine, processor = live(released, monkeypatch, result)
    response = '<|tool_response>response:lights{value:<|"|>Seen:\n[image 1]\n[audio 1]<|"|>}<tool_response|>'
    markup = f"<turn|>\n<|turn>model\n{CALL[1]}{response}<|image|><|audio|>Done.<turn|>\n<|turn>user\n"
    assert_same(mine, processor.expand(markup, images=[PICTURE], audios=[SOUND]))


def test_live_media_that_do_not_fit(released: tuple[Model, Processor], monkeypatch: pytest.MonkeyPatch) -> None:
    """The model is told; nothing is cut inside a picture."""
    eight = ToolResult.of("Seen:", *[{"type": "image", "image": PICTURE}] * 8)
    mine, processor = live(released, monkeypatch, eight, context=700)
    assert len(mine.patches) == 0
    assert "[the context is full: pictures and sounds are left out]" in processor.decode(mine.token_ids)


def test_live_media_that_the_model_cannot_take(
    released: tuple[Model, Processor], monkeypatch: pytest.MonkeyPatch
) -> None:
    long = ToolResult(({"type": "audio", "audio": np.zeros(16_000 * 40, np.float32)},))
    mine, processor = live(released, monkeypatch, long)
    assert "error: A prompt takes at most " in processor.decode(mine.token_ids)


def test_results_of_a_turn_are_no_turn(demo: tuple[Model, Processor], monkeypatch: pytest.MonkeyPatch) -> None:
    """``/edit`` and ``/regen`` go back to what the user wrote, not to the media of a result."""
    processor = Processor(demo[1].config, demo[1].tokenizer, ChatTemplate(USERS, {}))
    scripted(monkeypatch, [], [CALL], [("text", "Done.")], [("text", "Again.")])
    conversation = Conversation(demo[0], processor)
    list(conversation.ask("Look!"))
    list(conversation.reply({"call_1": SEEN}))
    last: Message | None = conversation.last_message
    assert last is not None and last["content"] == "Look!"
    assert said(conversation.regenerate()) == "Again."
    assert [message["role"] for message in conversation.messages] == ["user", "assistant"]
