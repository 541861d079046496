"""The protocol of Realtime conversations alone: events in, events and commands out."""

from __future__ import annotations

import base64
import json
import os
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from conversations import ABILITIES, BEGAN, CALL, FRAME, TOOL, Client, Work, check, shown, text
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_gemma4.serve.events import Finished, Piece
from mlx_gemma4.serve.hearing import (
    Began,
    Committed,
    Converse,
    HearingSettings,
    Release,
    Said,
    Sound,
    Spoke,
    Transcribed,
    TurnEnded,
    TurnSettings,
    Words,
)
from mlx_gemma4.serve.protocols.failure import Failure
from mlx_gemma4.serve.protocols.realtime_answers import Truncation
from mlx_gemma4.serve.protocols.realtime_conversation import Cancel, Prefetch, Respond

PICTURE = "data:image/png;base64," + base64.b64encode(b"picture").decode()
EXAMPLES = int(os.environ.get("MLX_GEMMA4_SEQUENCES", "100"))
"""Random sequences; more for a longer search."""


def spoke(frames: int = 50) -> Spoke:
    return Spoke(0.4, 1.2, np.zeros(frames * FRAME, np.float32))


# settings


def test_an_update_changes_what_it_names() -> None:
    client = Client()
    (updated,) = client.configure(instructions="Be brief.", tools=[TOOL], max_output_tokens=7)
    session = updated["session"]
    assert (session["instructions"], session["tools"], session["max_output_tokens"]) == ("Be brief.", [TOOL], 7)
    (updated,) = client.configure(tool_choice="none", max_output_tokens="inf", truncation="disabled")
    session = updated["session"]
    assert (session["instructions"], session["tool_choice"], session["max_output_tokens"]) == (
        "Be brief.",
        "none",
        "inf",
    )
    assert session["truncation"] == "disabled"
    (updated,) = client.configure(instructions=None, tools=None)
    assert (updated["session"]["instructions"], updated["session"]["tools"]) == ("", [])


@pytest.mark.parametrize("modalities", [["audio"], ["text"], ["text", "audio"]])
def test_answers_are_text_and_the_session_says_so(modalities: list[str]) -> None:
    client = Client()
    (updated,) = client.configure(output_modalities=modalities)
    assert updated["session"]["output_modalities"] == ["text"]
    client.say("Hello")
    (created,) = client.send("response.create", response={"output_modalities": modalities})
    assert created["response"]["output_modalities"] == ["text"]


@pytest.mark.parametrize(
    ("session", "param", "message"),
    [
        (
            {"output_modalities": ["video"]},
            "session.output_modalities",
            "session.output_modalities must be text or audio",
        ),
        (
            {"max_output_tokens": 0},
            "session.max_output_tokens",
            'session.max_output_tokens must be 1 or more, or "inf"',
        ),
        (
            {"tools": [{"type": "mcp", "server_label": "x"}]},
            "session.tools[0].type",
            "session.tools[0].type must be function: others run nowhere",
        ),
        ({"tool_choice": "required"}, "tool_choice", "tool_choice asks for a call, but there are no tools; send tools"),
        (
            {"truncation": "always"},
            "session.truncation",
            "session.truncation must be auto, disabled, or an object of the type retention_ratio",
        ),
        (
            {"truncation": {"type": "retention_ratio", "retention_ratio": 2}},
            "session.truncation.retention_ratio",
            "session.truncation.retention_ratio must be from 0 to 1",
        ),
        (
            {"reasoning": {"effort": "huge"}},
            "session.reasoning.effort",
            "reasoning.effort must be one of none, minimal, low, medium, high, xhigh, max",
        ),
        (
            {"audio": {"input": {"turn_detection": {"type": "server_vad", "idle_timeout_ms": 5000}}}},
            "session.audio.input.turn_detection.idle_timeout_ms",
            "idle_timeout_ms is not supported; leave it out",
        ),
        (
            {"audio": {"input": {"turn_detection": {"type": "server_vad", "create_response": "no"}}}},
            "session.audio.input.turn_detection.create_response",
            "session.audio.input.turn_detection.create_response must be true or false",
        ),
    ],
)
def test_settings_that_are_wrong_change_nothing(session: dict[str, Any], param: str, message: str) -> None:
    client = Client()
    before, commands = client.events[0]["session"], len(client.commands)
    client.send("session.update", session={"type": "realtime", "instructions": "x", **session}, event_id="mine")
    error = client.error()
    assert (error["param"], error["message"], error["event_id"]) == (param, message, "mine")
    assert len(client.commands) == commands
    (updated,) = client.configure()
    assert updated["session"] == before


