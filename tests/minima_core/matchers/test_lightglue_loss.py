"""LightGlue's loss against numbers worked by hand, and what padding and missing labels do to it."""

import math
import shutil
from types import SimpleNamespace

import pytest
import torch
from kornia.feature.lightglue import MatchAssignment

from minima_core.matchers.lightglue.assignment import Assignment, assign
from minima_core.matchers.lightglue.extractors import Features
from minima_core.matchers.lightglue.loss import assignment_nll, confidence_loss, deep_loss
from minima_core.matchers.lightglue.network import build, layers, stack
from minima_core.models import PUBLISHED_MODELS, create
from minima_core.types import IGNORE, UNMATCHED


def assignment(sim, z0=(0.0, 0.0), z1=(0.0, 0.0)):
    sim = torch.tensor(sim, dtype=torch.float64)[None]
    return Assignment(
        sim,
        sim.logsumexp(2),
        sim.logsumexp(1),
        torch.tensor(z0, dtype=torch.float64)[None],
        torch.tensor(z1, dtype=torch.float64)[None],
    )


def test_two_by_two_by_hand():
    # all similarities 0: each softmax gives 1/2, each matchability 1/2, so P_00 = 1/2 * 1/2 * 1/2 * 1/2 = 1/16
    found = assignment([[0, 0], [0, 0]])
    nll, positive, negative = assignment_nll(found, torch.tensor([[0, UNMATCHED]]), torch.tensor([[0, IGNORE]]))
    assert positive.item() == pytest.approx(4 * math.log(2))
    # sigma(-0) = 1/2 for the one unmatched keypoint; the side without any still counts as one
    assert negative.item() == pytest.approx(math.log(2) / 2)
    assert nll.item() == pytest.approx(2.25 * math.log(2))


def test_two_by_two_with_unequal_similarities():
    # rows: softmax(ln 3, 0) = (3/4, 1/4); columns likewise; sigma(ln 4) = 4/5 on both sides
    found = assignment([[math.log(3), 0], [0, math.log(3)]], z0=(math.log(4), 0), z1=(math.log(4), 0))
    _, positive, negative = assignment_nll(found, torch.tensor([[0, UNMATCHED]]), torch.tensor([[0, UNMATCHED]]))
    assert positive.item() == pytest.approx(-math.log(3 / 4 * 3 / 4 * 4 / 5 * 4 / 5))
    assert negative.item() == pytest.approx(math.log(2))  # mean over the two unmatched of both sides


def test_pair_without_labels_has_zero_loss_and_a_gradient():
    sim = torch.zeros(1, 2, 2, requires_grad=True)
    found = Assignment(sim, sim.logsumexp(2), sim.logsumexp(1), sim[..., 0], sim[:, 0])
    nothing = torch.full((1, 2), IGNORE)
    nll, _, _ = assignment_nll(found, nothing, nothing)
    nll.sum().backward()
    assert nll.item() == 0
    assert torch.equal(sim.grad, torch.zeros_like(sim))


def test_parts_agree_with_kornias_log_assignment_matrix():
    torch.manual_seed(3)
    head = MatchAssignment(16)
    desc0, desc1 = torch.randn(2, 7, 16), torch.randn(2, 5, 16)
    found = assign(head, desc0, desc1, torch.ones(2, 7, dtype=bool), torch.ones(2, 5, dtype=bool))
    matrix, _ = head(desc0, desc1)
    b, i, j = (grid.flatten() for grid in torch.meshgrid(*(torch.arange(n) for n in (2, 7, 5)), indexing="ij"))
    torch.testing.assert_close(found.at(b, i, j), matrix[:, :7, :5].flatten())
    torch.testing.assert_close(torch.nn.functional.logsigmoid(-found.z0), matrix[:, :7, 5])
    decided0, decided1 = found.decide()
    assert torch.equal(decided0, matrix[:, :7].argmax(2))
    assert torch.equal(decided1, matrix[:, :, :5].argmax(1))


def test_confidence_by_hand():
    logits = (torch.zeros(1, 2), torch.tensor([[math.log(3), 0.0]]))
    now, final = (torch.tensor([[0, 1]]), torch.tensor([[0, 1]])), (torch.tensor([[0, 0]]), torch.tensor([[0, 1]]))
    everything = torch.ones(1, 2, dtype=bool)
    # side 0: ln 2 twice; side 1: -ln 3/4 for the sure and right one, ln 2 for the other
    expected = (math.log(2) + (math.log(4 / 3) + math.log(2)) / 2) / 2
    assert confidence_loss(logits, now, final, (everything, everything)).item() == pytest.approx(expected)


def features(n, seed, size=(160, 120)):
    g = torch.Generator().manual_seed(seed)
    desc = torch.nn.functional.normalize(torch.randn(n, 64, generator=g), dim=1)
    return Features(torch.rand(n, 2, generator=g) * 100, torch.rand(n, generator=g), desc, size)


def labels(points, *rows):
    out = torch.full(points.mask.shape, IGNORE)
    for b, row in enumerate(rows):
        out[b, : len(row)] = torch.tensor(row)
    return out


@pytest.fixture(scope="module")
def net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build("xfeat", 0.1)


