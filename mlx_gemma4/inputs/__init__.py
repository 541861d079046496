"""Text, sound and pictures into prompts, in numpy."""
