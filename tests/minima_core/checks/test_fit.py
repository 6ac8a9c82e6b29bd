"""What fits is told from what does not: copies from other pictures, turned pictures, pairs by their geometry."""

import cv2
import numpy as np
import pytest
import torch
from tiny_world import picture

from minima_core.checks.fit import SAME, pair_fit, picture_look, same_looks, same_picture, turned
from minima_core.checks.structure import depth_fields
from minima_core.geometry.epipolar import fundamental


def texture(seed: int, size: tuple[int, int] = (480, 360)) -> np.ndarray:
    noise = np.random.default_rng(seed).uniform(0, 255, (90, 120, 3)).astype(np.float32)
    return np.clip(cv2.resize(noise, size, interpolation=cv2.INTER_CUBIC), 0, 255).astype(np.uint8)


def test_copies_look_the_same_whatever_their_size_and_compression():
    image = picture(3)[0]
    large = cv2.resize(image, None, fx=2.5, fy=2.5, interpolation=cv2.INTER_CUBIC)
    coded = cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], cv2.IMREAD_COLOR)
    darker = (image * 0.7).astype(np.uint8)
    looks = [picture_look(i) for i in (image, large, coded, darker, picture(4)[0], np.roll(image, 20, 1))]
    assert same_looks(looks) == [(i, j) for i in range(4) for j in range(i + 1, 4)]


def test_copies_correlate_and_pictures_that_are_alike_flat_do_not():
    image = picture(3)[0]
    small = cv2.resize(image, None, fx=0.4, fy=0.4, interpolation=cv2.INTER_AREA)
    coded = cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_COLOR)
    gamma = (255 * (image / 255) ** 1.4).astype(np.uint8)
    assert all(same_picture(image, copy) for copy in (small, coded, gamma))
    assert not same_picture(image, picture(4)[0])
    flat = [np.full((144, 192, 3), 150, np.uint8) for _ in range(2)]
    for seed, half in enumerate(flat):  # the sky of two pictures, nothing below
        half[:12] = picture(seed)[0][:12]
    assert len(same_looks([picture_look(half) for half in flat])) == 1
    assert not same_picture(*flat)


def test_looks_are_compared_as_if_each_were_with_each():
    random = np.random.default_rng(0)
    looks = [int.from_bytes(random.bytes(32)) for _ in range(60)]
    for i in range(30):
        flipped = random.choice(256, int(random.integers(0, SAME + 1)), replace=False)
        looks.append(looks[i] ^ sum(1 << int(bit) for bit in flipped))
    wanted = [(i, j) for j in range(90) for i in range(j) if (looks[i] ^ looks[j]).bit_count() <= SAME]
    assert wanted and same_looks(looks) == sorted(wanted)


def test_few_looks_are_compared_where_none_are_alike():
    compared = []

    class Look(int):
        def __xor__(self, other):
            compared.append(1)
            return int(self) ^ other

    random = np.random.default_rng(0)
    assert same_looks([Look.from_bytes(random.bytes(32)) for _ in range(200)]) == []
    assert len(compared) < 200 * 199 / 2 / 10  # a piece of ten bits is equal in two by chance once in a thousand


@pytest.mark.parametrize(
    ("how", "rows", "columns"),
    [("", 1, 1), ("upside down", -1, -1), ("mirrored", 1, -1), ("mirrored and upside down", -1, 1)],
)
def test_a_picture_that_is_turned_against_its_depth_is_told(how, rows, columns):
    image, depth = picture(5)
    assert turned(np.ascontiguousarray(image[::rows, ::columns]), depth_fields(depth)) == how


def test_nothing_is_said_of_a_picture_without_depth_edges():
    assert turned(picture(5)[0], depth_fields(np.full((144, 192), 3.0, np.float32))) == ""


def test_matches_fit_the_homography_that_made_them_and_no_other():
    image0 = texture(0)
    H = np.array([[0.95, 0.05, 12], [-0.04, 1.02, -9], [1e-5, 2e-5, 1]])
    image1 = cv2.warpPerspective(image0, H, (480, 360))
    assert pair_fit(image0, image1, H_0to1=H) > 0.9
    assert pair_fit(image0, image1, H_0to1=np.linalg.inv(H)) < 0.2
    doubled = cv2.resize(image0, (960, 720), interpolation=cv2.INTER_CUBIC)
    S = np.array([[0.5, 0, -0.25], [0, 0.5, -0.25], [0, 0, 1]])
    assert pair_fit(doubled, image1, H_0to1=H @ S) > 0.9  # pixels of each image as it is


def test_matches_fit_the_pose_that_made_them_and_no_other():
    image0 = texture(1)
    K = torch.tensor([[400.0, 0, 240], [0, 400, 180], [0, 0, 1]], dtype=torch.float64)
    T = torch.eye(4, dtype=torch.float64)
    T[0, 3] = 0.3  # a wall 4 units away moves by 30 pixels
    image1 = cv2.warpPerspective(image0, np.array([[1, 0, 30], [0, 1, 0], [0, 0, 1.0]]), (480, 360))
    assert pair_fit(image0, image1, F_0to1=fundamental(T, K, K).numpy()) > 0.9
    T[:2, 3] = torch.tensor([0, 0.3])
    assert pair_fit(image0, image1, F_0to1=fundamental(T, K, K).numpy()) < 0.2


def test_too_few_matches_say_nothing():
    assert pair_fit(np.full((90, 90, 3), 80, np.uint8), texture(0), H_0to1=np.eye(3)) is None
