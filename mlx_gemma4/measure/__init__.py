"""Word error rates, and what a conversion lost."""
