"""Write random calls and results with a chat template, and read them back: what is written is what is read.

python tests/check_template.py TEMPLATE [--examples 1000]

TEMPLATE is a template of Gemma 4 that writes tools, such as ``chat_template.jinja`` of the released checkpoint. Each
example draws one to three functions, the arguments of a call and the result of another one; each is rendered to tokens.
The call must be allowed by the grammar that holds calls to these functions, and the values must come back with their
types; results are written in the same syntax. No text may become a control token.

Templates write keys bare: keys that cannot be read so (with colons or spaces) are not drawn.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

from conftest import loaded
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_bound_calls import Pair, Tool, constraint_of, declared, leaf, listed, table, without_null
from test_tools import BARE_KEYS, sorted_deeply, values

from mlx_gemma4 import Processor
from mlx_gemma4.inputs.text.template import ChatTemplate
from mlx_gemma4.outputs.grammar.matcher import Matcher
from mlx_gemma4.outputs.grammar.vocabulary import vocabulary
from mlx_gemma4.outputs.tools.calls import parse_tool_calls, read_calls
from mlx_gemma4.outputs.tools.syntax import QUOTE

KEYS = st.sampled_from(["a", "b", "Zed", "größe", "a.b-c", "true", "list", "キー", "$x", "@id"])
TEXTS = st.text(max_size=30) | st.sampled_from(["<turn|>", "<|tool_call>call:x{}", "<tool_response|>", "\n\n", "null"])
SAFE_TEXTS = TEXTS.filter(lambda text: QUOTE not in text and not any("\ud800" <= mark <= "\udfff" for mark in text))
RESULTS = SAFE_TEXTS | st.dictionaries(BARE_KEYS, values(BARE_KEYS), max_size=3)


def tables(inner: st.SearchStrategy[Pair]) -> st.SearchStrategy[Pair]:
    return st.dictionaries(KEYS, st.tuples(inner, st.booleans()), max_size=4).map(table)


LEAF = leaf() | st.just(({"type": "string"}, SAFE_TEXTS))
TOOL_SETS = st.lists(
    tables(st.recursive(LEAF, lambda inner: inner.map(listed) | tables(inner), max_leaves=5)), min_size=1, max_size=3
)


def between(processor: Processor, ids: list[int], begin: str, end: str) -> list[str]:
    """The texts between two markers."""
    first, last = processor.tokenizer.token_id(begin), processor.tokenizer.token_id(end)
    starts = [place for place, token in enumerate(ids) if token == first]
    ends = [place for place, token in enumerate(ids) if token == last]
    assert len(starts) == len(ends)
    return [
        processor.tokenizer.decode(ids[start + 1 : stop], skip_special=False)
        for start, stop in zip(starts, ends, strict=True)
    ]


def check(processor: Processor, tools: list[Tool], name: str, arguments: dict[str, Any], result: Any) -> None:
    call = {"type": "function", "id": "1", "function": {"name": name, "arguments": arguments}}
    messages = [
        {"role": "user", "content": "Go."},
        {
            "role": "assistant",
            "content": "Done.",
            "tool_calls": [call],
            "tool_responses": [{"name": name, "response": result}],
        },
    ]
    ids = processor.prompt(messages, tools=tools, add_generation_prompt=False).token_ids.tolist()
    assert ids.count(processor.tokenizer.token_id("<|turn>")) == 3, "system, user, model"
    (written,) = between(processor, ids, "<|tool_call>", "<tool_call|>")
    (found,) = read_calls(written, tools, lambda: "1")
    assert (found.name, found.problem) == (name, None), written
    assert without_null(found.arguments) == without_null(arguments), written
    start, stop = (ids.index(processor.tokenizer.token_id(mark)) for mark in ("<|tool_call>", "<tool_call|>"))
    state = Matcher(constraint_of(tools, name), vocabulary(processor))
    assert state.follow(ids[start : stop + 1], stop).tokens == ids[start : stop + 1], written
    (response,) = between(processor, ids, "<|tool_response>", "<tool_response|>")
    assert response.startswith(f"response:{name}{{")
    (read,) = parse_tool_calls("call:" + response.removeprefix("response:"))
    expected = result if isinstance(result, dict) else {"value": result}
    assert repr(sorted_deeply(read["arguments"])) == repr(sorted_deeply(expected)), response


def main(template: Path, examples: int) -> None:
    processor = loaded("released")[1]
    own = processor.template
    source = template.read_text(encoding="utf-8")
    writing = Processor(processor.config, processor.tokenizer, ChatTemplate(source, own._variables, begin=own._begin))
    sizes = Counter[str]()

    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(pairs=TOOL_SETS, result=RESULTS, data=st.data())
    def written_is_read(pairs: list[Pair], result: Any, data: st.DataObject) -> None:
        tools = declared([schema for schema, _ in pairs])
        number = data.draw(st.integers(0, len(pairs) - 1))
        arguments = data.draw(pairs[number][1])
        check(writing, tools, tools[number]["function"]["name"], arguments, result)
        sizes["examples"] += 1
        sizes["arguments"] += len(arguments)
        sizes["structured results"] += isinstance(result, dict)

    written_is_read()
    print(dict(sizes), "all read as written, and allowed by the grammar")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("template", type=Path)
    parser.add_argument("--examples", type=int, default=1000)
    given_arguments = parser.parse_args()
    main(given_arguments.template, given_arguments.examples)
