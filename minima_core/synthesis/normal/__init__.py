"""Surface normals in the camera frame drawn as RGB."""
