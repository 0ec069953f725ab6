"""Run-length codes, measured without decoding, against their definition."""

import numpy as np
from pycocotools import mask as coco_mask

from crbp_d2.data.masks import measure_masks


def packed(mask):
    code = coco_mask.encode(np.asfortranarray(mask))
    return {"size": code["size"], "counts": code["counts"].decode()}


def decoded(counts):
    """The run lengths of a string, by the definition."""
    numbers, k = [], 0
    while k < len(counts):
        value, place = 0, 0
        while True:
            code, k = ord(counts[k]) - 48, k + 1
            value, place = value | (code & 31) << 5 * place, place + 1
            if code < 32:
                break
        value -= (1 << 5 * place) * (code >> 4 & 1)
        numbers.append(value + (numbers[-2] if len(numbers) > 2 else 0))
    return numbers


def test_run_lengths_are_judged_as_their_decoding():
    generator = np.random.default_rng(0)
    codes, expected = [], []
    for k in range(200):
        shape = generator.integers(1, 90, 2)
        code = packed((generator.random(shape) < (0, 0.02, 0.5, 1)[k % 4]).astype(np.uint8))
        if k % 3:  # one other character
            place, new = generator.integers(len(code["counts"])), chr(48 + generator.integers(32))
            code["counts"] = code["counts"][:place] + new + code["counts"][place + 1 :]
        lengths = decoded(code["counts"])
        valid = min(lengths) >= 0 and sum(lengths) == shape.prod()
        codes.append(code)
        expected.append(sum(lengths[1::2]) if valid else -1)
    areas = np.nan_to_num(measure_masks(codes)[0], nan=-1)
    assert areas[:, 0].tolist() == areas[:, 1].tolist() == expected
    assert 40 < expected.count(-1) < 140
