"""Settings of the smallest training of a refiner, for tests."""

from joint_settings import JOINT

_SHARED = ("rgb_share", "any_share", "parallax_share", "tone_share", "clip", "warmup", "precision", "threads")
_OFTEN = ("steps", "validation_pairs", "validate_every", "checkpoint_every", "log_every", "max_skipped")
REFINER = {name: JOINT[name] for name in (*_SHARED, *_OFTEN)} | {
    "batch": 2,
    "micro_batch": 2,
    "ema": 0.0,
    "view": (160, 128),
    "keypoints": (96, 96),
    "lr": 3e-3,
    "decay_from": 0.5,
    "decay_to": 0.5,
    "scale": (0.7, 0.9),
    "rotation": 5,
    "perspective": 0.05,
    "points": 32,
    "slip": (0.5, 2.5),
}
