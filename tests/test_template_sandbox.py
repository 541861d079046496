"""What a stranger's chat template can do: everything that chats need, and nothing that takes long or fills memory."""

from __future__ import annotations

import json
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from mlx_gemma4.inputs.text.template import ChatTemplate
from mlx_gemma4.inputs.text.template_meter import MOST_DEPTH, Meter, weigh

CHAT = [{"role": "user", "content": "Hello"}]
TOO_MUCH = "it takes too long, or makes too much text"


def complaint(source: str) -> str:
    with pytest.raises(ValueError) as raised:
        ChatTemplate(source, {}).render(CHAT)
    head, _, reason = str(raised.value).partition("cannot render these messages: ")
    assert head == "The checkpoint's chat template " and "\n" not in reason and len(reason) <= 300
    return reason


GROWN = "{% set ns = namespace(x=['ab']) %}{% for i in range(60) %}{% set ns.x = @ %}{% endfor %}{{ ns.x }}"
TEXT = "{% set ns = namespace(x='abcdefgh') %}{% for i in range(60) %}{% set ns.x = @ %}{% endfor %}{{ ns.x }}"


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'a' * 10**10 }}",
        "{{ 10**10 * 'a' }}",
        "{{ ('a'|safe) * 10**10 }}",
        "{{ ([1] * 10**9)|length }}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% for i in range(99999) %}{{ 'a' * 99999 }}{% endfor %}",
        "{% for i in range(99999) %}" + "text" * 9999 + "{% endfor %}",
        "{% for i in range(999) %}{% for i in range(999) %}"
        + "{% if messages %}{% endif %}" * 2000
        + "{% endfor %}{% endfor %}",
        "{% macro f() %}" + "text" * 9999 + "{% endmacro %}{% for i in range(99999) %}{% set x = f() %}{% endfor %}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
        "{% macro m() %}{{ caller() }}{{ caller() }}{% endmacro %}"
        + "{% call m() %}" * 15
        + "a" * 999
        + "{% endcall %}" * 15,
        "{{ range(99999)|join('a' * 99999) }}",
        "{{ ('a' * 99999).join(range(99999)|map('string')) }}",
        "{{ ('a' * 99999)|replace('a', 'b' * 99999) }}",
        "{{ ('a' * 99999).replace('', 'b' * 99999) }}",
        "{{ ('\\n' * 99999)|indent(99999) }}",
        "{{ '%s%s%s' % ('a' * 9999999, 1, 2) }}",
        "{{ ('{0}' * 9999).format('a' * 99999) }}",
        "{% for i in range(9999) %}{% set x = ('a,' * 99999).split(',') %}{% endfor %}",
        "{% set s = 'a' * 99999 %}{% for i in range(9999) %}{% set x = s[1:] %}{% endfor %}",
        "{% set s = ['a'] * 99999 %}{% for i in range(9999) %}{% if s == s[:] %}{% endif %}{% endfor %}",
        "{{ (['a' * 99999] * 999)|map('upper')|list|length }}",
        "{{ (['a' * 99999] * 999)|tojson(indent=4) }}",
        "{{ (['a' * 99999] * 999)|select('equalto', 'b')|list }}",
        "{% set d = dict(a='x' * 99999) %}{{ [d.items()] * 9999 }}",
        "{{ ('ab' * 999999)|list|length }}",
        "{% filter replace('a', 'a' * 99999) %}" + "a" * 9999 + "{% endfilter %}",
        TEXT.replace("@", "ns.x ~ ns.x"),
        TEXT.replace("@", "ns.x + ns.x"),
        TEXT.replace("@", "[ns.x, ns.x]|join"),
        TEXT.replace("{% set ns.x = @ %}", "{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}"),
        GROWN.replace("@", "[ns.x, ns.x]"),
        GROWN.replace("@", "(ns.x, ns.x)"),
        GROWN.replace("@", "{'a': ns.x, 'b': ns.x}"),
        GROWN.replace("@", "dict(a=ns.x, b=ns.x)"),
        GROWN.replace("@", "[ns.x] + [ns.x]"),
    ],
    ids=lambda source: source[:40],
)
def test_too_much(source: str) -> None:
    """Growth of any kind ends before the time or the memory is spent."""
    assert complaint(source) == TOO_MUCH


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{{ '%1000000000d'|format(3) }}", "formats other than %s, %d and %.2f are not available to chat templates"),
        ("{{ '%1000000000d' % 3 }}", "formats other than %s, %d and %.2f are not available to chat templates"),
        ("{{ '%*d' % (1000000000, 3) }}", "formats other than %s, %d and %.2f are not available to chat templates"),
        ("{{ '{:1000000000}'.format(1) }}", "str.format with widths is not available to chat templates"),
        ("{{ 'a'|center(10**9) }}", "No filter named 'center'."),
        ("{{ 'a'.center(10**9) }}", "str.center is not available to chat templates"),
        ("{{ 'a'.zfill(10**9) }}", "str.zfill is not available to chat templates"),
        ("{{ ('a'|safe).ljust(10**9) }}", "str.ljust is not available to chat templates"),
        ("{{ '\\t'.expandtabs(10**9) }}", "str.expandtabs is not available to chat templates"),
        ("{{ (1).to_bytes(10**9, 'big') }}", "int.to_bytes is not available to chat templates"),
        ("{{ dict.fromkeys(range(9), 1) }}", "type.fromkeys is not available to chat templates"),
        ("{{ lipsum(n=10**6) }}", "'lipsum' is undefined"),
        ("{{ 2.5|round(10**9, 'ceil') }}", "rounding to more than 20 digits is not available to chat templates"),
        (
            "{{ [[1]]|tojson(indent=10**9) }}",
            "tojson with an indent of more than 16 is not available to chat templates",
        ),
        ("{{ [[1], [2]]|sum(start=[]) }}", "the sum of anything but numbers is not available to chat templates"),
        ("{{ 10 ** (10 ** 9) }}", "it makes numbers of more than 4096 bits"),
        ("{{ (2 ** 4000) * (2 ** 4000) }}", "it makes numbers of more than 4096 bits"),
        ("{{ ('f' * 9999)|int(base=16) }}", "it makes numbers of more than 4096 bits"),
        ("{{ strftime_now('%1000000000d') }}", "strftime_now takes %Y, %-d and the like, without widths"),
        (
            "{% for a in [1] recursive %}{% endfor %}",
            "it has a recursive loop, which is not available to chat templates",
        ),
        ("{% include 'x' %}", "no loader for this environment specified"),
        ("{{ raise_exception('a\\n' * 999) }}", ("a " * 150).strip()),
        ("{{ ''.__class__.__mro__ }}", "access to attribute '__class__' of 'str' object is unsafe."),
        (" " * 70_000, "it has 70,000 characters, more than 65,536"),
    ],
)
def test_not_available(source: str, reason: str) -> None:
    """What no chat needs is named when it is used."""
    assert complaint(source)[:299] == reason[:299]


