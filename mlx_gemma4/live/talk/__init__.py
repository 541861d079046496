"""Live conversation: sound, pictures and typed lines, and the loop that answers."""
