"""The converter: Hugging Face weights into MLX ones, in little memory; it chooses and writes, and knows no prompts."""
