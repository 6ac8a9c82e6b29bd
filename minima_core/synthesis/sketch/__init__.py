"""Line drawings: dark strokes on light paper."""
