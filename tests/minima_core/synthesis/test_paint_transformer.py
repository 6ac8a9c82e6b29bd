from __future__ import annotations

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from formula import weight
from torch import nn

from benchmarks.paint_renderer import one_by_one, whole_windows
from minima_core import weights
from minima_core.errors import ConfigError, WeightsError
from minima_core.io.weights import save_weights
from minima_core.synthesis.base import MODALITIES, Source
from minima_core.synthesis.paint import _meta_brushes
from minima_core.synthesis.paint._meta_brushes import PUBLISHED_BRUSHES, SIDE, own_brushes
from minima_core.synthesis.paint._paint_passes import (
    canvases,
    centred,
    in_order,
    layers,
    paint,
    plan,
    square_side,
    windows,
)
from minima_core.synthesis.paint._painter import PUBLISHED_SIZE, TINY_SIZE, Painter, random_painter
from minima_core.synthesis.paint._renderer import Region, Strokes, affine, lay, resized, stamp

RECORDED = Path(__file__).with_name("recorded") / "paint_transformer.npz"
NAMES_AND_SHAPES = "e88836b6baaddf050cf4d5415727e7b07e11b771cc02788ea91997db83600d08"


def formula_state():
    shapes = {
        name: (tensor.shape, tensor.dtype) for name, tensor in random_painter(PUBLISHED_SIZE, 0).state_dict().items()
    }
    return {name: weight(name, shape).to(dtype) for name, (shape, dtype) in shapes.items()}


@pytest.fixture(scope="module")
def published_size():
    painter = Painter(PUBLISHED_SIZE).eval()
    painter.load_state_dict(formula_state())
    return painter


@pytest.fixture(scope="module")
def visible():
    """The network with weights by formula and the four tensors that make its strokes fall on the picture."""
    painter = Painter(PUBLISHED_SIZE).eval()
    state = formula_state()
    state["linear_param.4.weight"] *= 4
    state["linear_decider.weight"] *= 6
    state["linear_param.4.bias"] = torch.tensor([-0.3, 3.1, -2.0, -0.45, 4.2])
    state["linear_decider.bias"] = torch.tensor([0.9])
    painter.load_state_dict(state)
    return painter


@pytest.fixture
def published_marks(parity, monkeypatch):
    """The published brush marks, found where a user would put them."""
    monkeypatch.setenv("MINIMA_WEIGHTS", str(Path(parity("painter_strokes").fid.name).parent))
    return _meta_brushes.published_brushes()


def tensor(image):
    return torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255


class Stub(nn.Module):
    """Wants, of each patch, strokes that depend on the mean colours of target and canvas, in a fixed arithmetic."""

    def __init__(self, strokes=2, *, wanted=1.0, shape=None):
        super().__init__()
        self.query_pos = nn.Parameter(torch.zeros(strokes, 1))
        self.wanted, self.shape = wanted, shape

    def forward(self, target, canvas):
        strokes = len(self.query_pos)
        logit = torch.full((len(target), strokes, 1), float(self.wanted))
        if self.shape is not None:
            return torch.tensor(self.shape).expand(len(target), strokes, 5), logit
        seen = (7 * target[:, :, 16, 16] + 3 * canvas[:, :, 10, 20])[:, None] + torch.arange(strokes)[:, None] * 0.3
        shape = torch.cat([seen % 1, 0.2 + 0.7 * (seen[..., :2] * 1.7 % 1)], -1)
        return shape[..., [0, 1, 3, 4, 2]], logit


def test_names_and_shapes_are_the_checkpoints(parity):
    folder = Path(parity("painter_net").fid.name).parent
    recorded = json.loads((folder / "painter_keys.json").read_text())["tensors"]
    state = Painter(PUBLISHED_SIZE).state_dict()
    assert [(name, shape) for name, shape, _ in recorded] == [(name, list(t.shape)) for name, t in state.items()]


def test_names_and_shapes_stay_as_they_were():
    state = Painter(PUBLISHED_SIZE).state_dict()
    words = "\n".join(f"{name} {tuple(tensor.shape)}" for name, tensor in state.items())
    assert len(state) == 149 and sum(tensor.numel() for tensor in state.values()) == 9_073_804
    assert hashlib.sha256(words.encode()).hexdigest() == NAMES_AND_SHAPES


