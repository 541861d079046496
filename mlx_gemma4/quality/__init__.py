"""What a conversion lost: two checkpoints compared token by token, module by module, and by what they hear."""