def test_how_turns_are_heard() -> None:
    client = Client()
    assert client.commands == [Converse(TurnSettings())]
    client.listen({"type": "server_vad"}, transcription={"language": "de"})
    assert client.commands[-1] == Converse(TurnSettings(HearingSettings(("German",)), transcribes=True))
    client.listen(None)
    assert client.commands[-1] == Converse(TurnSettings(HearingSettings(("German",)), False, True))
    client.listen(None, transcription=None)
    assert client.commands[-1] == Converse(TurnSettings(finds_turns=False))


def test_a_checkpoint_without_sound_and_tools() -> None:
    client = Client(replace(ABILITIES, longest=None, calls=False))
    client.append(1)
    assert client.error()["message"] == "This checkpoint takes no sound; send text"
    client.configure(tools=[TOOL])
    assert client.error()["message"] == "This checkpoint's chat template does not write tools; leave them out"


# items


def test_what_the_model_is_shown() -> None:
    client = Client()
    client.configure(instructions="Be brief.", tools=[TOOL])
    client.say("Speak English.", role="system")
    client.create(
        {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_image", "image_url": PICTURE}, {"type": "input_text", "text": "Light?"}],
        }
    )
    client.say("Please.")
    client.create({"type": "function_call", "name": "lights", "arguments": '{"on": true}', "call_id": "c1"})
    client.create({"type": "function_call_output", "call_id": "c1", "output": "on"})
    client.say("It is on.", role="assistant")
    client.say("Thanks.")
    client.send("response.create")
    assert client.shown() == [
        ("system", "Be brief.\n\nSpeak English."),
        ("user", ["image", "Light?", "Please."]),
        ("assistant", ["lights"]),
        ("tool", "on"),
        ("assistant", "It is on."),
        ("user", ["Thanks."]),
    ]
    assert client.asked().request.tools == [{"type": "function", "function": {k: TOOL[k] for k in TOOL if k != "type"}}]


def test_items_are_put_where_the_client_says() -> None:
    client = Client()
    first = client.say("1")
    last = client.say("3", role="assistant")
    middle = client.say("2", role="assistant", previous_item_id=first)
    assert client.events[-1]["previous_item_id"] == first
    client.say("0", role="system", previous_item_id="root")
    assert client.events[-1]["previous_item_id"] is None
    client.send("response.create")
    assert [content for _, content in client.shown()] == ["0", ["1"], "2", "3"]
    assert check(client.events[:-1])[1:] == [first, middle, last]
    client.create({"role": "user", "content": [{"type": "input_text", "text": "4"}]}, previous_item_id="nothing")
    assert (client.error()["param"], client.error()["code"]) == ("previous_item_id", "item_not_found")


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"type": "mystery"}, "item.type must be one of message, function_call, function_call_output"),
        ({"role": "user"}, "item has no content"),
        ({"role": "robot", "content": []}, "item.role must be one of user, system, assistant"),
        (
            {"role": "system", "content": [{"type": "input_image", "image_url": PICTURE}]},
            "item.content[0].type must be one of input_text in a message of system",
        ),
        ({"role": "user", "content": [{"type": "input_text"}]}, "item.content[0] has no text"),
        (
            {"role": "user", "content": [{"type": "input_image", "image_url": "http://x/y.png"}]},
            "item.content[0].image_url is an address of the kind http:. This server fetches nothing: send the data "
            "itself, as data:…;base64,…, or start it with --allow-fetch",
        ),
        (
            {"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64,YnJva2Vu"}]},
            "item.content[0]: broken",
        ),
        ({"role": "user", "content": [{"type": "input_audio", "audio": "*"}]}, "audio is not valid base64"),
        ({"type": "function_call"}, "item needs the name of a function"),
        (
            {"type": "function_call", "name": "f", "arguments": "[1]"},
            "item.arguments must be a JSON object, written as text",
        ),
        ({"type": "function_call_output", "output": "x"}, "item needs the call_id of a call"),
        (
            {"type": "function_call_output", "call_id": "c9", "output": "x"},
            "There is no call 'c9' before the item; send the call first",
        ),
        ({"id": "", "role": "user", "content": []}, "item.id must have 1 to 128 characters"),
    ],
)
def test_items_that_are_wrong_are_not_added(item: dict[str, Any], message: str) -> None:
    client = Client()
    commands = len(client.commands)
    client.create(item, event_id="mine")
    assert (client.error()["message"], client.error()["event_id"]) == (message, "mine")
    assert len(client.session._items) == 0 and len(client.commands) == commands


