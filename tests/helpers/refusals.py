"""Messages of tools/train_net.py for rejected input."""

import pytest

from crbp_d2.engine.run import main

from .paths import ROOT

QUICK = "configs/quick/pathfinder_hgru_crbp_instant_test.yaml"


def refusal(*arguments: object, config: object = QUICK) -> str:
    """The one line that a run with these arguments ends with."""
    flags = ["--config-file", str(ROOT / str(config)), *map(str, arguments)]
    with pytest.raises(SystemExit) as stopped:
        main(flags)
    message = str(stopped.value)
    assert "\n" not in message and "Traceback" not in message
    return message
