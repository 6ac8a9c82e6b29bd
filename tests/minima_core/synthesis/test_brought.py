"""Renditions that came with the data set, taken as they are."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from minima_core.errors import DataError, Unavailable
from minima_core.io.images import read_image, write_image
from minima_core.synthesis.base import MODALITIES
from minima_core.synthesis.sources import FILES, Item

PUBLISHED = ["depth", "event", "infrared", "normal", "paint", "sketch"]


def made(modality, source):
    engine = MODALITIES.create(modality, {"engine": "published"})
    return engine.synthesise(source, seed=0, modality=modality)


@pytest.mark.parametrize("modality", PUBLISHED)
def test_the_rendition_beside_the_photograph_is_the_picture(tmp_path, photo, modality):
    suffix = ".png" if modality == "event" else ".jpg"
    write_image(tmp_path / "0001/dense0/imgs/7_o.jpg", photo)
    write_image(tmp_path / f"0001/dense0/{modality}/7_o{suffix}", 255 - photo)
    write_image(tmp_path / "0001/dense0/other/7_o.png", photo)
    item = Item("0001/7_o", tmp_path / "0001/dense0/imgs/7_o.jpg", modality=modality)
    expected = read_image(tmp_path / f"0001/dense0/{modality}/7_o{suffix}")
    assert (made(modality, item.read(frozenset({"rendition"}))).image == expected).all()
    assert item.read(FILES - {"rendition"}).rendition is None  # a file that is not asked for is not read
    (tmp_path / f"0001/dense0/{modality}/7_o{suffix}").unlink()
    with pytest.raises(Unavailable, match=r"0001/7_o .*megadepth_syn"):
        made(modality, item.read())


def test_a_map_of_tissues_is_read_where_it_lies_beside_the_picture(tmp_path, photo):
    ids = np.arange(photo.shape[0] * photo.shape[1], dtype=np.uint32).reshape(photo.shape[:2]) % 7
    write_image(tmp_path / "0001/dense0/imgs/7_o.jpg", photo)
    item = Item("0001/7_o", tmp_path / "0001/dense0/imgs/7_o.jpg", modality="medical")
    assert item.read().tissue is None
    write_image(tmp_path / "0001/dense0/tissues/7_o.png", ids.astype(np.uint8))
    assert (item.read(frozenset({"tissue"})).tissue == ids).all()
    assert item.read(FILES - {"tissue"}).tissue is None
    write_image(tmp_path / "0001/dense0/tissues/7_o.png", ids[1:].astype(np.uint8))
    with pytest.raises(DataError, match=r"tissues/7_o\.png is .* but its image is"):
        item.read()
    (tmp_path / "0001/dense0/tissues/7_o.png").unlink()
    with pytest.raises(DataError, match=r"7_o\.jpg has no map of tissues, others have"):
        item.read()


def test_another_size_is_brought_to_the_pictures_and_another_shape_refused(complete_source, photo):
    h, w = photo.shape[:2]
    source = complete_source("a/0", photo)
    small = cv2.resize(photo, (w // 16 * 8, h // 16 * 8), interpolation=cv2.INTER_AREA)  # as networks round sizes
    result = made("infrared", replace(source, rendition=small))
    assert result.image.shape == photo.shape and result.drawn == {"size": [small.shape[1], small.shape[0]]}
    assert np.abs(result.image.astype(int) - photo).mean() < 12
    with pytest.raises(Unavailable, match="get it again"):
        made("infrared", replace(source, rendition=photo[: h // 2]))


def test_what_its_makers_learnt_from_decides_the_terms():
    commercial = {m: MODALITIES.create(m, {"engine": "published"}).terms().commercial for m in PUBLISHED}
    assert [m for m, may in commercial.items() if not may] == ["depth", "infrared", "normal"]
