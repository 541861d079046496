"""Generate answers under forty JSON schemas and check them all; then compare answers with and without drafts.

python tests/check_grammar.py [--count 2000] [--max-tokens 200] [--calls | --thoughts | --drafts | --vocabulary FOLDER]

Half of the answers come from random weights and half from the demo, half of them greedy and half at temperature 2. The
package jsonschema is the judge. An answer that ``max_tokens`` cuts must say so.

``--calls`` checks tool calls instead, held to sets of three functions with these schemas. The demo gets the markers of
calls, which its vocabulary does not have (tests/make_tools_checkpoint.py).
``--thoughts`` checks answers behind thoughts: thinking is on, or the prompt ends inside a thought.
``--drafts`` prints a table of forwards per token: under a schema, and under a schema with drafts of two kinds.
``--vocabulary FOLDER`` measures what a mask costs with a real vocabulary, from a folder with a ``tokenizer.json``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ["MLX_ENABLE_TF32"] = "0"  # before mlx is imported: float32 is to be float32

import numpy as np
from drafters import eager, random_model
from json_schemas import SCHEMAS
from jsonschema import Draft202012Validator, FormatChecker
from make_tools_checkpoint import make_tools_checkpoint

from mlx_gemma4 import Constraint, Drafter, Model, Processor, Sampling, Session, load, stream_generate
from mlx_gemma4.inputs.text.tokenizer import load_tokenizer
from mlx_gemma4.outputs.grammar.calls import call_constraint
from mlx_gemma4.outputs.grammar.matcher import Matcher
from mlx_gemma4.outputs.grammar.vocabulary import Vocabulary
from mlx_gemma4.outputs.tools.calls import read_calls

RELEASED = Path(__file__).parent / "data" / "reference" / "released" / "checkpoint"
FORMATS = FormatChecker(["uuid", "ipv4"])
"""Grammars do not know leap years, and jsonschema's times are those of draft 3."""
WORDS = ("red", "a circle", "seven", "stop", "the square on the left", "volume up", "yes", "", "two", "go", "orange")


def loaded() -> dict[str, tuple[Model, Processor]]:
    return {"random": load(RELEASED, dtype="float32"), "demo": load("demo", dtype="float32")}


def answer(
    model: Model, processor: Processor, text: str, constraint: Constraint | None, **options: Any
) -> tuple[str, str, list[int], int]:
    """The text, why it ended, its tokens, and the forwards behind the prompt."""
    session = Session(model, room=40)
    pieces = list(stream_generate(model, processor, text, constraint=constraint, session=session, **options))
    tokens = [token for piece in pieces for token in piece.tokens]
    return "".join(piece.text for piece in pieces), str(pieces[-1].finish_reason), tokens, session.forwards - 1


