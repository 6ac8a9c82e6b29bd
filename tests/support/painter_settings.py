"""Settings of the smallest training of a painter, for tests."""

PAINTER = {
    "size": {"strokes": 8, "hidden": 16, "heads": 2, "encoder_layers": 1, "decoder_layers": 1},
    "steps": 6,
    "batch": 4,
    "lr": 1.0e-3,
    "warmup": 2,
    "decay_from": 0.5,
    "decay_to": 0.1,
    "clip": 1.0,
    "side": [0.2, 0.8],
    "shape_weight": 1.0,
    "wasserstein_weight": 10.0,
    "decision_weight": 2.0,
    "pixel_weight": 8.0,
    "validation_samples": 8,
    "validate_every": 3,
    "checkpoint_every": 2,
    "max_skipped": 1,
    "threads": 1,
}
