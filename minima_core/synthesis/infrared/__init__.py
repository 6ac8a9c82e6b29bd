"""Thermal infrared pictures: gray, repeated to three channels, bright where warm."""
