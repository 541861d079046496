"""What requests compute: generators that yield before each forward, for the engine."""
