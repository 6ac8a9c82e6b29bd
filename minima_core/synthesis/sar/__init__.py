"""Synthetic-aperture radar: intensity with speckle, in decibels."""
