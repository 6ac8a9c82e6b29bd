"""Photographs and textures that everybody may use, out of packages of Debian, PyPI and npm."""
