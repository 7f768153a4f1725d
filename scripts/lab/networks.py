"""The generators and the discriminator.

All are fully convolutional and use only operators that the node's engine runs.  The shipped ones
have no normalisation layers: contrast is information here, and a slice must not change when
another slice shares its batch.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


class Residual(nn.Module):
    """x + conv(act(conv(x))), scaled at the start so that a deep stack begins as the identity."""

    def __init__(self, width):
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        with torch.no_grad():
            self.second.weight.mul_(0.1)
            self.second.bias.zero_()

    def forward(self, x):
        return x + self.second(F.leaky_relu(self.first(x), 0.1))


class ResUNet(nn.Module):
    """U-Net of residual blocks that starts at half resolution and ends by sub-pixel output.

    A strided convolution of 4x4 takes the image to half resolution at once, where widths[0] channels
    hold all of it; skips are additions.  [N, C, H, W] -> [N, outputs, H, W]; H and W multiples of
    2^len(widths).
    """

    def __init__(self, inputs=1, widths=(48, 80, 128, 160), blocks=(1, 1, 1, 2), outputs=1):
        super().__init__()
        self.multiple = 2 ** len(widths)
        self.head = nn.Conv2d(inputs, widths[0], 4, 2, 1)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 4, 2, 1) for a, b in zip(widths, widths[1:]))
        self.down_blocks = nn.ModuleList(nn.Sequential(*[Residual(w) for _ in range(n)]) for w, n in zip(widths, blocks))
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 4, 2, 1) for a, b in zip(widths, widths[1:]))
        self.up_blocks = nn.ModuleList(nn.Sequential(*[Residual(w) for _ in range(n)]) for w, n in zip(widths, blocks[:-1]))
        self.tail = nn.Conv2d(widths[0], 4 * outputs, 3, padding=1)

    def forward(self, x):
        x = self.down_blocks[0](F.leaky_relu(self.head(x), 0.1))
        kept = []
        for down, block in zip(self.down, self.down_blocks[1:]):
            kept.append(x)
            x = block(F.leaky_relu(down(x), 0.1))
        for i in range(len(self.up) - 1, -1, -1):
            x = self.up_blocks[i](F.leaky_relu(self.up[i](x) + kept[i], 0.1))
        return F.pixel_shuffle(self.tail(x), 2)

    def only(self, channel):
        """Keep one output channel: what several tasks learned together becomes a model of one task."""
        for name in ("weight", "bias"):
            setattr(self.tail, name, nn.Parameter(getattr(self.tail, name).detach()[4 * channel:4 * channel + 4].clone()))
        self.tail.out_channels = 4
        return self


def cubic_phases(scale):
    """Kernels (scale², 1, 5, 5): Keys' cubic (a = -0.75 as PyTorch's) for every sub-pixel of a grid."""
    def keys(d, a=-0.75):
        d = abs(d)
        if d <= 1:
            return (a + 2) * d**3 - (a + 3) * d**2 + 1
        return a * (d**3 - 5 * d**2 + 8 * d - 4) if d < 2 else 0.0
    taps = np.array([[keys(k - 2 - ((s + 0.5) / scale - 0.5)) for k in range(5)] for s in range(scale)])
    return torch.tensor(np.einsum("si,tj->stij", taps, taps).reshape(scale**2, 1, 5, 5), dtype=torch.float32)


class SuperResolution(nn.Module):
    """EDSR-like: residual blocks on the low grid, sub-pixel output, added to cubic interpolation.

    [N, 1, H, W] -> [N, 1, scale·H, scale·W].  The cubic path is a fixed convolution, so an untrained
    network already interpolates.
    """

    def __init__(self, inputs=1, width=56, depth=8, scale=4):
        super().__init__()
        self.multiple, self.scale = 1, scale
        self.head = nn.Conv2d(inputs, width, 5, padding=2)
        self.body = nn.Sequential(*[Residual(width) for _ in range(depth)])
        self.mix = nn.Conv2d(width, width, 3, padding=1)
        self.tail = nn.Conv2d(width, scale * scale, 3, padding=1)
        self.register_buffer("cubic", cubic_phases(scale))
        with torch.no_grad():
            self.tail.weight.mul_(0.05)
            self.tail.bias.zero_()

    def forward(self, x):
        plain = F.conv2d(F.pad(x[:, :1], (2, 2, 2, 2), mode="replicate"), self.cubic)
        deep = F.leaky_relu(self.head(x), 0.1)
        deep = F.leaky_relu(self.mix(self.body(deep) + deep), 0.1)
        return F.pixel_shuffle(plain + self.tail(deep), self.scale)


class EncoderDecoder(nn.Module):
    """The generator of the paper: pix2pix without skips, batch normalisation, dropout in the decoder.

    skips: with them, pix2pix's U-Net: each level of the decoder also sees the encoder's of its size.
    scale: its input is enlarged linearly by as much first, as the paper does for super-resolution.
    """

    def __init__(self, inputs=1, base=64, depth=8, widest=8, outputs=1, scale=1, skips=False):
        super().__init__()
        self.multiple, self.scale, self.skips = 2**depth // scale, scale, skips
        widths = [min(base * 2**k, base * widest) for k in range(depth)]
        down = [nn.Sequential(nn.Conv2d(inputs, widths[0], 4, 2, 1))]
        for k in range(1, depth):
            layers = [nn.LeakyReLU(0.2), nn.Conv2d(widths[k - 1], widths[k], 4, 2, 1, bias=k == depth - 1)]
            down.append(nn.Sequential(*layers, *[nn.BatchNorm2d(widths[k])] * (k < depth - 1)))
        up = []
        for k in range(depth - 1, 0, -1):
            given = widths[k] * (2 if skips and k < depth - 1 else 1)
            layers = [nn.ReLU(), nn.ConvTranspose2d(given, widths[k - 1], 4, 2, 1, bias=False), nn.BatchNorm2d(widths[k - 1])]
            up.append(nn.Sequential(*layers, *[nn.Dropout(0.5)] * (k > depth - 4)))
        up.append(nn.Sequential(nn.ReLU(), nn.ConvTranspose2d(widths[0] * (1 + skips), outputs, 4, 2, 1), nn.Tanh()))
        self.down, self.up = nn.ModuleList(down), nn.ModuleList(up)

    def forward(self, x):
        if self.scale > 1:
            x = F.interpolate(x, scale_factor=self.scale, mode="bilinear")
        kept = []
        for layer in self.down:
            x = layer(x)
            kept.append(x)
        for layer, beside in zip(self.up, kept[::-1]):
            x = layer(torch.cat([x, beside], 1) if self.skips and x is not beside else x)
        return x

    def only(self, channel):
        """Keep one output channel, as ResUNet.only()."""
        last = self.up[-1][1]
        last.weight = nn.Parameter(last.weight.detach()[:, channel:channel + 1].clone())
        last.bias = nn.Parameter(last.bias.detach()[channel:channel + 1].clone())
        last.out_channels = 1
        return self


class PatchDiscriminator(nn.Module):
    """Judges overlapping patches of (source, image) pairs; base 64 is the paper's 70x70 network."""

    def __init__(self, inputs=2, base=32):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, base, 4, 2, 1), nn.LeakyReLU(0.2),
            nn.Conv2d(base, base * 2, 4, 2, 1), nn.InstanceNorm2d(base * 2), nn.LeakyReLU(0.2),
            nn.Conv2d(base * 2, base * 4, 4, 2, 1), nn.InstanceNorm2d(base * 4), nn.LeakyReLU(0.2),
            nn.Conv2d(base * 4, base * 4, 4, 1, 1), nn.InstanceNorm2d(base * 4), nn.LeakyReLU(0.2),
            nn.Conv2d(base * 4, 1, 4, 1, 1))

    def forward(self, source, image):
        return self.layers(torch.cat([source, image], 1))


KINDS = {"resunet": ResUNet, "super": SuperResolution, "encoder-decoder": EncoderDecoder}


def context_of(spec):
    """Slices of the source that a network of this description is given."""
    return spec.get("inputs", 1)


def build(spec):
    """A generator from {"kind": …, other constructor arguments}."""
    spec = dict(spec)
    kind = spec.pop("kind")
    if kind not in KINDS:
        raise ValueError(f"unknown network {kind!r}: one of {', '.join(KINDS)}")
    return KINDS[kind](**spec)


def cost(network, rows, columns, inputs=1):
    """(multiply-accumulates, parameters) of a network on one image."""
    total = [0]

    def hook(layer, given, output):
        if isinstance(layer, nn.Conv2d):
            total[0] += output.numel() * layer.weight[0].numel()
        elif isinstance(layer, nn.ConvTranspose2d):
            total[0] += given[0].numel() * layer.weight[0].numel()

    hooks = [m.register_forward_hook(hook) for m in network.modules()]
    with torch.no_grad():
        network(torch.zeros(1, inputs, rows, columns))
    for h in hooks:
        h.remove()
    return total[0], sum(p.numel() for p in network.parameters())