def cases(count: int) -> Iterator[tuple[str, str, str, Sampling]]:
    """So many cases: a checkpoint, a prompt, a schema and how tokens are chosen."""
    kinds = list(itertools.product(("random", "demo"), (0.0, 2.0), SCHEMAS))
    for number in range(count):
        seed, (name, temperature, schema) = number // len(kinds), kinds[number % len(kinds)]
        text = " ".join(WORDS[(seed + place) % len(WORDS)] for place in range(1 + seed // len(WORDS)))
        yield name, f"{text}?", schema, Sampling(temperature=temperature, seed=seed)


def check(count: int, max_tokens: int) -> None:
    checkpoints, found = loaded(), Counter[str]()
    constraints = {name: Constraint.json_schema(schema) for name, schema in SCHEMAS.items()}
    whole, started = Counter[str](), time.time()
    for name, text, schema, sampling in cases(count):
        said, reason, _, _ = answer(
            *checkpoints[name], text, constraints[schema], sampling=sampling, max_tokens=max_tokens
        )
        kind = f"{name}, temperature {sampling.temperature:g}"
        found[f"{kind}: {'whole' if reason == 'stop' else 'cut'}"] += 1
        if reason == "stop":
            whole[schema] += 1
            Draft202012Validator(SCHEMAS[schema], format_checker=FORMATS).validate(json.loads(said))
    for line, number in sorted(found.items()):
        print(f"{line:36} {number}")
    print(f"{sum(whole.values())} of {count} whole, all valid, in {time.time() - started:.0f} s")
    print("never whole:", ", ".join(name for name in SCHEMAS if not whole[name]) or "none")


def with_markers() -> dict[str, tuple[Model, Processor]]:
    """Checkpoints whose vocabularies have the markers of thoughts and calls."""
    with tempfile.TemporaryDirectory() as folder:
        made = make_tools_checkpoint(Path(folder) / "demo")
        return {"random": load(RELEASED, dtype="float32"), "demo": load(str(made), dtype="float32")}


def check_calls(count: int, max_tokens: int) -> None:
    """Calls held to thirty sets of three functions."""
    checkpoints = with_markers()
    usable = {
        name: schema for name, schema in SCHEMAS.items() if "properties" in schema and "patternProperties" not in schema
    }
    names = list(usable)
    found, started = Counter[str](), time.time()
    for number in range(count):
        checkpoint = ("random", "demo")[number % 4 // 2]
        model, processor = checkpoints[checkpoint]
        tools = [
            declared(names[(number + step) % len(names)], usable) for step in (0, 1, number % 30 // len(names) + 2)
        ]
        choice = ("required", str(tools[number // 30 % 3]["function"]["name"]), "auto")[number % 3]
        sampling = Sampling(temperature=2.0 * (number % 2), seed=number)
        constraint = call_constraint(tools, processor.tokenizer, choice)
        assert constraint is not None
        options = {"sampling": sampling, "max_tokens": max_tokens, "constraint": constraint}
        for piece in stream_generate(model, processor, f"{WORDS[number % len(WORDS)]}?", **options):
            if piece.kind == "tool_call" and piece.finish_reason is None:
                for call in read_calls(piece.text, tools, lambda: "1"):
                    schema = next(tool["function"] for tool in tools if tool["function"]["name"] == call.name)
                    assert call.problem is None, (call, piece.text)
                    Draft202012Validator(schema["parameters"]).validate(call.arguments)
                    found[f"{checkpoint}: calls, all valid"] += 1
        found[f"{checkpoint}, {'auto' if choice == 'auto' else 'bound'}: {piece.finish_reason}"] += 1
    for line, amount in sorted(found.items()):
        print(f"{line:36} {amount}")
    print(f"{count} answers in {time.time() - started:.0f} s")


def check_thoughts(count: int, max_tokens: int) -> None:
    """Thoughts are free, and the answer behind one has the form."""
    checkpoints, found = with_markers(), Counter[str]()
    names = [name for name in SCHEMAS if name not in ("two hundred keys", "long texts")]
    opened = "<|channel>thought\n"
    for number in range(count):
        checkpoint, begins = ("random", "demo")[number % 4 // 2], number % 2 == 0
        model, processor = checkpoints[checkpoint]
        schema = SCHEMAS[names[number % len(names)]]
        chat = [{"role": "user", "content": f"{WORDS[number % len(WORDS)]}?"}]
        prompt = processor.prompt(chat, enable_thinking=True)
        # the demo's own template does not write it
        prompt += processor.markup("<|think|>" + ("" if begins else opened))
        pieces = list(
            stream_generate(
                model,
                processor,
                prompt,
                constraint=Constraint.json_schema(schema),
                sampling=Sampling(temperature=2.0, seed=number),
                thoughts="show",
                max_tokens=max_tokens,
            )
        )
        said = "".join(piece.text for piece in pieces if piece.kind == "text")
        thought = "".join(piece.text for piece in pieces if piece.kind == "thought")
        place = "begins with" if begins else "is inside"
        found[f"{checkpoint}, {place} a thought: {'' if thought else 'none, '}{pieces[-1].finish_reason}"] += 1
        if pieces[-1].finish_reason == "stop":
            Draft202012Validator(schema, format_checker=FORMATS).validate(json.loads(said))
    for line, amount in sorted(found.items()):
        print(f"{line:48} {amount}")


def declared(name: str, schemas: dict[str, Any]) -> dict[str, Any]:
    function = {"name": name.replace(" ", "_"), "description": "", "parameters": schemas[name]}
    return {"type": "function", "function": function}


def compare(max_tokens: int) -> None:
    checkpoints = loaded()
    print(f"{'':26}{'tokens':>8}{'schema':>9}{'n-grams':>9}{'both':>9}   forwards per token")
    sums: Counter[str] = Counter()
    for name, schema in SCHEMAS.items():
        constraint = Constraint.json_schema(schema)
        row: Counter[str] = Counter()
        for checkpoint, (temperature, seed) in itertools.product(checkpoints, ((0.0, 0), (1.0, 1), (1.0, 2))):
            model, processor = checkpoints[checkpoint]
            sampling = Sampling(temperature=temperature, seed=seed)
            drafters = {"schema": None, "n-grams": Drafter(), "both": eager(random_model(model), seed=seed)}
            texts = []
            for kind, drafter in drafters.items():
                said, _, tokens, forwards = answer(
                    model, processor, "red?", constraint, sampling=sampling, max_tokens=max_tokens, drafter=drafter
                )
                texts.append(said)
                row[kind] += forwards
            row["tokens"] += len(tokens)
            assert len(set(texts)) == 1, (name, checkpoint, temperature, texts)
        sums += row
        print(f"{name:26}{row['tokens']:>8}", *(f"{row[kind] / row['tokens']:>8.2f}" for kind in drafters))
    print(f"{'all':26}{sums['tokens']:>8}", *(f"{sums[kind] / sums['tokens']:>8.2f}" for kind in drafters))


def measure(folder: Path) -> None:
    """Random answers to every schema, chosen evenly among what is allowed; no model runs."""
    started = time.perf_counter()
    tokenizer = load_tokenizer(folder)
    read = time.perf_counter()
    size = 262_144
    config = SimpleNamespace(text_config=SimpleNamespace(vocab_size=size))
    stops = frozenset(filter(None, map(tokenizer.token_id, ("<eos>", "<turn|>", "<end_of_turn>"))))
    processor = SimpleNamespace(config=config, tokenizer=tokenizer, suppressed_ids=(), stop_ids=stops)
    known = Vocabulary(processor)  # type: ignore[arg-type]
    print(f"tokenizer.json read in {read - started:.1f} s; vocabulary made in {time.perf_counter() - read:.1f} s")
    print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB of memory at most")
    random = np.random.default_rng(0)
    compile_times, masks, steps, tokens = [], [], [], 0
    for schema in SCHEMAS.values():
        started = time.perf_counter()
        state = Matcher(Constraint.json_schema(schema), known)
        compile_times.append(time.perf_counter() - started)
        state.advance()
        for _ in range(60):
            started = time.perf_counter()
            words = state.mask()
            masks.append(time.perf_counter() - started)
            ids = np.flatnonzero(np.unpackbits(words.view(np.uint8), bitorder="little")[:size])
            token = int(random.choice(ids))
            if token in known.stop_ids:
                break
            started = time.perf_counter()
            state.take([token])
            forced = state.advance()
            steps.append(time.perf_counter() - started)
            tokens += 1 + len(forced)
            if forced and forced[-1] in known.stop_ids:
                break
    print(f"{tokens} tokens, {len(masks)} of them chosen")
    for name, seconds in (
        ("matcher of a schema", compile_times),
        ("mask", masks),
        ("token taken, forced found", steps),
    ):
        middle, most = np.percentile(np.array(seconds) * 1000, (50, 99))
        print(f"{name:28} median {middle:.3f} ms, 99th percentile {most:.2f} ms, most {max(seconds) * 1000:.1f} ms")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--max-tokens", type=int, default=200)
    parser.add_argument("--drafts", action="store_true")
    parser.add_argument("--vocabulary", type=Path)
    parser.add_argument("--calls", action="store_true")
    parser.add_argument("--thoughts", action="store_true")
    given = parser.parse_args()
    if given.vocabulary is not None:
        measure(given.vocabulary)
    elif given.calls:
        check_calls(given.count, given.max_tokens)
    elif given.thoughts:
        check_thoughts(given.count, given.max_tokens)
    elif given.drafts:
        compare(given.max_tokens)
    else:
        check(given.count, given.max_tokens)
