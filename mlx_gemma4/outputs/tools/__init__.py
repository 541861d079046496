"""Functions that a model may call: declared, parsed, checked and run."""
