"""What the tests of training stages share: a tracking server that remembers."""

from contextlib import contextmanager

import pytest

from minima_core.tracking import NullTracker


class Recorder(NullTracker):
    """Remembers tags, the (name, step) of metrics, the names of artifacts, and the arguments of the run."""

    def __init__(self):
        self.seen, self.points, self.run, self.kept = {}, [], {}, []

    def artifact(self, path):
        self.kept.append(path.name)

    def tags(self, values):
        self.seen |= values

    def metrics(self, values, step=None):
        self.points += [(name, step) for name in values]


@pytest.fixture
def tracker(monkeypatch):
    """Stand in for MLflow; returns what was recorded."""
    recorder = Recorder()

    @contextmanager
    def stage_run(name, **kwargs):
        recorder.run = {"name": name, **kwargs}
        yield recorder

    monkeypatch.setattr("tasks.tracking.stage_run", stage_run)
    return recorder
