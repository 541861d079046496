"""What the checkpoint computes, in MLX."""