def test_ids_of_clients() -> None:
    client = Client()
    message = {"type": "message", "id": "mine", "role": "user", "content": [{"type": "input_text", "text": "x"}]}
    client.create(message)
    client.create(message)
    assert client.error()["message"] == "The conversation has an item 'mine' already"
    (retrieved,) = client.send("conversation.item.retrieve", item_id="mine")
    assert retrieved["item"]["content"] == [{"type": "input_text", "text": "x"}]
    (deleted,) = client.send("conversation.item.delete", item_id="mine")
    assert (deleted["type"], deleted["item_id"]) == ("conversation.item.deleted", "mine")
    for kind in ("retrieve", "delete", "truncate"):
        client.send(f"conversation.item.{kind}", item_id="mine")
        assert (client.error()["code"], client.error()["param"]) == ("item_not_found", "item_id")


def test_sound_as_an_item() -> None:
    """In the format of the session, and in stretches that the model takes."""
    client = Client(replace(ABILITIES, longest=16_000))
    client.listen(None)
    sound = base64.b64encode(np.zeros(40_000, "<i2").tobytes()).decode()
    client.create({"role": "user", "content": [{"type": "input_audio", "audio": sound}]})
    assert client.events[-1]["item"]["content"] == [{"type": "input_audio", "transcript": None}]
    client.send("response.create")
    assert client.shown() == [("user", ["audio", "audio", "audio"])]


def test_a_result_whose_call_is_deleted_is_not_shown() -> None:
    client = Client()
    client.say("Light?")
    (added, _) = client.create({"type": "function_call", "name": "lights", "call_id": "c1"})
    client.create({"type": "function_call_output", "call_id": "c1", "output": "on"})
    client.send("conversation.item.delete", item_id=added["item"]["id"])
    client.send("response.create")
    assert client.shown() == [("user", ["Light?"])]


def test_what_is_added_is_computed_ahead() -> None:
    client = Client()
    client.say("Hello")
    assert isinstance(client.commands[-1], Prefetch) and shown(client.commands[-1]) == [("user", ["Hello"])]
    client.send("response.create")
    assert client.commands[-2:] == [Release(), client.asked()]
    client.say("More")
    assert client.commands[-1] is client.asked()  # nothing, while an answer is written
    client.answer(client.asked().response_id, *text("Hi"))
    assert shown(client.commands[-1]) == [("user", ["Hello", "More"]), ("assistant", "Hi")]  # type: ignore[arg-type]


# answers


def test_an_answer_of_text_and_a_call() -> None:
    client = Client()
    client.configure(tools=[TOOL])
    client.say("Light!")
    client.send("response.create", response={"metadata": {"a": "b"}})
    call = [BEGAN, Piece("text", "I "), Piece("text", "do."), Piece("tool_call", CALL), Finished("stop", 9, 0)]
    events = client.answer(client.asked().response_id, *call)
    names = [event["type"].removeprefix("response.") for event in events]
    assert names == [
        "output_item.added",
        "conversation.item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "conversation.item.done",
        "output_item.done",
        "output_item.added",
        "conversation.item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "conversation.item.done",
        "output_item.done",
        "done",
    ]
    arguments = events[12]
    assert (arguments["arguments"], arguments["name"], arguments["output_index"]) == ('{"on": true}', "lights", 1)
    response = events[-1]["response"]
    assert [item["type"] for item in response["output"]] == ["message", "function_call"]
    assert (response["metadata"], response["status"]) == ({"a": "b"}, "completed")
    assert response["usage"] == {
        "total_tokens": 18,
        "input_tokens": 9,
        "output_tokens": 9,
        "input_token_details": {"text_tokens": 6, "audio_tokens": 2, "image_tokens": 1, "cached_tokens": 5},
        "output_token_details": {"text_tokens": 9, "audio_tokens": 0},
    }
    call_id = response["output"][1]["call_id"]
    client.create({"type": "function_call_output", "call_id": call_id, "output": "on"})
    client.send("response.create")
    assert client.shown() == [("user", ["Light!"]), ("assistant", ["lights"]), ("tool", "on")]