@torch.inference_mode()
def test_network_is_the_published_one(published_size, parity):
    recorded = parity("painter_net")
    target, canvas = (torch.from_numpy(recorded[name]) for name in ("target", "canvas"))
    for name, given in (("enc_img", target), ("enc_canvas", canvas)):
        assert np.abs(getattr(published_size, name)(given).numpy() - recorded[name]).max() < 1e-5
    for name, got in zip(("param", "decision"), published_size(target, canvas), strict=True):
        assert np.abs(got.numpy() - recorded[name]).max() < 1e-5


@pytest.mark.parametrize(("name", "height", "width"), [("64x64", 64, 64), ("h32_w48", 32, 48)])
def test_single_strokes_are_the_published_ones(name, height, width, parity, published_marks):
    recorded = parity("painter_strokes")
    foreground, alpha = recorded[f"foreground_{name}"], recorded[f"alpha_{name}"]
    params = torch.from_numpy(recorded["params"])[: len(alpha)]
    transform, marks = affine(params[:, :5], height, width), resized(published_marks, height, width)
    rows, columns = torch.arange(-1, height + 1)[None], torch.arange(-1, width + 1)[None]
    for number, stroke in enumerate(params):
        mark = marks[0 if stroke[3] > stroke[2] else 1]
        got, covered = stamp(transform[number : number + 1], mark, rows, columns)
        assert np.abs((got * stroke[5:, None, None]).numpy() - foreground[number]).max() < 1e-4
        assert (covered[0].numpy() != alpha[number]).mean() < 1e-3


@pytest.mark.parametrize("name", ["30x20", "65x40", "96x128"])
def test_painting_is_the_published_one_pass_by_pass(name, visible, parity, published_marks):
    recorded = parity("painter_inference")
    picture = tensor(recorded[f"img_{name}"])
    side, place = square_side(*picture.shape[2:]), centred(*picture.shape[2:])
    seen = []
    hook = visible.register_forward_hook(lambda module, given, got: seen.append(got))
    whole = Region(0, side, 0, side)
    made = [canvas.clone() for canvas in canvases(visible, picture, published_marks, "all", whole)]
    hook.remove()
    assert len(made) == layers(*picture.shape[2:]) + 2
    for number, (canvas, (shape, logit)) in enumerate(zip(made, seen, strict=True)):
        before = f"img_{name}_pass{number}"
        if number < 2:
            assert np.abs(shape.numpy() - recorded[f"{before}_param"]).max() < 5e-4
            assert np.abs(logit.numpy() - recorded[f"{before}_decision"]).max() < 5e-4
        theirs = recorded[f"{before}_canvas"]
        border = (theirs.shape[1] - side) // 2
        close(canvas[0].numpy(), theirs[:, border : border + side, border : border + side])
    close(made[-1][0, :, place.y0 : place.y1, place.x0 : place.x1].numpy(), recorded[f"img_{name}_serial"])


def close(ours, theirs):
    apart = np.abs(ours - theirs)
    assert (apart > 1 / 255).mean() <= 0.01 and apart.mean() <= 1e-3


def test_a_whole_painting_stays_as_recorded(visible, photo):
    recorded = np.load(RECORDED)
    picture = cv2.resize(photo, (64, 48), interpolation=cv2.INTER_AREA)
    made = (paint(visible, tensor(picture), own_brushes(), "all") * 255)[0].permute(1, 2, 0).numpy().astype(int)
    assert made.std() > 20
    assert (np.abs(made - recorded["painting"]) <= 1).mean() > 0.99


