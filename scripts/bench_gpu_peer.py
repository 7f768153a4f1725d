"""PyTorch's side of scripts/bench_gpu: the networks, their export to ONNX, and their times.

    bench_gpu_peer.py REPEAT NAME:SIZE:BATCH …    what takes minutes, torch.compile, in a process that may be ended: one
                                                  line of JSON for each as it is done, its times or why not
"""

import copy
import inspect
import json
import statistics
import sys
import time
import warnings

try:
    import numpy as np
except ImportError:  # bench_gpu goes on without, and without PyTorch
    np = None

EAGER = ("eager", "channels_last", "graph")  # what needs no compiling
WARM_UP_S, PEAK_WARM_UP_S, LONG_S, FEW = 0.1, 0.3, 2, 10


def images(batch: int, size: int) -> "np.ndarray":
    """The first images of a large batch are those of a small one."""
    return np.random.default_rng(0).random((batch, 3, size, size), np.float32) * 2 - 1


def steady(measure, runs: int, warm_up_s: float) -> float:
    """The median of what `measure` returns, after a warm-up; of fewer runs, but of FEW, where they take longer than LONG_S."""
    return statistics.median(repeated(measure, runs, warm_up_s))


def repeated(measure, runs: int, warm_up_s: float) -> list[float]:
    start = time.monotonic()
    for _ in range(FEW):
        measure()
    while time.monotonic() < start + warm_up_s:
        measure()
    start, found = time.monotonic(), []
    while len(found) < runs and (len(found) < FEW or time.monotonic() < start + LONG_S):
        found.append(measure())
    return found


def torch_networks():
    """Makers of the networks in PyTorch, by name."""
    import torch
    from torch import nn

    class Skip(nn.Module):
        def __init__(self, outer, inner, inside=None, image=None, skip=True):
            super().__init__()
            self.outermost, self.skip = image is not None, skip
            down = [] if self.outermost else [nn.LeakyReLU(0.2)]
            down.append(nn.Conv2d(image or outer, inner, 4, 2, 1))
            if inside and not self.outermost:
                down.append(nn.BatchNorm2d(inner))
            wide = inner * 2 if inside and skip else inner
            up = [nn.ReLU(), nn.ConvTranspose2d(wide, outer, 4, 2, 1), nn.Tanh() if self.outermost else nn.BatchNorm2d(outer)]
            self.body = nn.Sequential(*down, *([inside] if inside else []), *up)

        def forward(self, x):
            y = self.body(x)
            return y if self.outermost or not self.skip else torch.cat([x, y], 1)

    def unet(levels, skip=True, f=64):
        block = Skip(f * 8, f * 8, skip=skip)
        for _ in range(levels - 5):
            block = Skip(f * 8, f * 8, block, skip=skip)
        for outer, inner in ((f * 4, f * 8), (f * 2, f * 4), (f, f * 2)):
            block = Skip(outer, inner, block, skip=skip)
        return Skip(3, f, block, image=3, skip=skip)

    class Residual(nn.Module):
        def __init__(self, *layers):
            super().__init__()
            self.body = nn.Sequential(*layers)

        def forward(self, x):
            return x + self.body(x)

    def resnet(f=64):
        def norm(c, n):
            return [c, nn.InstanceNorm2d(n), nn.ReLU()]

        def block(n):
            return Residual(nn.ReflectionPad2d(1), *norm(nn.Conv2d(n, n, 3), n), nn.ReflectionPad2d(1), nn.Conv2d(n, n, 3), nn.InstanceNorm2d(n))

        return nn.Sequential(
            nn.ReflectionPad2d(3), *norm(nn.Conv2d(3, f, 7), f), *norm(nn.Conv2d(f, 2 * f, 3, 2, 1), 2 * f),
            *norm(nn.Conv2d(2 * f, 4 * f, 3, 2, 1), 4 * f), *[block(4 * f) for _ in range(9)],
            *norm(nn.ConvTranspose2d(4 * f, 2 * f, 3, 2, 1, output_padding=1), 2 * f),
            *norm(nn.ConvTranspose2d(2 * f, f, 3, 2, 1, output_padding=1), f), nn.ReflectionPad2d(3), nn.Conv2d(f, 3, 7), nn.Tanh())

    def edsr(c=64, blocks=16):
        body = [Residual(nn.Conv2d(c, c, 3, 1, 1), nn.ReLU(), nn.Conv2d(c, c, 3, 1, 1)) for _ in range(blocks)]
        return nn.Sequential(nn.Conv2d(3, c, 3, 1, 1), Residual(*body, nn.Conv2d(c, c, 3, 1, 1)), nn.Conv2d(c, 4 * c, 3, 1, 1),
                             nn.PixelShuffle(2), nn.Conv2d(c, 4 * c, 3, 1, 1), nn.PixelShuffle(2), nn.Conv2d(c, 3, 3, 1, 1))

    return {"U-Net 256": lambda: unet(8), "encoder-decoder 256": lambda: unet(8, skip=False), "U-Net 512": lambda: unet(9),
            "ResNet-9 256": resnet, "EDSR x4 128": edsr}