def test_an_answer_that_is_cut() -> None:
    client = Client()
    client.say("Hello")
    client.send("response.create", response={"max_output_tokens": 2})
    assert client.asked().request.limit == 2
    done = client.answer(client.asked().response_id, *text("Hi", " there", reason="length"))[-1]["response"]
    assert (done["status"], done["output"][0]["status"]) == ("incomplete", "incomplete")
    assert done["status_details"] == {"type": "incomplete", "reason": "max_output_tokens"}


def test_an_answer_that_fails() -> None:
    client = Client()
    client.say("Hello")
    client.send("response.create")
    response_id = client.asked().response_id
    client.answer(response_id, BEGAN, Piece("text", "Hi"))
    events, _ = client.session.fail(response_id, Failure(503, "No memory", code="memory_full"))
    done = events[-1]["response"]
    assert (done["status"], done["output"][0]["status"]) == ("failed", "incomplete")
    assert done["status_details"] == {
        "type": "failed",
        "error": {"type": "overloaded_error", "code": "memory_full", "message": "No memory"},
    }
    client.send("response.create")
    assert client.events[-1]["type"] == "response.created"


def test_one_answer_at_a_time() -> None:
    client = Client()
    client.say("Hello")
    client.send("response.create")
    client.send("response.create", event_id="mine")
    error = client.error()
    assert (error["code"], error["event_id"]) == ("conversation_already_has_active_response", "mine")
    assert error["message"] == "The conversation has the response resp_1 in progress; wait for its end, or cancel it"
    for _ in range(3):
        client.send("response.create", response={"conversation": "none"})
    client.send("response.create", response={"conversation": "none"})
    assert client.error()["message"] == "4 responses are in progress; wait for one of them"


def test_an_answer_out_of_band() -> None:
    """It is shown other items, by other instructions, and leaves nothing in the conversation."""
    client = Client()
    client.configure(instructions="Be brief.")
    item = client.say("Hello")
    message = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Sum up."}]}
    given = [{"type": "item_reference", "id": item}, message]
    client.send("response.create", response={"conversation": "none", "input": given, "instructions": "Be long."})
    assert client.shown() == [("system", "Be long."), ("user", ["Hello", "Sum up."])]
    events = client.answer(client.asked().response_id, *text("All."))
    assert not [event for event in events if event["type"].startswith("conversation.")]
    assert events[-1]["response"]["conversation_id"] is None
    client.send("response.create", response={"conversation": "none", "input": []})
    assert client.shown() == [("system", "Be brief.")]
    client.send("response.create")
    assert client.shown() == [("system", "Be brief."), ("user", ["Hello"])]


@pytest.mark.parametrize(
    ("response", "message"),
    [
        ({"conversation": "other"}, "response.conversation must be auto or none"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "There is no item 'x' in the conversation"),
        (
            {"input": [{"type": "x"}]},
            "response.input[0].type must be one of message, function_call, function_call_output",
        ),
        (
            {"metadata": {"x": "y" * 513}},
            "response.metadata takes 16 pairs of 64 and 512 characters at most",
        ),
        ({"metadata": {"x": 1}}, "response.metadata[...]: Expected str, got int"),
        ({"max_output_tokens": -1}, 'response.max_output_tokens must be 1 or more, or "inf"'),
        (
            {"tool_choice": "sometimes"},
            "tool_choice must be auto, none, required, or an object with the name of a function",
        ),
    ],
)
def test_answers_that_are_not_asked_for_rightly(response: dict[str, Any], message: str) -> None:
    client = Client()
    client.say("Hello")
    commands = len(client.commands)
    client.send("response.create", response=response)
    assert client.error()["message"].replace("metadata:", "metadata[...]:") == message
    assert len(client.commands) == commands


