"""Losses on images in [-1, 1], shape [N, 1, H, W]."""

import torch
from torch.nn import functional as F


def absolute(a, b, weight=None):
    """Mean absolute difference; weight [N, 1, H, W] says how much each pixel counts."""
    d = (a - b).abs()
    return (d if weight is None else d * weight).mean()


def square(a, b, weight=None):
    """Mean squared difference."""
    d = (a - b).square()
    return (d if weight is None else d * weight).mean()


def gradient(a, b, weight=None):
    """Mean absolute difference of horizontal and vertical differences: punishes blur."""
    d = a - b
    dx, dy = (d[..., 1:] - d[..., :-1]).abs(), (d[..., 1:, :] - d[..., :-1, :]).abs()
    if weight is not None:
        dx, dy = dx * weight[..., 1:], dy * weight[..., 1:, :]
    return dx.mean() + dy.mean()


def structure(a, b, weight=None, window=7):
    """1 - mean SSIM with a uniform window; the range of the data is 2.  The weight does not count here."""
    a, b = a.float().contiguous(), b.float().contiguous()

    def pool(x):  # sums of shifted views: on a CPU four times as fast as PyTorch's pooling, there and back
        rows, columns = x.shape[-2] - window + 1, x.shape[-1] - window + 1
        x = sum(x[..., k:k + rows, :] for k in range(window))
        return sum(x[..., k:k + columns] for k in range(window)) / window**2

    ma, mb = pool(a), pool(b)
    va, vb, vab = pool(a * a) - ma * ma, pool(b * b) - mb * mb, pool(a * b) - ma * mb
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    ssim = (2 * ma * mb + c1) * (2 * vab + c2) / ((ma * ma + mb * mb + c1) * (va.clamp(min=0) + vb.clamp(min=0) + c2))
    return 1.0 - ssim.mean()


def judge(logits, real):
    """Binary cross entropy of the critic's patches against one answer."""
    logits = logits.float()
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))
