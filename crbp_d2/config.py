"""The configuration keys of this package: each with its default, meaning and source."""

from crbp_d2.utils import _detectron2  # noqa: F401, I001  (first: it explains a missing detectron2)

from detectron2.config import CfgNode as CN


def add_crbp_config(cfg: CN) -> None:
    """Add this package's keys to a detectron2 config, with the defaults of the constructors that take them.

    Those constructors check the values; their errors name the key.
    """
    cfg.MODEL.RECURRENCE = CN()
    node = cfg.MODEL.RECURRENCE

    # How the recurrence is trained: a name in crbp_d2.recurrence.RULES.
    node.RULE = "crbp"
    # Cell evaluations in training (N_t of the paper).
    node.STEPS = 20
    # Cell evaluations in inference; 0: as many as in training.
    node.TEST_STEPS = 0
    # Steps that tbptt, progressive and phantom differentiate (paper: 3 of 6). progressive and crbp_random train with a
    # number of steps drawn anew at each iteration, from TRUNCATION to 2 STEPS - TRUNCATION; progressive_far and
    # progressive_mixed with one from TRUNCATION to 8 STEPS, short more often than long.
    node.TRUNCATION = 3
    # Fraction of the new state in the TRUNCATION steps that phantom differentiates; 1: undamped.
    node.PHANTOM_DAMPING = 0.5
    # Weight of the loss after STEPS steps under progressive_mixed, whose other loss is that after a drawn number.
    node.FIXED_WEIGHT = 0.5
    # Norm between the last state and the readout. Mask head and semantic head: a name in crbp_d2.modeling.heads
    # (paper: SyncBN, which becomes BN, with the same parameters, unless several GPUs train); MODEL.ROI_MASK_HEAD.NORM,
    # where one is given, takes its place. Contour heads: a name in crbp_d2.layers.norms.NORMS (paper: BN).
    node.READOUT_NORM = "BN"

    node.CELL = CN()
    # A name in crbp_d2.cells.CELLS.
    node.CELL.NAME = "GalaHGRUCell"
    # Channels of the state; 0: those of the head (MODEL.ROI_MASK_HEAD.CONV_DIM) or stem (MODEL.CONTOUR.CHANNELS).
    node.CELL.CHANNELS = 0
    # Extent of the horizontal connections; 0: the cell's own (paper: 3 in the mask head's GalaHGRUCell, 15 in those of
    # the Pathfinder networks).
    node.CELL.KERNEL_SIZE = 0
    # A name in crbp_d2.layers.norms.NORMS; "": the cell's own (GN of the GalaHGRUCell, BN of the HGRUCell).
    node.CELL.NORM = ""
    # Steps up to which chrono initialization spreads the gates' time constants (paper: STEPS); 0: STEPS; 1 or 2: all
    # gates half open, so that the run settles sooner.
    node.CELL.TIMESCALE = 0
    # Initial state of a run: "zero" (paper), or "drive", the state that the drive leads to, which is nearer to the
    # fixed point and costs about half a step.
    node.CELL.START = "zero"
    # Of the HGRUCell: the paper's printed equations, or those of the authors' released parameters ("released").
    node.CELL.FORM = "printed"
    # How its convolutions, and those of the feedforward control, are computed: a name in
    # crbp_d2.layers.convolution.METHODS: "direct"; "fft", by Fourier transform; "auto", by a cost model, a function of
    # the shapes, the precision and the kind of device.
    node.CELL.CONVOLUTION = "auto"
    # Compile the steps that no series of products is computed through, by torch.compile.
    node.CELL.COMPILE = False

    node.SOLVER = CN()
    # A name in crbp_d2.recurrence.SOLVERS; "": the rule's own (Anderson for deq, FixedSteps for the others).
    node.SOLVER.NAME = ""
    # Anderson and Broyden end an RoI's run at this residual.
    node.SOLVER.TOL = 1e-3
    # Their cell evaluations at most; 0: MODEL.RECURRENCE.STEPS.
    node.SOLVER.MAX_STEPS = 0
    # Earlier points they remember; 0: the solver's own number.
    node.SOLVER.MEMORY = 0
    # Fraction of the new step in Anderson's mix; 1: undamped.
    node.SOLVER.DAMPING = 1.0

    node.NEUMANN = CN()
    # Jacobian products K of the series g + gJ + ... + gJ^K (paper: 15); 0 is the one-step gradient.
    node.NEUMANN.TERMS = 15
    # End an RoI's series once a term is this small relative to the first; 0: always K products.
    node.NEUMANN.TOL = 0.0

    node.PENALTY = CN()
    # A name in crbp_d2.recurrence.PENALTIES: the paper's, or "Contraction", the growth of a vector near the leading
    # direction of the Jacobian.
    node.PENALTY.NAME = "Lipschitz"
    # Rounds of power iteration that bring the vector of "Contraction" there.
    node.PENALTY.POWER_ITERATIONS = 3
    # Factor of the penalty in the loss (paper: 0.001 in the mask head, 10 in Pathfinder).
    node.PENALTY.WEIGHT = 0.001
    # lambda (paper: 0.95 in the mask head, 0.9 in Pathfinder).
    node.PENALTY.BOUND = 0.9
    # "sum" (paper's mask head) or "mean" (Pathfinder): of "Lipschitz" over all elements of the state, of "Contraction"
    # over the samples.
    node.PENALTY.REDUCTION = "sum"

    node.EARLY_STOP = CN()
    # In inference an RoI takes no further steps once its residual is within TOL; what it gets does not depend on
    # the other RoIs, so neither CELL.NORM "BN" nor a solver that stops at a tolerance is allowed. None: where
    # the states are trained to settle, by PENALTY.NAME "Contraction", and the rest allows it, and
    # TEST.STEPS_TO_EVALUATE is ().
    node.EARLY_STOP.ENABLED = None
    node.EARLY_STOP.TOL = 3e-3

    # The Pathfinder networks: BACKBONE.NAME ContourStem, SEM_SEG_HEAD.NAME ContourSegHead (whose recurrence is
    # MODEL.RECURRENCE) or FeedforwardContourHead.
    cfg.MODEL.CONTOUR = CN()
    # Channels of the stem and of all that follows (paper: 25).
    cfg.MODEL.CONTOUR.CHANNELS = 25
    # Extent of the stem's Gabor filters (paper: 7).
    cfg.MODEL.CONTOUR.STEM_KERNEL_SIZE = 7
    # Layers of the feedforward control, of MODEL.RECURRENCE.CELL.KERNEL_SIZE and NORM (paper: 6).
    cfg.MODEL.CONTOUR.NUM_LAYERS = 6
    # gamma of the focal loss (paper: 2).
    cfg.MODEL.CONTOUR.FOCAL_GAMMA = 2.0
    # Probability of the target contour that the predictions start with.
    cfg.MODEL.CONTOUR.PRIOR_PROB = 0.01

    # "SGD" (detectron2's), "Adam" or "AdamW".
    cfg.SOLVER.OPTIMIZER = "SGD"
    # Images of a batch in evaluation, on each device.
    cfg.TEST.IMS_PER_BATCH = 1
    # Cell evaluations after which the prediction is scored as well, all from one run of the recurrence over the data;
    # (): only after TEST_STEPS.
    cfg.TEST.STEPS_TO_EVALUATE = ()
    # Images of each test set that are drawn after an evaluation; 0: none.
    cfg.TEST.PICTURES = 8
    # "group/metric" of an evaluation, for instance "panoptic_seg/PQ" or "pathfinder/F1" (with several test sets
    # "set/group/metric"); the checkpoint with the largest one is kept as model_best.pth. "": none. Needs
    # TEST.EVAL_PERIOD.
    cfg.TEST.BEST_METRIC = ""
    # Images of the first test set on which the training losses are computed at each TEST.EVAL_PERIOD, as scalars
    # validation/...; 0: none.
    cfg.TEST.VALIDATION_IMAGES = 0
    # Also report after how many steps the predictions settle.
    cfg.TEST.SETTLING = False

    # Contiguous parts that the images of a batch are split in, one after the other: 1/ACCUMULATE of the memory. The
    # update is the same up to norms with batch statistics and losses that are means over RoIs (docs/RECIPES.md).
    cfg.SOLVER.ACCUMULATE = 1
    # Precision of SOLVER.AMP: "float16" (CUDA only, with loss scaling) or "bfloat16".
    cfg.SOLVER.AMP.DTYPE = "float16"
    # Exponential moving average of the weights, which is evaluated in their place and saved as model_ema.pth.
    cfg.SOLVER.EMA = CN()
    cfg.SOLVER.EMA.ENABLED = False
    cfg.SOLVER.EMA.DECAY = 0.999


def require_keys(cfg: CN) -> None:
    """Check that a config has this package's keys.

    Raises:
        ValueError: names add_crbp_config.
    """
    if "RECURRENCE" not in cfg.MODEL:
        raise ValueError(
            "the config has no MODEL.RECURRENCE: call crbp_d2.add_crbp_config(cfg) before files and options are merged"
        )
