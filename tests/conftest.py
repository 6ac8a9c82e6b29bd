"""What all tests share: one Prefect server a session, state kept out of the checkout."""

import os
import tempfile

import pytest

_home = tempfile.TemporaryDirectory(prefix="minima-tests-")


def pytest_configure():
    """Point Prefect elsewhere before anything imports `flows`, which leaves alone what is set."""
    os.environ["PREFECT_HOME"] = _home.name
    os.environ["PREFECT_API_URL"] = ""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Begin with the long groups, each of which one worker runs alone: at the end the other would wait for it."""
    order = {"e2e": 0, "prefect": 1, "networks": 2}
    items.sort(key=lambda item: min((order[mark.args[0]] for mark in item.iter_markers("xdist_group")), default=3))


def pytest_unconfigure():
    _home.cleanup()


@pytest.fixture(scope="session")
def prefect_server():
    """A Prefect API with a database of its own; it takes seconds to start, so that there is one a worker."""
    from prefect.testing.utilities import prefect_test_harness

    import flows  # noqa: F401  sets that nobody is called

    with prefect_test_harness(server_startup_timeout=120):
        yield
