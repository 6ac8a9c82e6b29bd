"""The rendered world behind the ``synthetic`` data set: photographs, textures, towns, cameras and the renderer."""
