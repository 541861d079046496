"""The checkpoint's chat template, rendered as transformers renders it, and kept in its sandbox."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden import GOLDEN
from PIL import Image
from reference_cases import CHAT as TURNS
from reference_cases import REFERENCE
from small_files import demo_copy

from mlx_gemma4 import Processor, Session, demo_folder, load, stream_generate
from mlx_gemma4.cli import main
from mlx_gemma4.inputs.text.template import ChatTemplate, Message

CHAT: list[Message] = [*TURNS, {"role": "user", "content": "unseen"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "f",
        "description": "Größe <x>",
        "parameters": {"type": "object", "properties": {"b": {"type": "string"}, "a": {"type": "number"}}},
    },
}

# all that transformers gives to templates
RICH = """\
{%- macro said(content) -%}
    {%- if content is string -%}
        {{ content | trim }}
    {%- else -%}
        {%- for part in content if part.type == 'text' -%}{{ part['text'] | trim }}{%- endfor -%}
    {%- endif -%}
{%- endmacro -%}
{%- set ns = namespace(turns=0, thinking='off') -%}
{{ bos_token }}
{%- if enable_thinking is defined and enable_thinking %}
    {% set ns.thinking = 'on' %}
{{ '<|think|>' }}
{% endif %}
{% if tools %}
tools: {{ tools | tojson }}
{% for tool in tools %}
  {{ tool.function.parameters.properties | tojson(sort_keys=true, separators=(',', ':')) }}
  {{ tool.function.parameters.properties.a | tojson(indent=1) }}
{% endfor %}
{% endif %}
{% for message in messages %}
    {% if message.role == 'system' %}{% continue %}{% endif %}
    {% if message.role not in ['user', 'assistant'] %}
        {{ raise_exception('no such role: ' ~ message.role) }}
    {% endif %}
    {% if message.content == 'stop' %}{% break %}{% endif %}
    {% set ns.turns = ns.turns + 1 %}
<|turn>{{ message.role }}
{{ said(message.content) }}<turn|>
{% endfor %}
{{ ns.turns }} turns, thinking {{ ns.thinking }}, year of {{ strftime_now('%Y') | length }} digits
{% if add_generation_prompt %}
<|turn>model
{% endif %}
"""

# the expected strings below are transformers' apply_chat_template of the same templates and messages


def render(source: str, messages: list[Message] | None = None, **options: Any) -> str:
    return ChatTemplate(source, {"bos_token": "<bos>"}).render(messages or [], **options)


def test_demo_template() -> None:
    """The demo's own template, with its beginning and the turn to be written."""
    template = ChatTemplate.from_folder(demo_folder() / "checkpoint")
    assert template.render(TURNS) == GOLDEN["chat"]


def test_released_template() -> None:
    """A template that trims what is said; no turn is opened where none is asked for."""
    template = ChatTemplate.from_folder(REFERENCE / "released" / "checkpoint")
    assert template.render(CHAT[:3], add_generation_prompt=False) == (
        "<bos><|turn>system\nBe brief.<turn|>\n<|turn>user\n<|image|>What is <this> & that?<turn|>\n"
        "<|turn>model\nA cat – <b><turn|>\n"
    )


def test_rich_template() -> None:
    """Macros, namespaces, break and continue, JSON of tools without escapes, the date, and thinking."""
    assert render(RICH, CHAT, tools=[TOOL], enable_thinking=True) == (
        '<bos><|think|>\ntools: [{"type": "function", "function": {"name": "f", "description": "Größe <x>", '
        '"parameters": {"type": "object", "properties": {"b": {"type": "string"}, "a": {"type": "number"}}}}}]\n'
        '  {"a":{"type":"number"},"b":{"type":"string"}}\n  {\n "type": "number"\n}\n'
        "<|turn>user\nWhat is <this> & that?<turn|>\n<|turn>assistant\nA cat – <b><turn|>\n"
        "2 turns, thinking on, year of 4 digits\n<|turn>model\n"
    )