def test_a_client_cancels() -> None:
    client = Client()
    client.send("response.cancel", event_id="mine")
    error = client.error()
    assert (error["code"], error["message"]) == ("response_cancel_not_active", "There is no response to cancel")
    client.say("Hello")
    client.send("response.create")
    response_id = client.asked().response_id
    client.answer(response_id, BEGAN, Piece("text", "Hi"))
    events = client.send("response.cancel")
    done = events[-1]["response"]
    assert (done["status"], done["status_details"]) == (
        "cancelled",
        {"type": "cancelled", "reason": "client_cancelled"},
    )
    assert (done["output"][0]["status"], done["output"][0]["content"][0]["text"]) == ("incomplete", "Hi")
    assert Cancel(response_id) in client.commands
    assert client.answer(response_id, Piece("text", " there")) == []
    client.send("response.create")
    assert client.shown() == [("user", ["Hello"]), ("assistant", "Hi")]


def test_what_was_delivered_of_an_answer() -> None:
    """A client that speaks answers itself says how far it came; there is no audio of which milliseconds would tell."""
    client = Client()
    question = client.say("Hello")
    client.send("response.create")
    (item,) = client.answer(client.asked().response_id, *text("Hi", " there"))[-1]["response"]["output"]
    client.send("conversation.item.truncate", item_id=item["id"], content_index=0, audio_end_ms=400)
    assert client.error()["message"].startswith("The answer has no audio of which some was heard; send text")
    client.send("conversation.item.truncate", item_id=item["id"], content_index=0, audio_end_ms=0, text="Bye")
    assert client.error()["message"] == "The text is not the beginning of the answer"
    client.send("conversation.item.truncate", item_id=item["id"], content_index=1, audio_end_ms=0)
    assert client.error()["message"] == "The item has no content 1"
    client.send("conversation.item.truncate", item_id=question, content_index=0, audio_end_ms=0)
    assert client.error()["message"] == "Only messages of the assistant that are complete can be truncated"
    where = {"item_id": item["id"], "content_index": 0, "audio_end_ms": 400}
    (truncated,) = client.send("conversation.item.truncate", **where, text="Hi")
    assert {key: truncated[key] for key in where} == where
    assert shown(client.commands[-1]) == [("user", ["Hello"]), ("assistant", "Hi")]  # type: ignore[arg-type]
    client.send("conversation.item.truncate", **{**where, "audio_end_ms": 0})
    client.send("response.create")
    assert client.shown() == [("user", ["Hello"])]


# turns


def test_a_spoken_turn_is_answered() -> None:
    client = Client()
    client.say("Look.")
    client.append(25)
    events = client.hear(Began(0.4))
    assert [(event["type"], event["audio_start_ms"], event["item_id"]) for event in events] == [
        ("input_audio_buffer.speech_started", 400, "item_2")
    ]
    prefetch = client.commands[-1]
    assert isinstance(prefetch, Prefetch) and (shown(prefetch), prefetch.heard) == ([("user", ["Look."])], 0)
    events = client.hear(spoke(), TurnEnded(by_client=False))
    assert [event["type"].rpartition(".")[2] for event in events] == [
        "speech_stopped",
        "committed",
        "added",
        "done",
        "created",
    ]
    assert (events[1]["item_id"], events[1]["previous_item_id"]) == ("item_2", "item_1")
    assert client.shown() == [("user", ["Look.", "audio"])]
    assert client.commands[-2:] == [Release(), client.asked()]


def test_a_long_turn_has_stretches() -> None:
    """What is before the open stretch is history: its frames are not computed again."""
    client = Client()
    client.hear(Began(0.0), spoke(375))
    assert client.hear(Began(15.0)) == []
    prefetch = client.commands[-1]
    assert isinstance(prefetch, Prefetch) and (shown(prefetch), prefetch.heard) == ([("user", ["audio"])], 375)
    events = client.hear(spoke(100), TurnEnded(by_client=False))
    assert client.shown() == [("user", ["audio", "audio"])]
    assert [event["type"] for event in events].count("conversation.item.added") == 1


