"""Several questions about one picture, which is computed once: a rewind removes each question and its answer.

    python examples/ask_about_a_picture.py [PICTURE] [MODEL]

Without arguments: a picture of the demo, and the demo's checkpoint.
"""

import sys

from mlx_gemma4 import Session, demo_folder, load, stream_generate

QUESTIONS = ("Describe the image.", "What do you see?", "What is in the image?")


def main(picture: str, name: str) -> None:
    model, processor = load(name)
    session = Session(model)
    for question in QUESTIONS:
        content = [{"type": "image", "image": picture}, {"type": "text", "text": question}]
        prompt = processor.prompt([{"role": "user", "content": content}])
        after_picture = int(prompt.is_vision.nonzero()[0][-1]) + 1
        if session.position == 0:
            session.extend(prompt[:after_picture])
            mark = session.mark()
        session.rewind(mark)
        before = session.computed
        responses = stream_generate(model, processor, prompt[after_picture:], session=session)
        answer = "".join(response.text for response in responses)
        print(f"{question} {answer} ({session.computed - before} positions computed)")


if __name__ == "__main__":
    arguments = sys.argv[1:] + [str(demo_folder() / "media" / "picture-01.png"), "demo"][len(sys.argv) - 1 :]
    main(*arguments)
