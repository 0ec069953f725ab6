"""Invalid config files: one line that names the file or key, before anything is built."""

import pytest
from detectron2.config import get_cfg
from helpers.paths import ROOT
from helpers.refusals import QUICK, refusal

from crbp_d2.config import add_crbp_config
from crbp_d2.config_file import leaves, merge_config_file, merge_options
from crbp_d2.engine.run import main

pytestmark = pytest.mark.usefixtures("nothing_is_built")


def test_a_key_whose_default_is_none_may_be_none_again(tmp_path):
    cfg = get_cfg()
    add_crbp_config(cfg)
    keys = [key for key, value in leaves(cfg) if value is None]
    assert len(keys) == 2
    (tmp_path / "config.yaml").write_text(
        "SOLVER: {WEIGHT_DECAY_BIAS: null}\nMODEL: {RECURRENCE: {EARLY_STOP: {ENABLED: null}}}\n"
    )
    for undo in (
        lambda: merge_options(cfg, [part for key in keys for part in (key, "None")]),
        lambda: merge_config_file(cfg, str(tmp_path / "config.yaml")),
    ):
        merge_options(cfg, ["SOLVER.WEIGHT_DECAY_BIAS", 0.0, "MODEL.RECURRENCE.EARLY_STOP.ENABLED", True])
        undo()
        assert [key for key, value in leaves(cfg) if value is None] == keys


@pytest.mark.parametrize(
    "content,parts",
    [
        ("- a\n- b\n", ["list"]),
        ("", ["empty"]),
        ("# only a comment\n", ["empty"]),
        ("just words\n", ["str"]),
        ("MODEL: [\n", ["YAML"]),
        ("MODEL: 3\n", ["MODEL", "3"]),
        ("MODEL: {RPN: [1]}\n", ["MODEL.RPN", "[1]"]),
        ("SOLVER: {BASE_LR: .inf}\n", ["SOLVER.BASE_LR", "inf"]),
        ("MODELL: {A: 3}\n", ["MODELL"]),
        ("_BASE_: 'nothing.yaml'\n", ["nothing.yaml", "_BASE_"]),
        ("_BASE_: 'config.yaml'\n", ["_BASE_", "config.yaml -> "]),
        ("_BASE_: {a: b}\n", ["_BASE_"]),
        ("SOLVER: {MAX_ITER: many}\n", ["SOLVER.MAX_ITER"]),
        ("SOLVER: {BASE_LR: .nan}\n", ["SOLVER.BASE_LR", "nan"]),
        ("VERSION: 9\n", ["v9"]),
        ("SOLVER: {MAX_ITER: null}\n", ["SOLVER.MAX_ITER"]),
        ("SOLVER: {STEPS: }\n", ["SOLVER.STEPS"]),
        ("_BASE_: 'https://nowhere.invalid/a.yaml'\n", ["nowhere.invalid", "_BASE_"]),
    ],
)
def test_invalid_config_files_are_named(tmp_path, content, parts):
    path = tmp_path / "config.yaml"
    if "SOLVER" in content:
        content = f"_BASE_: {ROOT / QUICK}\n{content}"
    path.write_text(content)
    message = refusal(config=path)
    assert all(part in message for part in parts)
    # A value is named by its key, an invalid file by its path.
    assert "SOLVER." in message or str(path) in message


def test_bases_in_a_circle_of_two(tmp_path):
    (tmp_path / "a.yaml").write_text("_BASE_: b.yaml\n")
    (tmp_path / "b.yaml").write_text("_BASE_: [./a.yaml]\n")
    message = refusal(config=tmp_path / "a.yaml")
    assert "_BASE_" in message and "a.yaml" in message and "b.yaml" in message


@pytest.mark.parametrize("where", ["itself", "base"])
def test_a_tag_is_not_executed(tmp_path, where):
    marker = tmp_path / "ran"
    evil = tmp_path / "evil.yaml"
    evil.write_text(f"OUTPUT_DIR: !!python/object/apply:os.mkdir ['{marker}']\n")
    config = evil
    if where == "base":
        config = tmp_path / "config.yaml"
        config.write_text("_BASE_: evil.yaml\n")
    assert "evil.yaml" in refusal(config=config)
    assert not marker.exists()


def test_no_config_file(tmp_path):
    assert "nothing.yaml" in refusal(config=tmp_path / "nothing.yaml")
    with pytest.raises(SystemExit, match="--config-file"):
        main([])
