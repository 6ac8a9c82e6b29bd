"""Depth maps drawn as pseudo-colour, near red and far violet."""