def test_rich_template_without_options() -> None:
    """The same one without tools, thinking and a turn to be written."""
    assert render(RICH, CHAT, add_generation_prompt=False) == (
        "<bos><|turn>user\nWhat is <this> & that?<turn|>\n<|turn>assistant\nA cat – <b><turn|>\n"
        "2 turns, thinking off, year of 4 digits\n"
    )


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages[3].content }}", "list object has no element 3"),
        ("{{ 1 + 'a' }}", "unsupported operand"),
        ("{{ 1 // 0 }}", "by zero"),
        ("{% for %}", "Expected an expression"),
    ],
)
def test_template_that_raises(source: str, words: str) -> None:
    """A template that refuses the messages, or is broken, is a ValueError with its own words."""
    with pytest.raises(ValueError, match=f"The checkpoint's chat template cannot render these messages: .*{words}"):
        render(source)


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append('more') }}",
        "{{ raise_exception.__globals__['json'] }}",
        "{{ '{0.__class__.__mro__}'.format(messages) }}",
    ],
)
def test_sandbox(source: str) -> None:
    """A template reaches nothing but what it is given, and changes none of it."""
    with pytest.raises(ValueError, match=r"cannot render these messages: .*(unsafe|safely)"):
        render(source)


@pytest.mark.parametrize("medium", [Image.new("RGB", (2, 2)), np.zeros(2), Path("x")])
def test_media_are_out_of_reach(medium: Any) -> None:
    """A template sees that there is a medium, and not its methods: those write files."""
    messages = [{"role": "user", "content": ({"type": "image", "image": medium},)}]
    assert render("{{ messages[0].content[0].image }}", messages) == f"<{type(medium).__name__}>"


def test_tokens_by_name(tmp_path: Path) -> None:
    """Special tokens come from tokenizer_config.json, as text or as objects that hold it."""
    settings = {"bos_token": {"content": "<s>", "special": True}, "eos_token": "</s>", "unk_token": None}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "chat_template.jinja").write_text("{{ bos_token }}–{{ eos_token }}–{{ unk_token is defined }}", "utf-8")
    assert ChatTemplate.from_folder(tmp_path).render([]) == "<s>–</s>–False"


def test_template_in_the_tokenizer_config(tmp_path: Path) -> None:
    """Older conversions keep the template in tokenizer_config.json; chat_template.jinja goes before it."""
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "old {{ messages | length }}"}')
    assert ChatTemplate.from_folder(tmp_path).render([{"role": "user", "content": ""}]) == "old 1"
    (tmp_path / "chat_template.jinja").write_text("new")
    assert ChatTemplate.from_folder(tmp_path).render([]) == "new"


def named(folder: Path, name: str, held: Any) -> ChatTemplate:
    (folder / name).write_text(json.dumps({"chat_template": held}), encoding="utf-8")
    return ChatTemplate.from_folder(folder)


@pytest.mark.parametrize("name", ["chat_template.json", "processor_config.json", "tokenizer_config.json"])
@pytest.mark.parametrize(
    "held",
    [
        "é {{ messages | length }}",
        [{"name": "default", "template": "é {{ messages | length }}"}],
        [{"name": "rag", "template": "r"}, {"name": "default", "template": "é {{ messages | length }}"}],
        {"default": "é {{ messages | length }}", "rag": "r"},
    ],
    ids=["text", "list", "longer list", "object"],
)
def test_templates_in_other_files(tmp_path: Path, name: str, held: Any) -> None:
    """Older exports keep them in JSON files, alone or by name."""
    assert named(tmp_path, name, held).render(TURNS) == f"é {len(TURNS)}"


