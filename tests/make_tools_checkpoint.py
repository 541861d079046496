"""Write a copy of the demo that can call functions, for clients that always declare some: a script and a function.

    python tests/make_tools_checkpoint.py FOLDER
    mlx_gemma4 serve --model FOLDER --dtype float32

The demo was not trained to call anything. This copy has the markers of calls in its vocabulary, with rows of a token
that was never trained, and a template that writes declarations, calls and results. It sees and hears what the demo
does, and calls functions where a client requires a call, with arguments that the declaration allows.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
from small_files import demo_copy, edit

MARKERS = (
    *("<|channel>", "<channel|>", "<|think|>", "<|tool>", "<tool|>", "<|tool_call>", "<tool_call|>"),
    *("<|tool_response>", "<tool_response|>", '<|"|>'),
)
"""Tokens of the released vocabulary that the demo's does not have."""
ROOM = 131_072
"""Positions: the instructions of coding agents are long, and the demo's tokens are short."""
UNTRAINED = 3
"""``<unk>``."""
EMBEDDING = "model.language_model.embed_tokens.weight"
TEMPLATE = """{{ bos_token }}
{%- for tool in tools or [] %}<|tool>{{ tool.function.name }}<tool|>{% endfor %}
{%- for message in messages %}
{{- '<|turn>' + ('model' if message.role == 'assistant' else message.role) + '\n' }}
{%- for call in message.tool_calls or [] %}
{{- '<|tool_call>call:' + call.function.name }}{{ call.function.arguments | tojson }}<tool_call|>
{%- endfor %}
{%- for each in message.tool_responses or [] %}
{{- '<|tool_response>response:' + each.name }}{value:{{ each.response }}}<tool_response|>
{%- endfor %}
{%- if message.content is string %}{{ message.content }}
{%- else %}{% for part in message.content or [] %}
{%- if part.type == 'text' %}{{ part.text }}{% else %}<|{{ part.type }}|>{% endif %}
{%- endfor %}{% endif %}
{{- '<turn|>\n' }}
{%- endfor %}
{{- '<|turn>model\n' if add_generation_prompt else '' }}"""
"""Unlike the released one, it begins a turn behind results: the demo says nothing in a turn that has begun."""


def make_tools_checkpoint(folder: Path) -> Path:
    """Write the checkpoint into a new folder."""
    demo_copy(folder, weights=True)
    weights: Any = mx.load(str(folder / "model.safetensors"))
    rows = weights[EMBEDDING]
    size = len(rows)
    weights[EMBEDDING] = mx.concatenate([rows, *[rows[UNTRAINED : UNTRAINED + 1]] * len(MARKERS)])
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "pt"})
    added = [_added(size + number, marker) for number, marker in enumerate(MARKERS)]

    def add_tokens(table: dict[str, Any]) -> None:
        table["added_tokens"] += added
        table["model"]["vocab"] |= {each["content"]: each["id"] for each in added}

    def add_rows(table: dict[str, Any]) -> None:
        table["text_config"] |= {"vocab_size": size + len(MARKERS), "max_position_embeddings": ROOM}

    edit(folder / "tokenizer.json", add_tokens)
    edit(folder / "config.json", add_rows)
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    return folder


def _added(number: int, marker: str) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": marker, **flags, "special": True}


if __name__ == "__main__":
    make_tools_checkpoint(Path(sys.argv[1]))
