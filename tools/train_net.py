#!/usr/bin/env python
"""Train or evaluate a model; the flags are detectron2's and two more (--num-processes, --untrained).

tools/train_net.py --config-file configs/panoptic_R50_crbp.yaml --num-gpus 8
tools/train_net.py --config-file configs/panoptic_R50_crbp.yaml --eval-only MODEL.WEIGHTS model.pth
"""

import sys

try:
    from crbp_d2.engine.run import main
except ModuleNotFoundError as error:
    # A package that is not there, said in one line.
    sys.exit(f"train_net.py: {error}")

if __name__ == "__main__":
    main()