def test_a_template_for_tools(tmp_path: Path) -> None:
    """As in transformers: the one called tool_use where there are tools, the default one elsewhere."""
    held = [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "{{ tools | length }} tools"}]
    template = named(tmp_path, "tokenizer_config.json", held)
    assert [template.render([], tools=tools) for tools in (None, [], [TOOL])] == ["plain", "plain", "1 tools"]
    (tmp_path / "chat_template.jinja").write_text("file")
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "tool_use.jinja").write_text("file with {{ tools | length }}")
    template = ChatTemplate.from_folder(tmp_path)
    assert [template.render([], tools=tools) for tools in (None, [TOOL])] == ["file", "file with 1"]


def test_templates_in_order(tmp_path: Path) -> None:
    """The file of its own counts before chat_template.json, and that before tokenizer_config.json."""
    assert named(tmp_path, "tokenizer_config.json", "3").render([]) == "3"
    assert named(tmp_path, "chat_template.json", "2").render([]) == "2"
    (tmp_path / "chat_template.jinja").write_text("1")
    assert ChatTemplate.from_folder(tmp_path).render([]) == "1"


@pytest.mark.parametrize("held", [["a"], [{"name": "default"}], [{"template": "a"}], 5, {"default": None}])
def test_templates_of_another_form(tmp_path: Path, held: Any) -> None:
    """The file is named."""
    message = rf"Expected a chat template, or a list of named ones, in {tmp_path}/tokenizer_config.json, got "
    with pytest.raises(ValueError, match=message):
        named(tmp_path, "tokenizer_config.json", held)


def test_a_template_in_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff")
    message = rf"The chat template in {tmp_path}/chat_template.jinja is not UTF-8: 'utf-8' codec"
    with pytest.raises(ValueError, match=message):
        ChatTemplate.from_folder(tmp_path)


@pytest.mark.parametrize("held", [None, {"rag": "r"}])
def test_no_template(tmp_path: Path, held: Any) -> None:
    """Only a chat needs one, and says so, with what to do."""
    template = named(tmp_path, "tokenizer_config.json", held)
    message = r"This checkpoint has no default chat template \(chat_template.jinja\), and a chat needs one. Copy the "
    with pytest.raises(ValueError, match=message):
        template.render([])


def test_a_checkpoint_without_a_template(tmp_path: Path) -> None:
    """It loads; a session, plain text and media need no chat."""
    folder = demo_copy(tmp_path / "base", weights=True)
    (folder / "chat_template.jinja").unlink()
    model, processor = load(folder)
    prompt = processor.completion("Hello")
    assert prompt.token_ids.tolist() == [2, *processor.text("Hello").token_ids]
    assert Session(model).extend(prompt).shape == (processor.config.text_config.vocab_size,)
    assert len(processor.frames(np.zeros(1000, np.float32))) == 2
    assert len(list(stream_generate(model, processor, prompt, max_tokens=3))) > 0
    with pytest.raises(ValueError, match="This checkpoint has no default chat template"):
        processor.prompt([{"role": "user", "content": "Hello"}])


def test_plain_text_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--ignore-chat-template continues the prompt as it is; without it, the message names that way out."""
    folder = demo_copy(tmp_path / "base", weights=True)
    (folder / "chat_template.jinja").unlink()
    generate = ["generate", "--model", str(folder), "--max-tokens", "3", "--prompt"]
    assert main([*generate, "Hello", "--ignore-chat-template", "--stats"]) == 0
    count = len(Processor.from_folder(folder).completion("Hello"))
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"prompt {count} tokens")
    assert main([*generate, "Hello"]) == 2
    assert capsys.readouterr().err.endswith("continue plain text with generate --ignore-chat-template\n")


def test_plain_text_has_no_other_parts(refused: Callable[..., str]) -> None:
    """What only a chat can hold is refused by name."""
    generate = ["generate", "--model", "demo", "--prompt", "a", "--ignore-chat-template"]
    message = "--ignore-chat-template continues the text of --prompt alone: leave out --system, --image"
    assert refused(*generate, "--system", "b", "--image", "c.png") == message
