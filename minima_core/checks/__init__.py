"""Image, camera and alignment statistics, the tables they fill and the rules that those must satisfy."""
