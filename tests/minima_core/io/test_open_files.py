"""Files that stay open: opened once while there is room, closed in the order of their last use."""

from pathlib import Path

import pytest

from minima_core.io import open_files
from minima_core.io.open_files import OpenFiles


class Recorded:
    """A file that says what happens to it."""

    def __init__(self, log, name):
        self.log, self.name = log, name
        log.append(f"+{name}")

    def close(self):
        self.log.append(f"-{self.name}")


@pytest.fixture
def log(monkeypatch):
    monkeypatch.setattr(open_files, "OPEN_FILES", 2)
    return []


def use(files, names):
    for name in names:
        with files.use(Path(name)) as file:
            assert file.name == name


def test_a_file_opens_once_while_there_is_room(log):
    files = OpenFiles(lambda path: Recorded(log, path.name))
    use(files, "ababbaab")
    assert log == ["+a", "+b"]


def test_the_one_unused_for_longest_is_closed(log):
    files = OpenFiles(lambda path: Recorded(log, path.name))
    use(files, "abac")
    assert log == ["+a", "+b", "-b", "+c"]
    files.close()
    assert sorted(log[4:]) == ["-a", "-c"]
    use(files, "a")
    assert log[6:] == ["+a"]


def test_a_file_that_cannot_be_opened_is_asked_for_again(log):
    def opened(path):
        log.append(path.name)
        raise OSError

    files = OpenFiles(opened)
    for _ in range(2):
        with pytest.raises(OSError), files.use(Path("a")):  # noqa: PT011, any
            pass
    assert log == ["a", "a"]
