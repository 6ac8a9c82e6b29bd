"""What all tests share: one Prefect server a session, state kept out of the checkout."""

import os
import tempfile

import pytest

_home = tempfile.TemporaryDirectory(prefix="minima-tests-")


def pytest_configure():
    """Point Prefect elsewhere before anything imports `flows`, which leaves alone what is set."""
    os.environ["PREFECT_HOME"] = _home.name
    os.environ["PREFECT_API_URL"] = ""


def pytest_unconfigure():
    _home.cleanup()


@pytest.fixture(scope="session")
def prefect_server():
    """A Prefect API with a database of its own; it takes seconds to start, so that there is one a session."""
    from prefect.testing.utilities import prefect_test_harness

    import flows  # noqa: F401  sets that nobody is called

    with prefect_test_harness(server_startup_timeout=120):
        yield
