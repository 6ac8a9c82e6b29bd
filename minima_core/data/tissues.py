"""Tissues by the ids of a map of tissues, shared by the data sets that know them and the engines that show them."""

TISSUE_NAMES = ("air", "bone", "fluid", "gray matter", "white matter", "fat", "muscle", "liver")  # on disk: append only
