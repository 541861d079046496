"""Images and videos to patches of raw pixels."""