def whole_network(model, channels_last: bool):
    """From float images to float results, as ours."""
    import torch

    class Whole(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, image):
            half = image.half()
            if channels_last:
                half = half.to(memory_format=torch.channels_last)
            return self.model(half).float()

    return Whole()


class Peer:
    """PyTorch with one network at a time: makes it, exports it, times it."""

    def __init__(self):
        import torch

        self.torch = torch
        self.makers = torch_networks()
        self.made = self.name = self.reference = None
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False

    def model(self, name):
        """On the CPU, in float. Kept until another is asked for: the larger ones take seconds to make."""
        if self.name != name:
            self.torch.manual_seed(0)
            self.made, self.name, self.reference = self.makers[name]().eval(), name, None
        return self.made

    def export(self, name, size, path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it calls this way of exporting old
            # Versions that know no other way to export do not know the word for this one.
            old = {"dynamo": False} if "dynamo" in inspect.signature(self.torch.onnx.export).parameters else {}
            self.torch.onnx.export(self.model(name), (self.torch.zeros(1, 3, size, size),), str(path), opset_version=17,
                                   input_names=["image"], output_names=["synthetic"],
                                   dynamic_axes={"image": {0: "n"}, "synthetic": {0: "n"}}, **old)

    def largest_difference(self, name, x, result) -> float:
        """From the network in float, on as many of the images as are quick."""
        model = self.model(name)
        if self.reference is None or len(self.reference) < len(x):
            with self.torch.inference_mode(), self.torch.backends.cudnn.flags(enabled=True, benchmark=False, allow_tf32=False):
                self.reference = copy.deepcopy(model).cuda()(self.torch.from_numpy(x).cuda()).cpu().numpy()
        return float(np.abs(result - self.reference[:len(x)]).max())

    def peaks(self) -> tuple[float, float, float]:
        """TFLOP/s of a product in half, of random numbers after a warm-up: the median and the best run; GB/s of a copy, the median."""
        try:
            return self._peaks()
        finally:
            self.torch.cuda.empty_cache()  # ours, in another process, needs the room

    def _peaks(self) -> tuple[float, float, float]:
        torch = self.torch
        a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.half) for _ in range(2))
        c = torch.empty_like(a)
        products = repeated(lambda: self.device_ms(lambda: torch.mm(a, b, out=c)), 200, PEAK_WARM_UP_S)
        source = torch.rand(1 << 29, device="cuda")
        target = torch.empty_like(source)
        moved = steady(lambda: self.device_ms(lambda: target.copy_(source)), 200, PEAK_WARM_UP_S)
        flop = 2 * 8192**3 / 1e9
        return flop / statistics.median(products), flop / min(products), 2 * (1 << 31) / moved / 1e6

    def device_ms(self, call) -> float:
        begin, end = self.torch.cuda.Event(enable_timing=True), self.torch.cuda.Event(enable_timing=True)
        begin.record()
        call()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end)

    def step(self, whole, how, resident):
        """One run of the network on `resident`, whose numbers may change between calls."""
        torch = self.torch
        if how == "compiled":
            torch._dynamo.reset()  # each size and network anew: else the second size makes it dynamic, and the ninth is left uncompiled
            compiled = torch.compile(whole, mode="max-autotune", dynamic=False)

            def step():
                torch.compiler.cudagraph_mark_step_begin()  # the last result may be written over
                return compiled(resident)

            return step
        if how != "graph":
            return lambda: whole(resident)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                whole(resident)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = whole(resident)

        def replay():
            graph.replay()
            return out

        return replay

    def times(self, name, x, how, repeat) -> dict:
        try:
            return self._times(name, x, how, repeat)
        finally:
            self.torch.cuda.empty_cache()

    def _times(self, name, x, how, repeat) -> dict:
        torch = self.torch
        model = copy.deepcopy(self.model(name)).half().cuda()
        if how != "eager":
            model = model.to(memory_format=torch.channels_last)
        pinned = torch.from_numpy(x).pin_memory()
        with torch.inference_mode():
            resident = pinned.cuda()
            step = self.step(whole_network(model, how != "eager"), how, resident)
            result = torch.empty_like(step(), device="cpu", memory_format=torch.contiguous_format).pin_memory()

            def host_ms():
                torch.cuda.synchronize()
                start = time.perf_counter()
                resident.copy_(pinned, non_blocking=True)
                result.copy_(step(), non_blocking=True)
                torch.cuda.synchronize()
                return (time.perf_counter() - start) * 1e3

            return {"host_ms": steady(host_ms, repeat, WARM_UP_S), "device_ms": steady(lambda: self.device_ms(step), repeat, WARM_UP_S)}


def main(repeat: str, *wanted: str) -> None:
    peer = Peer()
    for text in wanted:
        name, size, batch = text.rsplit(":", 2)
        try:
            found = peer.times(name, images(int(batch), int(size)), "compiled", int(repeat))
        except Exception as e:  # whatever the compiler threw: the others may go well
            found = {"failed": f"{type(e).__name__}: {e}"[:500]}
        print(json.dumps({"network": name, "batch": int(batch), **found}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
