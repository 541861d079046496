"""What has a clock: sources of sound and pictures, and the loops that listen, watch and converse."""
