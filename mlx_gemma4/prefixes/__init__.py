"""What was computed before, for many conversations: a new prompt computes only what is new."""
