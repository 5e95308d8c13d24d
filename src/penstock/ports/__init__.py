"""What the engine needs from the world, as Protocols that are mostly prose."""
