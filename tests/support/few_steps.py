"""A training of a few steps on one batch."""

import torch

from minima_core.matchers.base import Losses, Matcher


def few_steps(matcher: Matcher, batch: object, optimiser: torch.optim.Optimizer, count: int = 8) -> list[Losses]:
    """Do ``count`` steps and return the loss before each."""
    found = []
    for _ in range(count):
        losses = matcher.loss(batch)
        optimiser.zero_grad()
        losses.total.backward()
        optimiser.step()
        found.append(losses)
    return found
