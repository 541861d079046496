"""The checkpoint's chat template, rendered as transformers renders it, and kept in its sandbox."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden import GOLDEN
from PIL import Image
from reference_cases import CHAT as TURNS
from reference_cases import REFERENCE

from mlx_gemma4 import demo_folder
from mlx_gemma4.template import ChatTemplate, Message

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


@pytest.mark.parametrize("settings", [None, "{}", '{"chat_template": ["a"]}'])
def test_no_template(tmp_path: Path, settings: str | None) -> None:
    """A folder without a template is named, with the file it should hold."""
    if settings is not None:
        (tmp_path / "tokenizer_config.json").write_text(settings)
    message = rf"Expected a chat template in {tmp_path} \(chat_template.jinja\), found none"
    with pytest.raises(ValueError, match=message):
        ChatTemplate.from_folder(tmp_path)
