"""A picture to JSON that holds to a schema: a receipt, or what the demo can see. Needs the extra `grammar`.

    python examples/picture_to_json.py [PICTURE] [MODEL]

Without arguments: a picture of the demo. The demo learned colours, shapes and places, and no JSON: the form is certain,
the values are its best guess.
"""

import json
import sys

from mlx_gemma4 import Constraint, demo_folder, generate, load

RECEIPT = {
    "type": "object",
    "properties": {
        "shop": {"type": "string", "maxLength": 60},
        "date": {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}$"},
        "items": {
            "type": "array",
            "maxItems": 40,
            "items": {
                "type": "object",
                "properties": {"name": {"type": "string", "maxLength": 60}, "price": {"type": "number"}},
                "required": ["name", "price"],
                "additionalProperties": False,
            },
        },
        "total": {"type": "number"},
    },
    "required": ["shop", "date", "items", "total"],
    "additionalProperties": False,
}
SEEN = {
    "type": "object",
    "properties": {
        "colour": {"enum": ["red", "green", "blue", "yellow", "orange", "purple"]},
        "shape": {"enum": ["circle", "square", "triangle", "cross"]},
        "place": {"enum": ["on the top", "on the bottom", "on the left", "on the right", "in the center"]},
    },
    "required": ["colour", "shape", "place"],
    "additionalProperties": False,
}


def main(picture: str, name: str) -> None:
    model, processor = load(name)
    schema, question = (SEEN, "Describe the image.") if name == "demo" else (RECEIPT, "Read the receipt.")
    content = [{"type": "image", "image": picture}, {"type": "text", "text": question}]
    prompt = processor.prompt([{"role": "user", "content": content}])
    answer = generate(model, processor, prompt, max_tokens=2000, constraint=Constraint.json_schema(schema))
    print(json.dumps(json.loads(answer), indent=2))


if __name__ == "__main__":
    arguments = sys.argv[1:] + [str(demo_folder() / "media" / "before.png"), "demo"][len(sys.argv) - 1 :]
    main(*arguments)