def test_a_picture_while_somebody_speaks() -> None:
    """It stands before the turn, which is an item only when it ends; what was heard is computed again at once."""
    client = Client()
    client.hear(Began(0.0))
    client.create({"role": "user", "content": [{"type": "input_image", "image_url": PICTURE}]})
    prefetch = client.commands[-1]
    assert isinstance(prefetch, Prefetch) and (shown(prefetch), prefetch.heard) == ([("user", ["image"])], 0)
    client.hear(spoke(), TurnEnded(by_client=False))
    assert client.shown() == [("user", ["image", "audio"])]


@pytest.mark.parametrize("detection", [{"type": "server_vad"}, {"type": "semantic_vad", "eagerness": "high"}])
def test_speech_interrupts_an_answer(detection: dict[str, Any]) -> None:
    client = Client()
    client.listen(detection)
    client.say("Hello")
    client.send("response.create")
    response_id = client.asked().response_id
    client.answer(response_id, BEGAN, Piece("text", "I am"))
    events = client.hear(Began(0.4))
    assert events[0]["type"] == "input_audio_buffer.speech_started"
    assert events[-1]["response"]["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
    told, prefetch = client.commands[-2:]
    assert told == Cancel(response_id) and isinstance(prefetch, Prefetch) and prefetch.heard == 0
    assert shown(prefetch) == [("user", ["Hello"]), ("assistant", "I am")]
    client.answer(response_id, Piece("text", " late"), Finished("stop", 3, 0))
    client.hear(spoke(), TurnEnded(by_client=False))
    assert client.shown() == [("user", ["Hello"]), ("assistant", "I am"), ("user", ["audio"])]


def test_speech_that_does_not_interrupt_is_answered_next() -> None:
    client = Client()
    client.listen({"type": "server_vad", "interrupt_response": False})
    client.say("Hello")
    client.send("response.create")
    first = client.asked().response_id
    client.hear(Began(0.4), spoke(), TurnEnded(by_client=False))
    assert client.asked().response_id == first
    events = client.answer(first, *text("Hi"))
    assert [event["type"] for event in events[-2:]] == ["response.done", "response.created"]
    assert client.shown() == [("user", ["Hello", "audio"]), ("assistant", "Hi")]


def test_turns_that_the_client_answers() -> None:
    client = Client()
    client.listen({"type": "server_vad", "create_response": False})
    client.hear(Began(0.4), spoke(), TurnEnded(by_client=False))
    assert client.events[-1]["type"] == "conversation.item.done" and isinstance(client.commands[-1], Prefetch)
    client.listen({"type": "server_vad"})
    client.append(25)
    client.send("input_audio_buffer.commit", event_id="mine")
    client.hear(Began(0.4), spoke(), TurnEnded(by_client=True), Committed())
    assert client.events[-1]["type"] == "conversation.item.done"
    client.append(25)
    client.send("input_audio_buffer.commit", event_id="mine")
    client.hear(Committed())
    assert client.error() == {
        "type": "invalid_request_error",
        "code": "input_audio_buffer_commit_empty",
        "message": "Nobody has spoken since the last turn",
        "param": None,
        "event_id": "mine",
    }


def test_a_buffer_is_a_turn_when_it_is_committed() -> None:
    client = Client(replace(ABILITIES, longest=100 * FRAME))
    client.listen(None)
    client.append(50)
    sound, prefetch = client.commands[-2:]
    assert isinstance(sound, Sound) and isinstance(prefetch, Prefetch) and prefetch.heard == 0
    client.append(49)
    assert isinstance(client.commands[-1], Sound)
    client.append(2)
    prefetch = client.commands[-1]
    assert isinstance(prefetch, Prefetch) and (shown(prefetch), prefetch.heard) == ([("user", ["audio"])], 100)
    events = client.send("input_audio_buffer.commit")
    assert [event["type"].rpartition(".")[2] for event in events] == ["committed", "added", "done"]
    assert client.hear(Committed()) == []
    client.send("response.create")
    assert client.shown() == [("user", ["audio", "audio"])]


def test_a_buffer_is_not_left_behind() -> None:
    client = Client()
    client.listen(None)
    client.append(50)
    client.listen({"type": "server_vad"})
    assert client.error()["message"] == ("The buffer has sound in which no turns were found; commit or clear it first")
    client.send("input_audio_buffer.clear")
    client.listen({"type": "server_vad"})
    assert client.events[-1]["type"] == "session.updated"


def test_a_buffer_has_no_more_than_a_conversation() -> None:
    client = Client(replace(ABILITIES, context=50))
    client.listen(None)
    client.append(51)
    client.append(1)
    assert client.error()["message"] == "The buffer has the 2 s of audio that a conversation takes; commit it"


def test_words_of_turns() -> None:
    """In turns of one utterance and of two, and in buffers; whichever is there first."""
    client = Client()
    client.listen({"type": "server_vad", "create_response": False}, transcription={})
    client.hear(Began(0.0), Transcribed(0, Words("go")), spoke(), TurnEnded(by_client=False))
    assert client.events[-1]["type"] == "conversation.item.done"
    done = client.hear(Transcribed(0, Said(0.4, 1.2, "go back", " back")))
    assert [event.get("delta", event.get("transcript")) for event in done] == [" back", "go back"]
    assert (done[-1]["item_id"], done[-1]["usage"]) == ("item_1", {"type": "duration", "seconds": 1.2})
    (retrieved,) = client.send("conversation.item.retrieve", item_id="item_1")
    assert retrieved["item"]["content"] == [{"type": "input_audio", "transcript": "go back"}]
    said = [Transcribed(number, Said(0, 1, word, word)) for number, word in ((1, "one"), (2, "two"))]
    client.hear(Began(2.0), spoke(), said[0], Began(3.0), spoke(), said[1])
    events = client.hear(TurnEnded(by_client=False))
    assert (events[-1]["transcript"], events[-1]["item_id"]) == ("one two", "item_2")
    client.listen(None)
    client.append(50)
    (delta,) = client.hear(Transcribed(None, Words("now")))
    assert (delta["item_id"], delta["delta"]) == ("item_3", "now")
    client.send("input_audio_buffer.commit")
    (*_, completed) = client.hear(Transcribed(None, Said(0, 1, "now", "")), Committed())
    assert (completed["item_id"], completed["transcript"]) == ("item_3", "now")


# limits


def test_the_oldest_turns_leave() -> None:
    client = Client()
    client.configure(
        truncation={"type": "retention_ratio", "retention_ratio": 0.25, "token_limits": {"post_instructions": 99}}
    )
    client.say("Rules.", role="system")
    for number in range(3):
        client.say(f"question {number}")
        client.say(f"answer {number}", role="assistant")
    client.send("response.create")
    assert client.asked().truncation == Truncation(0.25, 99)
    client.session.leave(2, client.asked().response_id)
    client.answer(client.asked().response_id, *text("Hi"))
    client.say("More.")
    client.send("response.create")
    assert [content for _, content in client.shown()] == ["Rules.", ["question 2"], "answer 2", "Hi", ["More."]]


def test_pictures_leave_before_they_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlx_gemma4.serve.protocols.realtime_conversation.MOST_BYTES", 40)
    client = Client()

    def show(count: int) -> None:
        client.create({"role": "user", "content": [{"type": "input_image", "image_url": PICTURE}] * count})

    for number in range(8):  # seven bytes each
        show(1)
        client.say(f"a {number}", role="assistant")
    client.send("response.create", response={"conversation": "none"})
    assert [content for role, content in client.shown() if role == "assistant"] == ["a 4", "a 5", "a 6", "a 7"]
    before = len(client.session._items)
    show(6)
    assert client.error()["message"] == "The media of a turn may take 0 MB; delete some items"
    assert len(client.session._items) == before


def test_items_that_have_left_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlx_gemma4.serve.protocols.realtime_conversation.MOST_ITEMS", 2)
    client = Client()
    first = client.say("1")
    client.say("2", role="assistant")
    client.create({"role": "user", "content": [{"type": "input_text", "text": "3"}]})
    assert client.error()["message"] == "The conversation has 2 items already; delete some"
    client.session.leave(1)
    client.say("3")
    client.send("conversation.item.retrieve", item_id=first)
    assert client.error()["code"] == "item_not_found"


@pytest.mark.parametrize(
    "message",
    [
        b"{",
        b"\xff",
        b"[]",
        b'{"type":"conversation.item.create"}',
        b'{"type":"conversation.item.create","item":7}',
        b'{"type":"response.create","response":[]}',
        b'{"type":"nothing"}',
        b'{"type":"conversation.item.delete","item_id":null}',
        b"[" * 100_000,
    ],
)
def test_garbage_changes_nothing(message: bytes) -> None:
    client = Client()
    commands = len(client.commands)
    client.send_raw(message)
    assert client.error()["type"] == "invalid_request_error" and len(client.commands) == commands


# any order

MESSAGES = [
    ("session.update", {"session": {"type": "realtime", "tools": [TOOL], "instructions": "x"}}),
    ("session.update", {"session": {"audio": {"input": {"turn_detection": None}}}}),
    ("session.update", {"session": {"audio": {"input": {"turn_detection": {"type": "server_vad"}}}}}),
    (
        "session.update",
        {"session": {"audio": {"input": {"turn_detection": {"type": "server_vad", "interrupt_response": False}}}}},
    ),
    ("session.update", {"session": {"audio": {"input": {"transcription": {}}}}}),
    ("session.update", {"session": {"audio": {"input": {"transcription": None}}}}),
    ("conversation.item.create", {"item": {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]}}),
    (
        "conversation.item.create",
        {"item": {"role": "user", "content": [{"type": "input_image", "image_url": PICTURE}]}},
    ),
    ("conversation.item.create", {"item": {"type": "function_call", "name": "lights", "call_id": "c"}}),
    ("conversation.item.create", {"item": {"type": "function_call_output", "call_id": "c", "output": "on"}}),
    ("response.create", {}),
    ("response.create", {"response": {"conversation": "none"}}),
    ("response.cancel", {}),
    ("input_audio_buffer.commit", {}),
    ("input_audio_buffer.clear", {}),
]
STEPS = st.one_of(
    st.tuples(st.just("send"), st.integers(0, len(MESSAGES) - 1)),
    st.tuples(st.just("append"), st.sampled_from([1, 10, 30, 60])),
    st.tuples(st.sampled_from(["hear", "write", "delete", "insert", "truncate", "fail", "leave"]), st.integers(0, 9)),
)


