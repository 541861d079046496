"""Several questions about one picture, which is computed once: a store knows what was computed, by content.

    python examples/ask_about_a_picture.py [PICTURE] [MODEL]

Without arguments: a picture of the demo, and the demo's checkpoint.
"""

import sys

from mlx_gemma4 import PrefixStore, demo_folder, load, stream_generate

QUESTIONS = ("Describe the image.", "What do you see?", "What is in the image?")


def main(picture: str, name: str) -> None:
    model, processor = load(name)
    store = PrefixStore(model)
    for question in QUESTIONS:
        content = [{"type": "image", "image": picture}, {"type": "text", "text": question}]
        prompt = processor.prompt([{"role": "user", "content": content}])
        responses = list(stream_generate(model, processor, prompt, store=store))
        answer = "".join(response.text for response in responses)
        print(f"{question} {answer} ({responses[-1].prompt_tokens} of {len(prompt)} positions computed)")


if __name__ == "__main__":
    arguments = sys.argv[1:] + [str(demo_folder() / "media" / "picture-01.png"), "demo"][len(sys.argv) - 1 :]
    main(*arguments)
