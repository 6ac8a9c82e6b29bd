"""Nuclear medicine: how much of a tracer tissue takes up, by emission tomography (PET, SPECT)."""
