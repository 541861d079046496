"""Live watching: cameras, and the loop that describes what changes."""