@pytest.mark.parametrize(
    "source",
    [
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% block a %}{{ self.a() }}{% endblock %}",
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
        "{{ " + "not " * 9000 + "1 }}",
        "{% if 1 %}" * 2000 + "{% endif %}" * 2000,
    ],
)
def test_too_deep(source: str) -> None:
    """Recursion ends where Python ends it."""
    assert complaint(source).startswith("maximum recursion depth exceeded")


def test_lists_inside_lists() -> None:
    """Depth is bounded, before a comparison has to recurse."""
    source = "{% set ns = namespace(x=[]) %}{% for i in range(200) %}{% set ns.x = [ns.x] %}{% endfor %}"
    assert complaint(source) == f"it makes lists or objects more than {MOST_DEPTH} deep"


USUAL = """\
{%- macro said(content, level=0) -%}
    {%- if content is string -%}{{ content|trim }}
    {%- elif content is mapping -%}
        {%- for key, value in content|dictsort %}
            {{ key }}:{{ said(value, level + 1) }}{{ ',' if not loop.last }}
        {% endfor -%}
    {%- elif content is sequence -%}
        [{%- for part in content -%}
            {%- if part is none %}{% continue %}{% endif %}{{ said(part, level + 1) }};
        {%- endfor -%}]
    {%- else %}{{ content }}{% endif -%}
{%- endmacro -%}
{%- macro framed() -%}<{{ caller('x') }}>{%- endmacro -%}
{%- set ns = namespace(last=-1, text='') -%}
{%- for message in messages -%}
    {%- if message['role'] == 'user' %}{% set ns.last = loop.index0 %}{% endif -%}
    {%- set ns.text = ns.text + message.role ~ loop.index ~ '/' ~ loop.length -%}
    {%- for part in (message['content'] ~ '').split('l')[1:] -%}{{ part.strip().upper() }}{%- endfor -%}
{%- endfor -%}
{{ ns.text }}{{ messages[::-1]|map(attribute='role')|join(', ') }}
{{ messages|selectattr('role', 'equalto', 'user')|list|length }}
{{ said(tools) }}{% call(x) framed() %}{{ x * 3 }}{% endcall %}{% set block %}a{{ 'b'|upper }}{% endset %}{{ block }}
{{ messages[-1].content[:3] if messages[-1].content is string }}{{ tools|tojson(indent=2) }}{{ 7 // 2 + 2 ** 3 - 1.5 }}
{{ '%s is %d' % ('a', 2) }}{{ '{} and {}'.format(1, 'b') }}{{ 'a' in ['a', 'b'] and ('a', 1) == ('a', 1) }}
{% filter upper %}shout{% endfilter %}{{ range(3)|list }}{{ {'a': 1}.items()|list }}{{ joiner(', ')() }}
{{ [3, 1]|sort|first }}{{ "x"|indent }}
"""


