"""params.yaml is complete and valid, for plugins in use and not, and every reader sees the same values in it."""

import json
from pathlib import Path

import pytest
import yaml

from flows.promotion import Promotion
from minima_core.checks.rules import Params as Validation
from minima_core.config import checked, load_params, lookup
from minima_core.data.datasets.base import DATASETS
from minima_core.data.importers.base import IMPORTERS
from minima_core.evaluation.benchmarks.base import BENCHMARKS
from minima_core.evaluation.protocol import Evaluation, get_protocol
from minima_core.matchers.base import MATCHERS
from minima_core.synthesis.base import MODALITIES
from minima_core.synthesis.gate import Params as Gate
from minima_core.training.infrared import InfraredTraining
from minima_core.training.joint import JointTraining
from minima_core.training.loop import TrainingParams
from minima_core.training.painter import PainterTraining
from minima_core.training.refinement import RefinerTraining
from tasks.check import TOP
from tasks.pretrain import Pretrain

PATH = Path(__file__).resolve().parents[1] / "params.yaml"
PARAMS = load_params(PATH)
PLUGINS = {"dataset": DATASETS, "matcher": MATCHERS, "benchmark": BENCHMARKS}
SECTIONS = {
    **{f"training.pretrain.{matcher}": Pretrain for matcher in PARAMS["training"]["pretrain"]},
    **{
        f"training.finetune.{matcher}.{preset}": TrainingParams
        for matcher, presets in PARAMS["training"]["finetune"].items()
        for preset in presets
    },
    "gate": Gate,
    "infrared_training": InfraredTraining,
    "painter_training": PainterTraining,
    "joint_training": JointTraining,
    "refiner_training": RefinerTraining,
    "validation": Validation,
    "promotion": Promotion,
    **{f"evaluation.{name}": Evaluation for name in PARAMS["evaluation"]},
}


def test_plain_yaml_omegaconf_and_dvc_read_the_same():
    from dvc.utils.serialize import load_yaml

    text = json.dumps(PARAMS, sort_keys=True)
    assert json.dumps(yaml.safe_load(PATH.read_text()), sort_keys=True) == text  # 1e-4 would be text here, on a bool
    assert json.dumps(load_yaml(str(PATH)), sort_keys=True) == text


def test_nothing_is_interpolated():
    assert "${" not in PATH.read_text()  # DVC hashes the text and would not see what it stands for change


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind in PLUGINS for name in PARAMS[kind] if (kind, name) != ("dataset", "name")]
)
def test_settings_of_every_plugin_are_valid(kind, name):
    plugin = PLUGINS[kind].get(name)
    whole(PARAMS[kind][name], plugin.Params, f"{kind}.{name}")


@pytest.mark.parametrize("modality", PARAMS["synthesis"])
def test_settings_of_every_modality_are_valid(modality):
    engine = MODALITIES.create(modality, PARAMS["synthesis"][modality])
    whole(PARAMS["synthesis"][modality], type(engine.params), f"synthesis.{modality}")


@pytest.mark.parametrize("name", SECTIONS)
def test_other_sections_are_valid(name):
    whole(lookup(PARAMS, name), SECTIONS[name], name)


def whole(values, schema, where):
    """Check values, and that the schema adds none: DVC cannot see a default change."""
    model = checked(values, schema, where)
    assert set(model.model_dump(mode="json")) == set(values), f"{where} leaves settings to defaults"


@pytest.mark.parametrize("name", PARAMS["evaluation"])
def test_every_protocol_is_known(name):
    get_protocol(PARAMS["evaluation"][name]["protocol"])


def test_what_is_listed_has_settings():
    assert set(PARAMS["modalities"]) <= set(PARAMS["synthesis"]) <= set(MODALITIES.names())
    assert set(PARAMS["matchers"]) <= set(PARAMS["matcher"])
    training = PARAMS["training"]
    assert set(PARAMS["matchers"]) <= set(training["pretrain"]) == set(training["finetune"])
    assert all(set(presets) == {"demo", "paper"} for presets in training["finetune"].values())
    assert training["preset"] in {"demo", "paper"} and set(training) == {"preset", "pretrain", "finetune"}
    assert set(PARAMS["benchmarks"]) <= set(PARAMS["benchmark"]) == set(PARAMS["evaluation"])
    assert set(PARAMS["promotion"]["benchmarks"]) <= set(PARAMS["benchmarks"])
    assert PARAMS["dataset"]["name"] in PARAMS["dataset"]


@pytest.mark.parametrize("name", PARAMS["validation"]["suites"])
def test_a_suite_is_of_a_data_set_and_differs_from_the_common_one(name):
    common = Validation.model_validate(PARAMS["validation"])
    assert name in {*DATASETS.names(), *IMPORTERS.names()}
    assert common.suite(name) != common


def test_nothing_is_left_over():
    known = {"seed", "licence_policy", "modalities", "matchers", "benchmarks", "synthesis", *PLUGINS}
    assert set(PARAMS) == set(TOP) == known | {name.partition(".")[0] for name in SECTIONS}
