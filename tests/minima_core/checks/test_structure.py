import numpy as np
import pytest
from tiny_world import H, W, picture, render

from minima_core.checks.structure import Agreement, agreement, depth_fields, image_field

GOOD = 7.0  # well above the 4.5 that params.yaml asks for


def compared(image: np.ndarray, other: np.ndarray) -> Agreement:
    found = agreement(image_field(image), image_field(other))
    assert found is not None
    return found


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("modality", ["infrared", "event"])
def test_a_rendition_agrees_with_its_source_and_with_no_other(seed, modality):
    image, depth = picture(seed)
    other, _ = picture(seed + 100)
    rendition = render(modality, image, depth)
    assert compared(image, rendition).score > GOOD
    assert compared(other, rendition).score < GOOD


@pytest.mark.parametrize("seed", range(4))
def test_a_turned_or_mirrored_rendition_does_not_agree(seed):
    image, depth = picture(seed)
    rendition = render("infrared", image, depth)
    for spoilt in (rendition[::-1, ::-1], rendition[:, ::-1], rendition[::-1]):
        assert compared(image, np.ascontiguousarray(spoilt)).score < GOOD


def test_inverted_contrast_agrees_as_well_as_the_image_itself():
    image, _ = picture(1)
    assert compared(image, 255 - image).score == pytest.approx(compared(image, image).score, rel=1e-3)


@pytest.mark.parametrize("shift", [(9, 0), (0, -12), (15, 15)])
def test_offset_is_the_shift_in_pixels(shift):
    image, _ = picture(2)
    found = compared(image, np.roll(image, shift, (0, 1)))
    assert found.offset == pytest.approx(np.hypot(*shift), abs=1.5)


def test_small_images_do_not_wrap_around():
    image, _ = picture(3)
    tiny = np.ascontiguousarray(image[::3, ::3])
    assert compared(tiny, tiny).offset == 0


def test_a_depth_rendition_agrees_with_the_depth_map():
    image, depth = picture(5)
    for field in depth_fields(depth):
        found = agreement(field, image_field(render("depth", image, depth)))
        assert found is not None and found.score > GOOD and found.offset < 3


def test_nothing_can_be_said_of_flat_images():
    image, _ = picture(0)
    flat = np.full((H, W, 3), 90, np.uint8)
    assert agreement(image_field(flat), image_field(image)) is None
    assert agreement(image_field(image), image_field(flat)) is None
    assert depth_fields(np.zeros((H, W), np.float32)) == []
