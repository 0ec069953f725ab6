"""The operations of the cells written out with numpy in float64, for references independent of torch's."""

import numpy as np


def parameters_of(cell):
    """Name -> float64 array."""
    return {name: value.detach().double().numpy() for name, value in cell.named_parameters()}


def convolve(x, weight, bias=None):
    """Zero-padded convolution as a sum over shifted images."""
    extent = weight.shape[-1]
    reach = extent // 2
    padded = np.pad(x, ((0, 0), (0, 0), (reach, reach), (reach, reach)))
    height, width = x.shape[2:]
    out = np.zeros((len(x), len(weight), height, width))
    for i in range(extent):
        for j in range(extent):
            out += np.einsum("oc,nchw->nohw", weight[:, :, i, j], padded[:, :, i : i + height, j : j + width])
    return out if bias is None else out + bias[None, :, None, None]


def group_norm(x, groups, weight, bias):
    shape = x.shape
    x = x.reshape(shape[0], groups, -1)
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return x.reshape(shape) * weight[None, :, None, None] + bias[None, :, None, None]


def batch_norm(x, weight, bias, eps=1e-3):
    """By the statistics of this very batch."""
    mean, var = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
    return (x - mean) / np.sqrt(var + eps) * weight[None, :, None, None] + bias[None, :, None, None]


def softplus(x):
    return np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))
