"""The stock ``openai-agents`` package against a server: agents with functions, by Chat Completions and Responses.

    python3 -m venv client && client/bin/pip install openai-agents
    python tests/make_tools_checkpoint.py tools-demo
    mlx_gemma4 serve --model tools-demo --dtype float32 --port 8091
    client/bin/python tests/agents_client.py http://127.0.0.1:8091/v1

It needs nothing of this package, and prints a line for each check.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any, Literal

from agents import (
    Agent,
    AgentOutputSchema,
    Model,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from client_parts import DESCRIBE, PICTURE, is_equal, named, picture_url
from openai import AsyncOpenAI
from pydantic import BaseModel

ITEMS: Any = [
    {
        "role": "user",
        "content": [
            {"type": "input_image", "image_url": picture_url(), "detail": "auto"},
            {"type": "input_text", "text": DESCRIBE},
        ],
    }
]
MUST_CALL = ModelSettings(tool_choice="required", max_tokens=2000)
"""The first answer calls; the package asks for it once."""


class Shape(BaseModel):
    colour: Literal["red", "blue"]
    sides: Literal[0, 3, 4]


class Calls:
    """Functions that note their calls."""

    def __init__(self) -> None:
        self.made: list[tuple[Any, ...]] = []

        @function_tool
        def lights(room: Literal["hall", "attic"], on: bool, level: int | None) -> str:
            """Switch lights.

            Args:
                room: Where.
                level: From 0 to 9.
            """
            self.made.append((room, on, level))
            return "They are on."

        @function_tool(strict_mode=False)
        async def move(metres: Literal[1, 2] = 1) -> dict[str, int]:
            """Drive."""
            self.made.append((metres,))
            return {"metres": metres}

        self.tools: list[Any] = [lights, move]

    def check(self) -> None:
        assert self.made
        for call in self.made:
            if len(call) == 3:
                assert call[0] in ("hall", "attic") and call[1] in (True, False) and isinstance(call[2], int | None)
            else:
                assert call[0] in (1, 2)


async def answers(model: Model) -> None:
    result = await Runner.run(Agent(name="a", model=model), ITEMS)
    is_equal(result.final_output, named(PICTURE))


async def streams(model: Model) -> None:
    result = Runner.run_streamed(Agent(name="a", model=model), ITEMS)
    text = ""
    async for event in result.stream_events():
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            text += event.data.delta
    is_equal((text, result.final_output), (named(PICTURE), named(PICTURE)))


async def forms(model: Model) -> None:
    """``output_type``: an answer in JSON that a pydantic model reads."""
    agent = Agent(name="a", model=model, output_type=Shape)
    result = await Runner.run(agent, ITEMS)
    assert isinstance(result.final_output, Shape)


async def calls(model: Model) -> None:
    """A call, its result, and an answer."""
    made = Calls()
    agent = Agent(name="a", instructions="Do it.", model=model, tools=made.tools, model_settings=MUST_CALL)
    result = await Runner.run(agent, ITEMS)
    made.check()
    kinds = [item.type for item in result.new_items]
    is_equal((kinds[0], kinds.count("tool_call_item"), kinds[-1]), ("tool_call_item", len(made.made), MESSAGE))
    assert "tool_call_output_item" in kinds


async def calls_in_a_stream(model: Model) -> None:
    made = Calls()
    agent = Agent(name="a", model=model, tools=made.tools, model_settings=MUST_CALL)
    result = Runner.run_streamed(agent, ITEMS)
    names = [event.name async for event in result.stream_events() if event.type == "run_item_stream_event"]
    made.check()
    assert "tool_called" in names and "tool_output" in names and isinstance(result.final_output, str)


async def calls_and_forms(model: Model) -> None:
    """Functions, and a form of the last answer."""
    made = Calls()
    output = AgentOutputSchema(Shape, strict_json_schema=True)
    agent = Agent(name="a", model=model, tools=made.tools, model_settings=MUST_CALL, output_type=output)
    result = await Runner.run(agent, ITEMS)
    made.check()
    assert isinstance(result.final_output, Shape)


async def hands_over(model: Model) -> None:
    """One agent calls for another, which answers."""
    other = Agent(name="other", model=model, handoff_description="Sees.")
    agent = Agent(name="a", model=model, handoffs=[other], model_settings=MUST_CALL)
    result = await Runner.run(agent, ITEMS)
    is_equal(result.last_agent.name, "other")


MESSAGE = "message_output_item"
CHECKS = (answers, streams, forms, calls, calls_in_a_stream, calls_and_forms, hands_over)


async def main() -> None:
    set_tracing_disabled(True)
    client = AsyncOpenAI(base_url=sys.argv[1], api_key="none", max_retries=0, _strict_response_validation=True)
    for kind in (OpenAIChatCompletionsModel, OpenAIResponsesModel):
        for check in CHECKS:
            await check(kind("demo", client))
            print(f"ok  {check.__name__} ({kind.__name__})", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
