#!/usr/bin/env bash
# A transcription and a chat about a picture, with curl alone.
#
#     mlx_gemma4 serve --model demo
#     examples/clients/curl.sh [URL]
#
# A server with a key takes it from OPENAI_API_KEY here.
set -euo pipefail
url="${1:-http://127.0.0.1:8080/v1}"
media="$(dirname "$0")/../../mlx_gemma4/demo/media"
key="Authorization: Bearer ${OPENAI_API_KEY:-none}"

# a recording of any format and length: text, or json, srt, vtt, verbose_json
curl --fail-with-body -sS -H "$key" "$url/audio/transcriptions" \
    -F "file=@$media/hibari-03.wav" -F response_format=text

# a picture is part of the message, as a data: URL; the body goes through a pipe, since arguments have a limit
curl --fail-with-body -sS -H "$key" -H "Content-Type: application/json" "$url/chat/completions" -d @- << JSON
{
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,$(base64 < "$media/picture-02.png" | tr -d '\n')"}},
                {"type": "text", "text": "Describe the image."}
            ]
        }
    ]
}
JSON
echo