def random_strokes(count, side, generator, canvas):
    """Strokes of every kind: large, thin, mirrored, outside, in windows over the borders of the canvas."""
    shape = torch.rand(count, 5, generator=generator) * torch.tensor([2, 2, 1.5, 1.5, 3]) - torch.tensor(
        [0.5, 0.5, 0.3, 0.3, 1]
    )
    colour = torch.rand(count, 3, generator=generator)
    first = torch.randint(-side // 2, canvas - side // 2, (count, 2), generator=generator)
    return Strokes(shape, colour, torch.cat([torch.zeros(count, 1, dtype=torch.int64), first], 1))


@pytest.mark.parametrize(("side", "count"), [(64, 120), (128, 80), (448, 20)])
def test_laying_at_once_is_laying_one_after_the_other(side, count):
    strokes = random_strokes(count, side, torch.Generator().manual_seed(side), 200)
    before = torch.rand(1, 3, 200, 200, generator=torch.Generator().manual_seed(1))
    after = before.clone()
    lay(after, strokes, side, own_brushes(), Region(0, 200, 0, 200))
    plain = one_by_one(before, strokes, side // 2, 0, own_brushes())
    assert (plain != before).float().mean() > 0.2
    # another processor may round a place on the edge of a mark to its other side
    assert ((after - plain).abs() > 1 / 255).float().mean() < 1e-4


def test_only_the_region_is_painted_and_as_without_one():
    strokes = random_strokes(80, 64, torch.Generator().manual_seed(3), 150)
    whole, part = torch.zeros(1, 3, 150, 150), torch.zeros(1, 3, 150, 150)
    lay(whole, strokes, 64, own_brushes(), Region(0, 150, 0, 150))
    lay(part, strokes, 64, own_brushes(), Region(31, 97, 40, 149))
    inside = (..., slice(31, 97), slice(40, 149))
    assert (part[inside] == whole[inside]).all() and (part[inside] > 0).any()
    part[inside] = 0
    assert (part == 0).all()


def test_the_last_stroke_is_on_top_and_its_edge_is_eroded():
    flat = torch.ones(2, 8, 8)  # marks without a bristle
    shape = torch.tensor([[0.5, 0.5, 0.5, 0.5, 0.0]]).repeat(2, 1)
    colour, window = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]]), torch.tensor([[0, 0, 0], [0, 8, 0]])
    canvas = torch.zeros(1, 3, 64, 64)
    lay(canvas, Strokes(shape, colour, window), 32, flat, Region(0, 64, 0, 64))
    red, green = canvas[0, 0] > 0, canvas[0, 1] > 0
    assert green[17:31, 9:23].all() and green.sum() == 14 * 14  # of 16 pixels, one is taken off at either side
    assert red[9:17, 9:23].all() and red.sum() == 8 * 14


def test_no_strokes_leave_the_canvas_alone():
    canvas = torch.rand(1, 3, 40, 40)
    before = canvas.clone()
    for shape in ([], [[0.5, 0.5, 0.0, 0.5, 0.1]], [[5.0, 5.0, 0.5, 0.5, 0.1]], [[0.5, 0.5, 0.5, 1e-30, 0.1]]):
        n = len(shape)
        strokes = Strokes(torch.tensor(shape).reshape(n, 5), torch.ones(n, 3), torch.zeros(n, 3, dtype=torch.int64))
        lay(canvas, strokes, 64, own_brushes(), Region(0, 40, 0, 40))
    assert (canvas == before).all()


def test_a_plain_window_is_drawn_inside_only():
    foreground, alpha = whole_windows(
        torch.tensor([[0.5, 0.5, 9.0, 9.0, 0.2]]), torch.ones(1, 3), 32, torch.ones(2, 4, 4)
    )
    assert (foreground == 1).all() and (alpha == 1).all()  # what lies outside erodes nothing


@pytest.mark.parametrize(("long", "count"), [(1, 0), (32, 0), (33, 1), (64, 1), (1024, 5), (1600, 6)])
def test_how_often_the_first_patch_is_halved(long, count):
    assert layers(long, 1) == layers(1, long) == count
    assert square_side(long, 1) == 32 * 2**count
    place = centred(long, 1)
    assert (place.y1 - place.y0, place.x1 - place.x0) == (long, 1)
    assert place.y0 == (32 * 2**count - long) // 2


