"""A spoken wish to a call of a function: an agent hears a recording, and may turn lamps on and off.

    python examples/spoken_wish.py [RECORDING] [PICTURE] [MODEL]

Without arguments: a question of the demo about a picture. The demo was never shown functions, and answers it in words.
The functions of this file that have no leading underscore are those that the model may call.
"""

import sys
from typing import Literal

from mlx_gemma4 import Agent, demo_folder, load, load_tools


def lamp(room: Literal["hall", "kitchen", "bath"], on: bool = True) -> str:
    """Turn the lamp of a room on or off."""
    return f"The lamp in the {room} is {'on' if on else 'off'} now."


def _main(recording: str, picture: str, name: str) -> None:
    model, processor = load(name)
    tools = load_tools(__file__)
    agent = Agent(model, processor, tools, allow=["lamp"])
    wish = [{"type": "image", "image": picture}, {"type": "audio", "audio": recording}]
    for event in agent.run(wish):
        print(event)


if __name__ == "__main__":
    media = demo_folder() / "media"
    _main(*sys.argv[1:], *[str(media / "question.wav"), str(media / "question.png"), "demo"][len(sys.argv) - 1 :])
