"""Word error rates, what a conversion lost, and how fast a model is on a machine."""
