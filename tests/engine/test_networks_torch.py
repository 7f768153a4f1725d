"""Whole generators as PyTorch itself exports them, on every engine against onnxruntime: at most 1e-5 apart.

Narrow forms of the published networks (every layer and connection, fewer channels), both exporters, dynamic sizes.
Needs torch (make setup-train); without it these tests are skipped; test_networks.py has the same idioms made by hand.
"""

import warnings

import enginekit
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: make setup-train")
nn = torch.nn


class UnetBlock(nn.Module):
    def __init__(self, outer, inner, inputs=None, inside=None, outermost=False, norm=nn.BatchNorm2d, skip=True):
        super().__init__()
        self.skip = skip and not outermost
        wide = inner * 2 if inside is not None and skip else inner
        up = nn.ConvTranspose2d(wide, outer, 4, 2, 1, bias=outermost)
        down = nn.Conv2d(inputs or outer, inner, 4, 2, 1, bias=False)
        if outermost:
            layers = [down, inside, nn.ReLU(True), up, nn.Tanh()]
        elif inside is None:
            layers = [nn.LeakyReLU(0.2, True), down, nn.ReLU(True), up, norm(outer)]
        else:
            layers = [nn.LeakyReLU(0.2, True), down, norm(inner), inside, nn.ReLU(True), up, norm(outer), nn.Dropout(0.5)]
        self.model = nn.Sequential(*layers)

    def forward(self, x):
        return torch.cat([x, self.model(x)], 1) if self.skip else self.model(x)


def unet(levels=5, width=8, norm=nn.BatchNorm2d, skip=True):
    block = UnetBlock(width * 4, width * 4, norm=norm, skip=skip)
    for i in range(levels - 4):
        block = UnetBlock(width * 4, width * 4, inside=block, norm=norm, skip=skip)
    block = UnetBlock(width * 2, width * 4, inside=block, norm=norm, skip=skip)
    block = UnetBlock(width, width * 2, inside=block, norm=norm, skip=skip)
    return UnetBlock(1, width, inputs=3, inside=block, outermost=True, norm=norm, skip=skip)


class Residual(nn.Module):
    def __init__(self, body, scale=1.0):
        super().__init__()
        self.body, self.scale = body, scale

    def forward(self, x):
        return x + self.body(x) * self.scale


def resnet(width=8, blocks=2, norm=nn.InstanceNorm2d):
    def block(n):
        return Residual(nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(n, n, 3), norm(n), nn.ReLU(True), nn.ReflectionPad2d(1), nn.Conv2d(n, n, 3), norm(n)))
    return nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(3, width, 7), norm(width), nn.ReLU(True), nn.Conv2d(width, width * 2, 3, 2, 1), norm(width * 2),
                         nn.ReLU(True), *[block(width * 2) for _ in range(blocks)], nn.ConvTranspose2d(width * 2, width, 3, 2, 1, 1), norm(width), nn.ReLU(True),
                         nn.ReflectionPad2d(3), nn.Conv2d(width, 1, 7), nn.Tanh())


class Enhancer(nn.Module):
    """pix2pixHD: a global generator at half size, its features added to those of the local enhancer."""

    def __init__(self):
        super().__init__()
        self.coarse = nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(3, 8, 7), nn.InstanceNorm2d(8), nn.ReLU())
        self.fine = nn.Sequential(nn.ReflectionPad2d(3), nn.Conv2d(3, 4, 7), nn.InstanceNorm2d(4), nn.ReLU(), nn.Conv2d(4, 8, 3, 2, 1), nn.InstanceNorm2d(8))
        self.up = nn.Sequential(nn.ConvTranspose2d(8, 4, 3, 2, 1, 1), nn.InstanceNorm2d(4), nn.ReLU(), nn.ReflectionPad2d(3), nn.Conv2d(4, 1, 7), nn.Tanh())
        self.shrink = nn.AvgPool2d(3, 2, [1, 1], count_include_pad=False)

    def forward(self, x):
        return self.up(self.fine(x) + self.coarse(self.shrink(x)))


class Edsr(nn.Module):
    def __init__(self, width=16, blocks=3):
        super().__init__()
        self.head = nn.Conv2d(3, width, 3, 1, 1)
        self.body = nn.Sequential(*[Residual(nn.Sequential(nn.Conv2d(width, width, 3, 1, 1), nn.ReLU(), nn.Conv2d(width, width, 3, 1, 1)), 0.1)
                                    for _ in range(blocks)], nn.Conv2d(width, width, 3, 1, 1))
        self.tail = nn.Sequential(nn.Conv2d(width, width * 4, 3, 1, 1), nn.PixelShuffle(2), nn.Conv2d(width, width * 4, 3, 1, 1), nn.PixelShuffle(2),
                                  nn.Conv2d(width, 1, 3, 1, 1))

    def forward(self, x):
        x = self.head(x)
        return self.tail(self.body(x) + x)


