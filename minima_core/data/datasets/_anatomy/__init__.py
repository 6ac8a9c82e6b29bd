"""A human head out of a package, cut into slices whose tissues are known."""
