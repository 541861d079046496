"""Answers that follow a grammar: a JSON schema, a regular expression, a choice. By the llguidance library, an extra."""