class Srgan(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.head = nn.Sequential(nn.Conv2d(3, width, 9, padding=4), nn.PReLU())
        self.body = nn.Sequential(*[Residual(nn.Sequential(nn.Conv2d(width, width, 3, 1, 1), nn.BatchNorm2d(width), nn.PReLU(width), nn.Conv2d(width, width, 3, 1, 1),
                                                           nn.BatchNorm2d(width))) for _ in range(2)])
        self.tail = nn.Sequential(nn.Conv2d(width, width * 4, 3, padding=1), nn.PixelShuffle(2), nn.PReLU(), nn.Conv2d(width, 1, 9, padding=4))

    def forward(self, x):
        x = self.head(x)
        return (torch.tanh(self.tail(x + self.body(x))) + 1) / 2


class Rrdb(nn.Module):
    def __init__(self, width=8, growth=4):
        super().__init__()
        self.head = nn.Conv2d(3, width, 3, 1, 1)
        self.dense = nn.ModuleList([nn.Conv2d(width + i * growth, growth if i < 4 else width, 3, 1, 1) for i in range(5)])
        self.up, self.tail = nn.Conv2d(width, width, 3, 1, 1), nn.Conv2d(width, 1, 3, 1, 1)

    def forward(self, x):
        act = nn.functional.leaky_relu
        h = [self.head(x)]
        for i, layer in enumerate(self.dense):
            y = layer(torch.cat(h, 1))
            h.append(act(y, 0.2) if i < 4 else y)
        x = h[0] + h[-1] * 0.2
        x = act(self.up(nn.functional.interpolate(x, scale_factor=2, mode="nearest")), 0.2)
        return self.tail(x)


def resize_conv():
    """Upsampling by interpolation, then a convolution, in place of transposed convolutions."""
    return nn.Sequential(nn.Conv2d(3, 8, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(8, 16, 4, 2, 1), nn.ReLU(),
                         nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False), nn.ZeroPad2d((1, 2, 1, 2)), nn.Conv2d(16, 8, 4),
                         nn.InstanceNorm2d(8, affine=True), nn.ReLU(), nn.Upsample(scale_factor=2, mode="nearest"), nn.ReplicationPad2d(1), nn.Conv2d(8, 1, 3),
                         nn.Hardtanh(-1, 1))


NETWORKS = {
    "unet": unet, "unet-instance": lambda: unet(norm=nn.InstanceNorm2d), "encoder-decoder": lambda: unet(skip=False), "resnet": resnet,
    "resnet-batch": lambda: resnet(norm=nn.BatchNorm2d), "pix2pixhd": Enhancer, "edsr": Edsr, "srgan": Srgan, "rrdb": Rrdb, "resize-conv": resize_conv,
}


def build(name: str):
    torch.manual_seed(len(name))
    network = NETWORKS[name]()
    for m in network.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.uniform_(-0.2, 0.2)
            m.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(m.weight, 0.5, 1.5)
            nn.init.uniform_(m.bias, -0.3, 0.3)
    return network.eval()


@pytest.fixture(scope="session", params=[(n, d) for n in NETWORKS for d in ("torchscript", "dynamo")], ids=lambda p: "-".join(p))
def exported(request, tmp_path_factory):
    name, exporter = request.param
    path = tmp_path_factory.mktemp(f"{name}-{exporter}") / f"{name}.onnx"
    network, example = build(name), torch.zeros(2, 3, 64, 64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if exporter == "dynamo":
            pytest.importorskip("onnxscript")
            sizes = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC} if name in ("edsr", "rrdb") else None
            torch.onnx.export(network, (example,), str(path), dynamo=True, verbose=False, input_names=["image"], output_names=["synthetic"],
                              dynamic_shapes=(sizes,) if sizes else None)
        else:
            torch.onnx.export(network, example, str(path), dynamo=False, opset_version=17, input_names=["image"], output_names=["synthetic"],
                              dynamic_axes={"image": {0: "n", 2: "h", 3: "w"}})
    return path


def test_network_agrees_with_onnxruntime(exported, engine, tmp_path):
    x = np.random.default_rng(1).uniform(-1, 1, (2, 3, 64, 64)).astype(np.float32)
    got = enginekit.run(exported, [x], tmp_path, engine).outputs[0]
    want = enginekit.oracle(exported, [x])[0]
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= 1e-5
