"""What ``mlx_gemma4 doctor`` looks at: each file answers one question about this machine."""
