#!/usr/bin/env python
"""Train or evaluate a model; the flags are detectron2's.

tools/train_net.py --config-file configs/panoptic_R50_crbp.yaml --num-gpus 8
tools/train_net.py --config-file configs/panoptic_R50_crbp.yaml --eval-only MODEL.WEIGHTS model.pth
"""

import sys

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.engine import default_argument_parser, launch
from detectron2.evaluation import verify_results

from crbp_d2.engine import Trainer, check_inputs, setup


def main(args):
    try:
        cfg = setup(args)
        check_inputs(cfg, train=not args.eval_only, resume=args.resume)
    except (FileNotFoundError, KeyError, ValueError) as error:
        sys.exit(f"train_net.py: {error.args[0] if isinstance(error, KeyError) else error}")
    if args.eval_only:
        model = Trainer.build_model(cfg)
        DetectionCheckpointer(model, cfg.OUTPUT_DIR).resume_or_load(cfg.MODEL.WEIGHTS, resume=args.resume)
        results = Trainer.test(cfg, model)
    else:
        trainer = Trainer(cfg, resume=args.resume)
        trainer.resume_or_load(resume=args.resume)
        results = trainer.train()
    verify_results(cfg, results or {})
    return results


if __name__ == "__main__":
    args = default_argument_parser().parse_args()
    launch(
        main,
        args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        args=(args,),
    )