def test_windows_of_a_group_do_not_overlap_and_groups_come_in_the_published_order():
    step = plan(128, Region(0, 128, 0, 128))[-2]
    assert step.patch == 32 and step.border == 0
    window, group = windows(1, step, torch.device("cpu"))
    corner = [(y, x) for _, y, x in window.tolist()]
    assert corner[0] == (-16, -16) and corner[-1] == (80, 80)
    wanted = {(0, 0): 0, (1, 1): 1, (1, 0): 2, (0, 1): 3}
    for (y, x), number in zip(corner, group.tolist(), strict=True):
        assert number == wanted[(y + 16) // 32 % 2, (x + 16) // 32 % 2]


def test_a_group_lays_all_first_strokes_then_all_second_ones():
    shape = torch.arange(4.0)[:, None, None] * 10 + torch.arange(2.0)[None, :, None].expand(4, 2, 5)
    drawn = torch.tensor([[True, True], [True, True], [False, True], [True, False]])
    window = torch.arange(4)[:, None].expand(4, 3)
    strokes = in_order(shape, torch.zeros(4, 2, 3), drawn, window, torch.tensor([0, 3, 0, 1]))
    assert strokes.shape[:, 0].tolist() == [0, 1, 21, 30, 10, 11]
    assert strokes.window[:, 0].tolist() == [0, 0, 2, 3, 1, 1]


@pytest.mark.parametrize("size", [(40, 200), (200, 40), (150, 190), (31, 20), (33, 257)])
def test_leaving_out_what_is_never_seen_changes_nothing(size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    side, place = square_side(*size), centred(*size)
    whole = Region(0, side, 0, side)
    *_, canvas = canvases(Stub(), tensor(image), own_brushes(), "all", whole)
    expected = canvas[..., place.y0 : place.y1, place.x0 : place.x1]
    assert (paint(Stub(), tensor(image), own_brushes(), "all") == expected).all()
    assert (expected > 0).float().mean() > 0.1


def test_a_long_picture_takes_fewer_patches():
    def count(wanted):
        return sum((p.patches.y1 - p.patches.y0) * (p.patches.x1 - p.patches.x0) for p in plan(1024, wanted))

    assert count(Region(0, 1024, 0, 1024)) == 1 + 4 + 16 + 64 + 256 + 1024 + 33**2
    assert count(centred(480, 640)) < 0.45 * count(Region(0, 1024, 0, 1024))


def test_the_last_pass_draws_everything_unless_told_otherwise(photo):
    picture = tensor(photo[:40, :60])
    unwilling = Stub(wanted=-1.0)
    assert (paint(unwilling, picture, own_brushes(), "decided") == 0).all()
    assert (paint(unwilling, picture, own_brushes(), "all") > 0).any()
    assert (paint(Stub(wanted=0.0), picture, own_brushes(), "all") == 0).all()  # a logit of zero counts as no


def test_strokes_take_the_colour_under_their_middle():
    image = np.zeros((128, 128, 3), np.uint8)
    image[:, 64:] = (200, 100, 40)
    full = Stub(1, shape=(0.5, 0.5, 1.6, 1.6, 0.0))
    made = paint(full, tensor(image), torch.ones(2, 8, 8), "decided")[0]
    assert torch.allclose(made[:, 40, 100] * 255, torch.tensor([200.0, 100, 40]), atol=1e-3)
    assert (made[:, 40, 20] == 0).all()


def test_pictures_painted_together_are_as_each_alone(photo):
    pictures = torch.cat([tensor(photo[:70, :90]), tensor(photo[60:130, 100:190])])
    painter = random_painter(TINY_SIZE, 0)
    together = paint(painter, pictures, own_brushes(), "all")
    alone = torch.cat([paint(painter, picture[None], own_brushes(), "all") for picture in pictures])
    assert ((together - alone).abs() > 1 / 255).float().mean() < 1e-3  # batches round differently


def test_own_marks_are_bristles_both_ways():
    marks = own_brushes()
    assert marks.shape == (2, SIDE, SIDE) and (marks[0] == marks[1].T).all()
    assert marks.min() == 0 and 0.95 < marks.max() <= 1 and 0.5 < (marks > 0).float().mean() < 0.7
    along, across = (marks[0, 100:300, 130:260].diff(dim=dim).abs().mean() for dim in (0, 1))
    assert across > 3 * along  # streaks from top to bottom


def test_random_weights_leave_the_global_generator_alone_and_fetch_nothing(engine, monkeypatch):
    monkeypatch.setattr(weights, "_download", lambda *about: pytest.fail("fetched"))
    state = torch.random.get_rng_state()
    made = engine("paint", engine="paint_transformer", weights="random")
    assert (torch.random.get_rng_state() == state).all()
    assert made.weights == "random" and made.files() == () and made.sources() == {}
    assert made.terms().name == "Apache-2.0" and made.terms().commercial


def test_bfloat16_paints_nearly_the_same(engine, photo):
    source = Source("s/0", photo[:64, :64].copy())
    exact, rough = (
        engine("paint", engine="paint_transformer", weights="random", precision=precision)
        .synthesise(source, seed=0, modality="paint")
        .image
        for precision in ("float32", "bfloat16")
    )
    assert exact.std() > 10 and np.abs(exact.astype(int) - rough).mean() < 30


@pytest.fixture
def trained(tmp_path):
    path = tmp_path / "painter.safetensors"
    state = random_painter(TINY_SIZE, 5).state_dict()
    about = {"licence": "Apache-2.0", "config": TINY_SIZE.model_dump_json()}
    save_weights(path, state, about)
    return path, state, about


def test_weights_trained_here_are_loaded_with_their_size(engine, trained):
    path, state, _ = trained
    made = engine("paint", engine="paint_transformer", weights=str(path), brushes="own")
    assert made.painter.size == TINY_SIZE
    assert all((tensor == state[name]).all() for name, tensor in made.painter.state_dict().items())
    assert made.weights == "local" and made.files() == () and list(made.sources()) == [path.name]
    assert made.terms().name == "Apache-2.0"


def test_weights_that_do_not_say_their_licence_allow_nothing(trained):
    path, state, about = trained
    save_weights(path, state, {"config": about["config"]})
    settings = MODALITIES.settings("paint", "paint_transformer") | {"weights": str(path), "brushes": "own"}
    terms = MODALITIES.create("paint", settings).terms()
    assert terms.name == "Apache-2.0 AND LicenseRef-unstated" and not terms.commercial


def test_weights_trained_here_may_use_the_published_marks(engine, trained, published_marks):
    made = engine("paint", engine="paint_transformer", weights=str(trained[0]), brushes="published")
    assert made.files() == PUBLISHED_BRUSHES and set(made.sources()) == {*PUBLISHED_BRUSHES, trained[0].name}
    assert (made.brushes == published_marks).all() and float(published_marks.max()) == pytest.approx(254 / 255)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"config": None}, "does not say which network"), ({"config": '{"hidden": 16}'}, "does not say which network")],
)
def test_a_file_that_does_not_say_its_size_is_refused(engine, trained, change, words):
    path, state, about = trained
    save_weights(path, state, {key: value for key, value in {**about, **change}.items() if value is not None})
    with pytest.raises(WeightsError, match=words):
        engine("paint", engine="paint_transformer", weights=str(path), brushes="own")


