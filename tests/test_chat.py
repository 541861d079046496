"""Conversations: every turn answers as a fresh session on the whole chat would, and computes only what is new."""

from __future__ import annotations

import numpy as np
import pytest
from golden import named
from reference_cases import media_file

from mlx_gemma4 import Conversation, Model, Processor, Session, generate

PICTURE = [{"type": "image", "image": media_file("picture-01.png")}, {"type": "text", "text": "Describe the image."}]
SPEECH = [{"type": "text", "text": "Transcribe."}, {"type": "audio", "audio": media_file("pico-04.wav")}]


def say(conversation: Conversation, content: object, **options: int) -> str:
    return "".join(each.text for each in conversation.ask(content, **options))  # type: ignore[arg-type]


def test_each_turn_is_a_fresh_prompt_of_the_whole_chat(demo: tuple[Model, Processor]) -> None:
    """Pictures and sound in turn."""
    model, processor = demo
    conversation = Conversation(model, processor)
    for content in (PICTURE, SPEECH, PICTURE, "What do you see?"):
        messages = [*conversation.messages, {"role": "user", "content": content}]
        expected = generate(model, processor, processor.prompt(messages))
        assert say(conversation, content) == expected
    assert [message["role"] for message in conversation.messages] == ["user", "assistant"] * 4
    assert conversation.messages[1]["content"] == named("picture-01.png")


def test_a_turn_computes_only_what_is_new(demo: tuple[Model, Processor]) -> None:
    """The picture of the first turn is not computed again."""
    conversation = Conversation(*demo)
    say(conversation, PICTURE)
    before = conversation.session.computed
    answer = say(conversation, "What do you see?")
    assert conversation.session.computed - before < 40 + len(answer)


def test_an_answer_cut_short_stays_in_the_conversation(demo: tuple[Model, Processor]) -> None:
    """And the next turn is still that of a fresh prompt."""
    model, processor = demo
    conversation = Conversation(model, processor)
    responses = conversation.ask(PICTURE)
    said = next(responses).text + next(responses).text
    responses.close()
    assert conversation.messages[-1] == {"role": "assistant", "content": said}
    assert named("picture-01.png").startswith(said) and 0 < len(said) < len(named("picture-01.png"))
    messages = [*conversation.messages, {"role": "user", "content": SPEECH}]
    assert say(conversation, SPEECH) == generate(model, processor, processor.prompt(messages))


def test_the_session_holds_what_a_new_one_would(demo: tuple[Model, Processor]) -> None:
    """After several turns: the same logits, to the rounding of another cut."""
    model, processor = demo
    conversation = Conversation(model, processor, system="Be short.")
    for content in (PICTURE, "Describe.", SPEECH):
        say(conversation, content)
    list(conversation.settle())
    prompt = processor.prompt(conversation.messages, add_generation_prompt=False)
    assert conversation.session.content.common_prefix(prompt) == conversation.session.position == len(prompt)
    whole = Session(model)
    whole.extend(prompt)
    logits = [np.array(each.extend([20, 21])) for each in (conversation.session, whole)]
    np.testing.assert_allclose(*logits, atol=2e-4)


def test_a_turn_that_fails_changes_nothing(demo: tuple[Model, Processor]) -> None:
    model, processor = demo
    conversation = Conversation(model, processor)
    say(conversation, PICTURE)
    before = list(conversation.messages)
    with pytest.raises(ValueError, match=r"^There is no image file at nowhere\.png"):
        say(conversation, [{"type": "image", "image": "nowhere.png"}, {"type": "text", "text": "Describe."}])
    assert conversation.messages == before
    messages = [*before, {"role": "user", "content": PICTURE}]
    assert say(conversation, PICTURE) == generate(model, processor, processor.prompt(messages))


def test_a_reset_keeps_the_system_message(demo: tuple[Model, Processor]) -> None:
    """It is not computed again either."""
    conversation = Conversation(*demo, system="Be short.")
    say(conversation, PICTURE)
    conversation.reset()
    assert conversation.messages == [{"role": "system", "content": "Be short."}]
    system = demo[1].prompt(conversation.messages, add_generation_prompt=False)
    assert conversation.session.position == len(system)
    conversation = Conversation(*demo)
    say(conversation, PICTURE)
    conversation.reset()
    assert (conversation.messages, conversation.session.position) == ([], 0)


def test_a_conversation_longer_than_the_room_goes_on(demo: tuple[Model, Processor]) -> None:
    """Where a rewind is out of reach the session starts again, and the answer is the same."""
    model, processor = demo
    conversation = Conversation(model, processor)
    conversation.session = Session(model, room=128)
    for _ in range(4):
        say(conversation, PICTURE)
    conversation.messages = conversation.messages[:2]
    messages = [*conversation.messages, {"role": "user", "content": SPEECH}]
    assert say(conversation, SPEECH) == generate(model, processor, processor.prompt(messages))
