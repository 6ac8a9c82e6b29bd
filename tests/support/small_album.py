"""Settings of the data set `photos` for tests: a few small views of each picture in the folder `album`."""

PHOTOS = {
    "root": "album",
    "licence": "CC0-1.0",
    "size": [96, 72],
    "views": 2,
    "crop": 0.75,
    "scale": [0.7, 1.2],
    "rotation": 10,
    "perspective": 0.1,
    "shift": 0.2,
    "validation_share": 0.3,
    "photos_per_scene": 3,
    "min_std": 4.0,
    "max_saturated": 0.4,
    "overlap": [0.1, 1.0],
}
