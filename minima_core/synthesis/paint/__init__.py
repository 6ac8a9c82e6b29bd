"""Paintings: the picture laid down in brush strokes."""
