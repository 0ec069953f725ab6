"""Parts that work without detectron2, and the message of those that need it."""

import subprocess
import sys

BLOCK = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "detectron2":
            raise ModuleNotFoundError("No module named 'detectron2'", name="detectron2")

sys.meta_path.insert(0, Block())
"""


def run(code):
    return subprocess.run([sys.executable, "-c", BLOCK + code], capture_output=True, text=True)


def test_recurrence_and_cells_need_torch_alone():
    done = run(
        "import torch\n"
        "from crbp_d2.cells import GalaHGRUCell\n"
        "from crbp_d2.recurrence import learning_rule\n"
        "output = learning_rule('crbp', GalaHGRUCell(8), steps=2)(torch.zeros(1, 8, 4, 4))\n"
        "print(tuple(output.state[0].shape), [m for m in sys.modules if m.startswith(('detectron2', 'fvcore'))])"
    )
    assert done.stdout == "(1, 8, 4, 4) []\n", done.stderr


def test_everything_else_says_in_one_sentence_what_is_missing():
    for code in ("from crbp_d2 import Trainer", "import crbp_d2.modeling", "import crbp_d2.data"):
        done = run(code)
        assert done.returncode == 1
        message = done.stderr.strip().splitlines()[-1]
        assert message.startswith("ModuleNotFoundError: crbp_d2 needs detectron2"), done.stderr
        assert "make install" in message
