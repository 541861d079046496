"""The ``.parse()`` helpers of the stock ``openai`` client: answers and calls as pydantic models.

    python3 -m venv client && client/bin/pip install openai
    python tests/make_tools_checkpoint.py tools-demo
    mlx_gemma4 serve --model tools-demo --dtype float32 --port 8091
    client/bin/python tests/parse_client.py http://127.0.0.1:8091/v1

It needs nothing of this package, and prints a line for each check.
"""

from __future__ import annotations

import sys
from datetime import date
from enum import Enum
from typing import Any, Literal

import openai
from client_parts import DESCRIBE, picture_url, run
from openai import OpenAI
from pydantic import BaseModel, Field

SHORT: dict[str, Any] = {"max_tokens": 4000, "temperature": 0}


class Colour(str, Enum):
    RED = "red"
    BLUE = "blue"


class Shape(BaseModel):
    """A shape in the picture."""

    colour: Colour
    sides: Literal[0, 3, 4] = Field(description="0 for a circle")
    note: Literal["large", "small"] | None


class Circle(BaseModel):
    kind: Literal["circle"]
    radius: int | None = Field(ge=0, le=9)


class Square(BaseModel):
    kind: Literal["square"]
    side: float = Field(ge=1, le=2)


class Scene(BaseModel):
    """Lists, unions, dates and a type inside of itself, as ``.parse()`` makes schemas of them."""

    shapes: list[Shape] = Field(min_length=1, max_length=2)
    best: Circle | Square
    day: date
    inside: Scene | None = Field(description="at most one more")


class Lights(BaseModel):
    """Switch lights."""

    room: Literal["hall", "attic"]
    on: bool


class Move(BaseModel):
    """Drive."""

    metres: int = Field(ge=0, le=9)
    turn: Colour | None


FORMS = (Shape, Circle, Scene)
TOOLS = {"Lights": Lights, "Move": Move}


def question() -> Any:
    image = {"type": "image_url", "image_url": {"url": picture_url()}}
    return [{"role": "user", "content": [image, {"type": "text", "text": DESCRIBE}]}]


def items() -> Any:
    image = {"type": "input_image", "image_url": picture_url(), "detail": "auto"}
    return [{"role": "user", "content": [image, {"type": "input_text", "text": DESCRIBE}]}]


def chat_answers(client: OpenAI) -> None:
    for form in FORMS:
        answer = client.chat.completions.parse(model="demo", messages=question(), response_format=form, **SHORT)
        assert isinstance(answer.choices[0].message.parsed, form)


def chat_streams(client: OpenAI) -> None:
    for form in FORMS:
        with client.chat.completions.stream(model="demo", messages=question(), response_format=form, **SHORT) as events:
            done = [event for event in events if event.type == "content.done"]
        assert len(done) == 1 and isinstance(done[0].parsed, form)


def chat_calls(client: OpenAI) -> None:
    """Strict functions, of models."""
    tools = [openai.pydantic_function_tool(model) for model in TOOLS.values()]
    one: Any = {"type": "function", "function": {"name": "Move"}}
    for choice in ("required", one):
        answer = client.chat.completions.parse(
            model="demo", messages=question(), tools=tools, tool_choice=choice, **SHORT
        )
        assert answer.choices[0].finish_reason == "tool_calls"
        for call in answer.choices[0].message.tool_calls or []:
            assert isinstance(call.function.parsed_arguments, TOOLS[call.function.name])
        assert answer.choices[0].message.tool_calls


def chat_calls_or_answers(client: OpenAI) -> None:
    """A form of answers beside functions: the answer has the form, unless it is calls."""
    tools = [openai.pydantic_function_tool(model) for model in TOOLS.values()]
    for choice in ("auto", "none", "required"):
        answer = client.chat.completions.parse(
            model="demo", messages=question(), tools=tools, tool_choice=choice, response_format=Shape, **SHORT
        )
        message = answer.choices[0].message
        if message.tool_calls:
            assert choice != "none"
            assert all(isinstance(each.function.parsed_arguments, BaseModel) for each in message.tool_calls)
        else:
            assert choice != "required" and isinstance(message.parsed, Shape)


def responses_answers(client: OpenAI) -> None:
    for form in FORMS:
        answer = client.responses.parse(model="demo", input=items(), text_format=form, max_output_tokens=4000)
        assert isinstance(answer.output_parsed, form)
        with client.responses.stream(model="demo", input=items(), text_format=form, max_output_tokens=4000) as events:
            for _ in events:
                pass
            assert isinstance(events.get_final_response().output_parsed, form)


def responses_calls(client: OpenAI) -> None:
    tools = [openai.pydantic_function_tool(model) for model in TOOLS.values()]
    functions: Any = [{"type": "function", **tool["function"]} for tool in tools]
    for choice in ("required", {"type": "function", "name": "Move"}):
        for form in (openai.omit, Shape):
            answer = client.responses.parse(
                model="demo",
                input=items(),
                tools=functions,
                tool_choice=choice,
                text_format=form,  # type: ignore
            )
            calls = [item for item in answer.output if item.type == "function_call"]
            assert calls
            for call in calls:
                TOOLS[call.name].model_validate_json(call.arguments)


def responses_calls_or_answers(client: OpenAI) -> None:
    functions: Any = [
        {"type": "function", **openai.pydantic_function_tool(model)["function"]} for model in TOOLS.values()
    ]
    answer = client.responses.parse(model="demo", input=items(), tools=functions, text_format=Shape)
    assert answer.output_parsed is not None or any(item.type == "function_call" for item in answer.output)


CHECKS = (
    chat_answers,
    chat_streams,
    chat_calls,
    chat_calls_or_answers,
    responses_answers,
    responses_calls,
    responses_calls_or_answers,
)


def main() -> None:
    client = OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0, _strict_response_validation=True)
    run(CHECKS, client)


if __name__ == "__main__":
    main()
