"""Files that are written."""

import json

from crbp_d2.utils.files import write_json


def test_json_is_strict(tmp_path):
    write_json(tmp_path / "a.json", {"a": [1, float("nan"), {"b": float("inf")}], "ü": 0.1})

    def reject(constant):
        raise AssertionError(constant)

    found = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"), parse_constant=reject)
    assert found == {"a": [1, None, {"b": None}], "ü": 0.1}
