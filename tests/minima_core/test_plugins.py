"""A plugin is a file; nothing is imported before it is asked for."""

import sys
from abc import ABC, abstractmethod

import pytest

from minima_core.errors import ConfigError
from minima_core.plugins import Plugins


class Animal(ABC):
    @abstractmethod
    def sound(self) -> str: ...


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    package = tmp_path / "zoo_for_test"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "base.py").write_text("")
    (package / "_helper.py").write_text("")
    head = "from tests_animal import Animal\n"
    (package / "cat.py").write_text(head + "class Cat(Animal):\n    def sound(self): return 'miaow'\n")
    (package / "broken.py").write_text(head)
    module = type(sys)("tests_animal")
    module.Animal = Animal
    monkeypatch.setitem(sys.modules, "tests_animal", module)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield Plugins("zoo_for_test", Animal, "animal")
    for name in [n for n in sys.modules if n.startswith("zoo_for_test")]:
        del sys.modules[name]


def test_names_are_the_public_modules_and_import_none(zoo):
    assert zoo.names() == ["broken", "cat"]
    assert "zoo_for_test.cat" not in sys.modules


def test_get_returns_the_one_class(zoo):
    assert zoo.get("cat")().sound() == "miaow"


def test_a_wrong_name_lists_the_right_ones_and_the_closest(zoo):
    with pytest.raises(ConfigError, match=r"did you mean 'cat'.*broken, cat"):
        zoo.get("kat")


def test_a_module_without_a_plugin_says_so(zoo):
    with pytest.raises(ConfigError, match="exactly one Animal"):
        zoo.get("broken")
