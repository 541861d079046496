"""``examples/clients``: curl here; the programs that need OpenAI's package are run by ``openai_client.py``."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from golden import named, utterances
from servers import serving

EXAMPLES = Path(__file__).parent.parent / "examples" / "clients"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl(monkeypatch: pytest.MonkeyPatch) -> None:
    """It prints the text of a recording and an answer about a picture. What is refused is an error."""
    with serving(key="secret") as server:
        url = f"http://127.0.0.1:{server.port}/v1"
        command = ["bash", str(EXAMPLES / "curl.sh"), url]
        monkeypatch.setenv("OPENAI_API_KEY", "secret")
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        speech, answer = done.stdout.splitlines()
        assert speech == " ".join(utterances("hibari-03.wav"))
        assert json.loads(answer)["choices"][0]["message"]["content"] == named("picture-02.png")
        monkeypatch.delenv("OPENAI_API_KEY")
        refused = subprocess.run(command, capture_output=True, text=True)
        assert refused.returncode != 0 and "invalid_api_key" in refused.stdout
