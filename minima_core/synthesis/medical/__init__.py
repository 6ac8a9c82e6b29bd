"""Magnetic resonance: gray by tissue and pulse sequence, under the coil's uneven sensitivity and Rician noise."""
