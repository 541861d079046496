"""Tool calls as a grammar: the model's own syntax (``outputs.tools.syntax``), held to the declared functions.

    On it.<|tool_call>call:lights{room:<|"|>hall<|"|>,on:true}<tool_call|>
    └free┘└──────────────────────────── bound ───────────────────────────┘

Text and thoughts are free; they may be anywhere, and the answer may end anywhere but in a call. Where the answer has a
form (JSON), it is either calls or that form.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mlx_gemma4.inputs.processor import Processor
from mlx_gemma4.inputs.text.tokenizer import Tokenizer
from mlx_gemma4.outputs.channels import MARKERS
from mlx_gemma4.outputs.grammar.constraint import CALLS, Constraint, literal
from mlx_gemma4.outputs.grammar.values import BASE, MOST_KEYS, Rules
from mlx_gemma4.outputs.grammar.vocabulary import vocabulary
from mlx_gemma4.outputs.tools.syntax import QUOTE

AUTO, NONE, REQUIRED = "auto", "none", "required"
"""Calls are up to the model; there are none; there is at least one, and no text."""


def call_constraint(
    tools: Sequence[Mapping[str, Any]], tokenizer: Tokenizer, choice: str = AUTO, form: Constraint | None = None
) -> Constraint | None:
    """What an answer may be that may call functions; None if the vocabulary has no tokens to write calls with.

    Args:
        tools: JSON schemas as ``processor.prompt`` takes them.
        choice: ``"auto"``: text, thoughts and any calls; ``"none"``: no calls; ``"required"``: calls, and no text; or
            the name of a function: one call of it.
        form: What the answer is where the model may call, and does not: a ``Constraint.json_schema``.

    What ``unheld`` names is not held, and keys that are not declared and repeat.

    Raises:
        ValueError: ``choice`` names no function, or a declaration cannot be compiled.
        ImportError: llguidance is not installed.
    """
    if any(tokenizer.token_id(marker) is None for marker in (*MARKERS["tool_call"], QUOTE)):
        return None
    functions = {tool["function"]["name"]: tool["function"].get("parameters") or {} for tool in tools}
    if choice == REQUIRED and not functions:
        raise ValueError("A call is required, and no function is declared: declare one, or require none")
    if choice not in (AUTO, NONE, REQUIRED):
        if choice not in functions:
            raise ValueError(f"There is no function {choice!r} to call, only {', '.join(functions) or 'none'}")
        functions = {choice: functions[choice]}
    if len(functions) > MOST_KEYS:
        raise ValueError(f"Cannot compile the tools: of {len(functions):,} functions, at most {MOST_KEYS} can be held")
    begin, end = MARKERS["tool_call"]
    rules = Rules()
    try:
        calls = " | ".join(f"{literal(name)} {rules.arguments(schema)}" for name, schema in functions.items())
    except RecursionError as error:
        raise ValueError("Cannot compile the tools: a schema is nested too deeply") from error
    bound = f"%json {json.dumps(form.grammar['json_schema'])}" if form is not None else None
    free = [marker for marker in MARKERS["thought"] if tokenizer.token_id(marker) is not None]
    if choice in (AUTO, NONE) and bound is not None:
        start = f"start: call+ | form\nform: {bound}" if calls and choice == AUTO else f"start: {bound}"
    elif choice in (AUTO, NONE):
        marks = [*free, "call"] if calls and choice == AUTO else free
        start = f"start: (TEXT ({' | '.join(marks)}))* TEXT" if marks else "start: TEXT"
    else:
        start = "start: call+" if choice == REQUIRED else "start: call"
    call = [f'call: {begin} "call:" ({calls}) {end}'] if calls and choice != NONE else []
    lark = "\n".join([start, *call, BASE, *rules.lines])
    constraint = Constraint({"lark_grammar": lark}, CALLS, has_thoughts=choice in (AUTO, NONE) and form is None)
    constraint.check()
    return constraint


def bound_calls(tools: Sequence[Mapping[str, Any]] | None, processor: Processor) -> Constraint | None:
    """What holds the calls in an answer to the declared functions, where that is possible.

    None without functions, without llguidance, and with a vocabulary or a declaration that it cannot use.
    """
    try:
        return check_bound(tools, processor) if tools else None
    except (ImportError, ValueError):
        return None


def check_bound(tools: Sequence[Mapping[str, Any]], processor: Processor) -> Constraint | None:
    """The same, with an error that says why calls cannot be held.

    Raises:
        ValueError: The vocabulary cannot be used, or a declaration cannot be compiled.
        ImportError: llguidance is not installed.
    """
    constraint = call_constraint(tools, processor.tokenizer)
    if constraint is not None:
        vocabulary(processor)  # now, and not before the first answer: it takes seconds
    return constraint