def test_padding_changes_neither_loss_nor_gradient(net):
    short, long = (features(6, 1), features(5, 2)), (features(9, 3), features(12, 4))
    rows = [([0, 1, UNMATCHED, IGNORE, 4, 3], [0, 1, UNMATCHED, 5, 4]), ([2] + [UNMATCHED] * 8, [UNMATCHED] * 12)]

    def run(pairs, chosen):
        points0, points1 = stack(([p[0] for p in pairs], [p[1] for p in pairs]))
        matches = labels(points0, *(r[0] for r in chosen)), labels(points1, *(r[1] for r in chosen))
        net.zero_grad()
        total, _, _ = deep_loss(net, layers(net, points0, points1), (points0.mask, points1.mask), *matches)
        total.sum().backward()
        return total.detach(), torch.cat([p.grad.flatten() for p in net.parameters()])

    together, gradient = run([short, long], rows)
    alone = [run([pair], [row]) for pair, row in zip((short, long), rows, strict=True)]
    torch.testing.assert_close(together, torch.cat([loss for loss, _ in alone]), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient, alone[0][1] + alone[1][1], rtol=1e-3, atol=1e-5)


def test_image_without_keypoints_gives_a_finite_loss(net):
    points0, points1 = stack(([features(4, 1), features(0, 2)], [features(0, 3), features(5, 4)]))
    nothing = labels(points0, [UNMATCHED] * 4), labels(points1, [], [UNMATCHED] * 5)
    net.zero_grad()
    total, _, _ = deep_loss(net, layers(net, points0, points1), (points0.mask, points1.mask), *nothing)
    total.sum().backward()
    assert bool(total.isfinite().all())
    assert all(bool(p.grad.isfinite().all()) for p in net.parameters() if p.grad is not None)


def test_layers_end_where_kornias_network_ends(net):
    pair = features(30, 5), features(25, 6)
    points0, points1 = stack(([pair[0]], [pair[1]]))
    with torch.no_grad():
        *_, (desc0, desc1) = layers(net, points0, points1)
        matrix, _ = net.log_assignment[-1](desc0, desc1)
        data = {
            f"image{k}": {"keypoints": p.kpts, "descriptors": p.desc, "image_size": p.size}
            for k, p in enumerate((points0, points1))
        }
        torch.testing.assert_close(matrix, net(data)["log_assignment"], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_the_total_is_the_mean_of_the_layers_plus_that_of_their_confidences(net):
    points0, points1 = stack(([features(8, 1)], [features(7, 2)]))
    matches = labels(points0, [0, 1, UNMATCHED, IGNORE, 4]), labels(points1, [0, 1, UNMATCHED, UNMATCHED, 4])
    masks, states = (points0.mask, points1.mask), list(layers(net, points0, points1))
    found = [assign(head, *state, *masks) for head, state in zip(net.log_assignment, states, strict=True)]
    nll = sum(assignment_nll(one, *matches)[0] for one in found) / len(found)
    confidence = sum(
        confidence_loss(tuple(part.token[0](d)[..., 0] for d in state), one.decide(), found[-1].decide(), masks)
        for part, state, one in zip(net.token_confidence, states, found, strict=False)
    ) / (len(found) - 1)
    total, parts, _ = deep_loss(net, states, masks, *matches)
    assert len(found) > 2 and nll.item() > 0 and confidence.item() > 0
    torch.testing.assert_close(parts["confidence"], confidence)
    torch.testing.assert_close(total, nll + confidence)


def test_descriptors_of_the_confidence_are_detached(net):
    points0, points1 = stack(([features(8, 1)], [features(8, 2)]))
    nothing = labels(points0, [IGNORE] * 8), labels(points1, [IGNORE] * 8)
    net.zero_grad()
    total, parts, _ = deep_loss(net, layers(net, points0, points1), (points0.mask, points1.mask), *nothing)
    total.sum().backward()
    assert parts["confidence"].item() > 0
    assert all(p.grad is None or not p.grad.any() for p in net.transformers.parameters())
    assert SimpleNamespace(w=net.token_confidence[0].token[0].weight.grad).w.abs().sum() > 0


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++ on a CPU")
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # which torch's compiler looks at
def test_compiled_layers_learn_as_they_are():
    """By torch's own compiler, for numbers of keypoints that it has not seen."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        matcher = create(*PUBLISHED_MODELS["xfeat-lightglue"], "test").eval()
    counts = [(9, 12), (7, 5), (8, 16)]

    def run():
        results = []
        for seed, (m, n) in enumerate(counts):
            points0, points1 = stack(([features(m, seed)], [features(n, seed + 9)]))
            rows = labels(points0, [1, UNMATCHED]), labels(points1, [UNMATCHED, 0])
            matcher.network.zero_grad()
            states = layers(matcher.network, points0, points1)
            total, _, _ = deep_loss(matcher.network, states, (points0.mask, points1.mask), *rows)
            total.sum().backward()
            gradient = torch.cat([p.grad.flatten() for p in matcher.trainable() if p.grad is not None])
            results.append((total.detach(), gradient))
        return results

    before = run()
    # traced and differentiated as for Inductor, whose C++ compiler takes minutes and fails on paths with a space
    matcher.compile(dynamic=True, backend="aot_eager")
    for found, expected in zip(run(), before, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
