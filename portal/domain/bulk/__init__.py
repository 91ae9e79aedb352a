"""Acts on many runners at once."""