def test_weights_of_another_network_are_refused(engine, trained):
    path, _, about = trained
    save_weights(path, {"a": torch.zeros(1)}, about)
    with pytest.raises(WeightsError, match=r"painter\.safetensors does not fit: .*Missing key"):
        engine("paint", engine="paint_transformer", weights=str(path), brushes="own")


def test_published_weights_are_loaded_strictly(engine, monkeypatch):
    state = formula_state()
    monkeypatch.setattr(weights, "load", lambda name: {"paint-transformer.pth": state}[name])
    made = engine("paint", engine="paint_transformer", weights="published", brushes="own")
    assert made.painter.size == PUBLISHED_SIZE and made.files() == ("paint-transformer.pth",)
    assert (made.painter.linear_decider.weight == state["linear_decider.weight"]).all()
    shipped = MODALITIES.create("paint", MODALITIES.settings("paint", "paint_transformer"))
    assert shipped.files() == ("paint-transformer.pth", *PUBLISHED_BRUSHES)
    state.pop("conv.bias")
    with pytest.raises(WeightsError, match=r"paint-transformer\.pth does not fit: .*conv\.bias"):
        engine("paint", engine="paint_transformer", weights="published", brushes="own")


def test_settings_that_cannot_be_used_are_refused():
    shipped = MODALITIES.settings("paint", "paint_transformer")
    for wrong in ({"final_pass": "none"}, {"brushes": "large"}, {"weights": "model.pth"}, {"precision": "int8"}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            MODALITIES.create("paint", {**shipped, **wrong})
