"""The texts that are spoken and typed, and the answers. Some texts are never trained on."""

from __future__ import annotations

import zlib
from random import Random

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NUMBERS = (*DIGITS[1:], "ten")
COMMANDS = (
    "turn left",
    "turn right",
    "go forward",
    "go back",
    "stop",
    "start",
    "yes",
    "no",
    "lights on",
    "lights off",
    "volume up",
    "volume down",
    "play",
    "pause",
    "next",
)
COLOURS = ("red", "green", "blue", "yellow", "purple", "orange")
SHAPES = ("circle", "square", "triangle")
PLACES = ("left", "right", "top", "bottom", "center")

QUESTIONS = {
    "what": ("what is it", "what is this", "what do you see"),
    "colour": ("what colour is it", "which colour is it", "what colour is this"),
    "shape": ("what shape is it", "which shape is it", "what shape is this"),
    "place": ("where is it", "where is the shape", "where do you see it"),
}
"""Spoken questions about a picture, by what they ask for."""

GOOGLE = (
    "Transcribe the following speech segment in English into English text.\n\n"
    "Follow these specific instructions for formatting the answer:\n"
    "*   Only output the transcription, with no newlines.\n"
    "*   When transcribing numbers, write the digits, i.e. write 1.7 and not one point seven, and write 3 instead of "
    "three."
)
"""Google's transcription prompt."""
TRANSCRIBE = {
    "Transcribe the audio.": 0.5,
    GOOGLE: 0.15,
    "Transcribe.": 0.15,
    "Transcribe the following speech segment in English into English text.": 0.1,
    "What was said?": 0.1,
}
"""Prompts for transcription, and the share of each in training."""
DESCRIBE = (
    "Describe the image.",
    "Describe.",
    "What is in the image?",
    "Describe this image.",
    "What do you see?",
    "What is this?",
)
CHANGED = ("What changed?", "What has changed?", "What is different?", "What happened?")
ASK = ("", "Answer the question.", "Answer the question about the image.")
"""The typed text before a spoken question; often empty."""
TYPED = {
    "colour": ("What colour is it?", "Which colour?", "And the colour?"),
    "shape": ("What shape is it?", "Which shape?", "And the shape?"),
    "place": ("Where is it?", "And where is it?", "Where?"),
}

WORDS = tuple(
    sorted(
        {word for text in (*DIGITS, "ten", "meters", *COMMANDS, *sum(QUESTIONS.values(), ())) for word in text.split()}
    )
)
"""All words that are spoken."""
_SALT = 2
"""With this salt, each number occurs before "meters" and after "volume" in some training text."""


def random_text(random: Random, *, held_out: bool = False) -> str:
    """A text to say: digits, a command, a distance, a volume, or two commands; held out of training or not."""
    while True:
        text = _random_text(random)
        if is_held_out(text) == held_out:
            return text


def is_held_out(text: str) -> bool:
    """A fifth of all texts of several words. Single words and commands never are: each must occur in training."""
    return text not in COMMANDS and " " in text and zlib.crc32(text.encode(), _SALT) % 5 == 0


def spoken(text: str, random: Random) -> str:
    """The text for a voice: a comma after some digits makes a pause."""
    share = random.choice([0.0, 0.0, 0.3, 0.8])
    words = text.split()
    pairs = zip(words, [*words[1:], ""], strict=True)
    return " ".join(
        f"{word}," if word in DIGITS and after in DIGITS and random.random() < share else word for word, after in pairs
    )


def named(colour: str, shape: str, place: str) -> str:
    """A picture in words."""
    return f"{colour} {shape} {where(place)}"


def where(place: str) -> str:
    """``on the left``, ``in the center``."""
    return "in the center" if place == "center" else f"on the {place}"


def _random_text(random: Random) -> str:
    kind = random.random()
    if kind < 0.60:
        return " ".join(random.choice(DIGITS) for _ in range(random.choice([1, 1, 2, 3, 3, 4, 4, 5, 5, 6])))
    if kind < 0.80:
        return random.choice(COMMANDS)
    if kind < 0.90:
        return f"{random.choice(['go forward', 'go back'])} {random.choice(NUMBERS)} meters"
    if kind < 0.95:
        return f"volume {random.choice(NUMBERS)}"
    return f"{random.choice(COMMANDS)} {random.choice(COMMANDS)}"
