"""What has a clock: sources of sound, and the loop that listens to them."""
