"""Averages of weights: a running one, which often validates better than any one step, and one with the parent's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

_PREFIX = "average/"


class Average:
    """The exponential moving average of a network's floating weights; with a decay of 0, the weights themselves."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = network
        self.decay = decay
        self._weights = {name: w.clone() for name, w in network.state_dict().items()} if decay else {}

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the weights of now; what is no floating number (a counter) is taken over."""
        if not self.decay:
            return
        for name, weight in self.network.state_dict().items():
            if weight.is_floating_point():
                self._weights[name].lerp_(weight, 1 - self.decay)
            else:
                self._weights[name].copy_(weight)

    def buffers(self) -> list[torch.Tensor]:
        """Return the averages of what is no weight: statistics that each process has its own of."""
        return [self._weights[name] for name, _ in self.network.named_buffers() if name in self._weights]

    def state(self) -> dict[str, torch.Tensor]:
        """Return the weights, with the average beside them, for a checkpoint."""
        return {**self.network.state_dict(), **{_PREFIX + name: w for name, w in self._weights.items()}}

    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take over what ``state`` returned."""
        self.network.load_state_dict({name: w for name, w in state.items() if not name.startswith(_PREFIX)})
        for name, mean in self._weights.items():
            mean.copy_(state[_PREFIX + name])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Have the average in the network for the time of a block."""
        before = {name: w.clone() for name, w in self.network.state_dict().items()} if self.decay else {}
        if before:
            self.network.load_state_dict(self._weights)
        try:
            yield
        finally:
            if before:
                self.network.load_state_dict(before)


def blend(network: nn.Module, start: Mapping[str, torch.Tensor], share: float) -> None:
    """Leave in ``network`` the weights that lie at ``share`` of the way from the weights ``start`` to its own.

    Fine-tuned weights forget some of what they started from; on the straight line between the two lie models that
    are better than either at both (WiSE-FT, arXiv 2109.01903).
    """
    network.load_state_dict(
        {
            name: torch.lerp(start[name].to(weight), weight, share) if weight.is_floating_point() else weight
            for name, weight in network.state_dict().items()
        }
    )
