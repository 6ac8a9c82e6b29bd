"""Event camera pictures: where log brightness rises or falls under a small motion of the camera."""
