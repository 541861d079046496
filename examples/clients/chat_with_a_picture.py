"""Ask a running server about a picture, with OpenAI's package. The answer is printed while it is written.

    pip install openai
    mlx_gemma4 serve --model demo
    python examples/clients/chat_with_a_picture.py [PICTURE] [QUESTION] [URL]

Without arguments: a picture of the demo. A server with a key takes it from OPENAI_API_KEY here.
"""

import base64
import mimetypes
import os
import sys
from pathlib import Path

from openai import OpenAI

MEDIA = Path(__file__).parents[2] / "mlx_gemma4" / "demo" / "media"


def main(picture: str, question: str, url: str) -> None:
    kind = mimetypes.guess_type(picture)[0] or "image/png"
    data = base64.b64encode(Path(picture).read_bytes()).decode()
    content = [
        {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{data}"}},  # pictures before text
        {"type": "text", "text": question},
    ]
    client = OpenAI(base_url=url, api_key=os.environ.get("OPENAI_API_KEY", "none"))
    model = client.models.list().data[0].id  # a server has one
    chunks = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": content}],
        stream=True,
        stream_options={"include_usage": True},
    )
    for chunk in chunks:
        if chunk.choices:
            print(chunk.choices[0].delta.content or "", end="", flush=True)
        elif chunk.usage is not None:
            print(f"\n{chunk.usage.prompt_tokens} tokens read, {chunk.usage.completion_tokens} written")


if __name__ == "__main__":
    defaults = [str(MEDIA / "picture-01.png"), "Describe the image.", "http://127.0.0.1:8080/v1"]
    main(*(sys.argv[1:] + defaults[len(sys.argv) - 1 :]))