def test_what_templates_do() -> None:
    """The same text as from Jinja's own sandbox, for everything that chat templates use."""
    plain = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    plain.filters["tojson"] = _json
    messages = [{"role": role, "content": text} for role, text in (("user", "Hello all"), ("model", "Well"))] * 20
    tools: list[dict[str, Any]] = [{"b": ["x", None, 1], "a": {"q": " y "}, "n": True}]
    variables = {"messages": messages, "tools": tools, "add_generation_prompt": True, "enable_thinking": False}
    assert ChatTemplate(USUAL, {}).render(messages, tools=tools) == plain.from_string(USUAL).render(variables)


def _json(value: object, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def test_a_budget_for_each_rendering() -> None:
    """Renderings in threads at the same time do not spend each other's budget, nor that of the next."""
    template = ChatTemplate("{% for i in range(9000) %}{{ i }}{% endfor %}", {})
    expected = "".join(map(str, range(9000)))
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: template.render(CHAT) == expected, range(40))) == [True] * 40


def test_long_chats_have_larger_budgets() -> None:
    """A loop over all messages for each message is paid for by the messages."""
    source = "{% for a in messages %}{% for b in messages[:5] %}{{ b.content|trim }}{% endfor %}{% endfor %}"
    messages = [{"role": "user", "content": "words " * 40}] * 1000
    assert ChatTemplate(source, {}).render(messages) == ("words " * 40).strip() * 5_000


def test_weights() -> None:
    """Text counts its characters; a list that is held twice counts twice."""
    assert weigh("abc") == 4
    assert weigh(["abc", "abc"]) == 1 + 2 * 16 + 2 * 4
    inner = ["x"] * 10
    assert weigh([inner, inner]) == 1 + 2 * 16 + 2 * weigh(inner)
    assert weigh({"a": 1}) == 1 + 2 * 16 + 2 + 1
    assert weigh(range(10)) == 1 + 160


def test_nothing_is_made_before_it_is_paid_for() -> None:
    """Random texts and factors: what a meter lets through is never longer than it was before."""
    random.seed(0)
    for _ in range(200):
        meter = Meter([])
        size = random.randrange(2 * meter.left)
        before = meter.left
        try:
            meter.spend(size)
        except ValueError:
            assert size > before
        else:
            assert meter.left == before - size
