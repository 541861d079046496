"""Live transcription: sources of sound, and the loop that listens."""