def step(client: Client, work: Work, kind: str, number: int) -> None:
    known = [event["item"]["id"] for event in client.events if event["type"] == "conversation.item.added"]
    some = known[number % len(known)] if known else "none"
    if kind == "send":
        name, fields = MESSAGES[number]
        client.send(name, **fields)
    elif kind == "append":
        client.append(number)
    elif kind == "hear":
        work.hear()
    elif kind == "write":
        work.write(number)
    elif kind == "fail":
        work.fail(number)
    elif kind == "delete":
        client.send("conversation.item.delete", item_id=some)
    elif kind == "insert":
        content = [{"type": "input_text", "text": "?"}]
        client.create({"role": "user", "content": content}, previous_item_id="root" if number == 0 else some)
    elif kind == "truncate":
        client.send("conversation.item.truncate", item_id=some, content_index=0, audio_end_ms=0)
    else:
        client.session.leave(number % 3)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(STEPS, max_size=60))
def test_whatever_happens_events_fit_together(steps: list[tuple[str, int]]) -> None:
    """Each answer ends once, items are where the client knows them, and the session is never stuck."""
    client = Client()
    work = Work(client)
    client.listen({"type": "server_vad"})
    for kind, number in steps:
        step(client, work, kind, number)
    work.finish()
    assert client.session._active is None and not client.session._responses
    assert check(client.events) == [item.id for item in client.session._items.all]
    client.send("input_audio_buffer.clear")
    client.listen({"type": "server_vad"})
    work.finish()
    client.say("Are you there?")
    client.send("response.create")
    work.finish()
    assert client.events[-1]["type"] == "response.done"
    committed = [event["item_id"] for event in client.events if event["type"] == "input_audio_buffer.committed"]
    completed = [
        event["item_id"] for event in client.events if event["type"].endswith("input_audio_transcription.completed")
    ]
    assert len(set(committed)) == len(committed) and len(set(completed)) == len(completed)
    assert set(completed) <= set(committed) and json.dumps(client.events)


def test_respond_is_all_that_an_answer_needs() -> None:
    """What is shown does not change when items do."""
    client = Client()
    item = client.say("Hello")
    client.send("response.create")
    client.send("conversation.item.delete", item_id=item)
    command = client.asked()
    assert isinstance(command, Respond) and shown(command) == [("user", ["Hello"])]
