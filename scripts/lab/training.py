"""Train one generator as an experiment file says, so that a run can be cut off and go on.

A run lives in one folder: checkpoint.pt (everything needed to resume), curve.csv, samples/*.png,
experiment.yaml (a copy), best.pt (weights for the exporter).
"""

import copy
import csv
import os
import queue
import shutil
import threading
import time

import numpy as np
import torch
import yaml

from . import dataset, losses, networks
from .tasks import TASKS


class Loader(threading.Thread):
    """Makes batches ahead of time.  Batch k depends on (seed, k) only, so a resumed run sees the same."""

    def __init__(self, task, pool, crop, batch, seed, first):
        super().__init__(daemon=True)
        self.make, self.seed, self.next = lambda rng: task.pair(pool, rng, crop), seed, first
        self.batch, self.queue, self.stop = batch, queue.Queue(6), False
        self.start()

    def run(self):
        while not self.stop:
            pairs = [self.make(np.random.default_rng([self.seed, 60, self.next, k])) for k in range(self.batch)]
            item = tuple(torch.from_numpy(np.stack(side)) for side in zip(*pairs))
            while not self.stop:
                try:
                    self.queue.put(item, timeout=0.5)
                    break
                except queue.Full:
                    pass
            self.next += 1


class Run:
    """One training run: networks, optimisers, averages, counters."""

    def __init__(self, experiment, folder, cache, device="cpu"):
        self.spec, self.folder, self.device = experiment, folder, device
        self.task = TASKS[experiment["task"]]
        self.t = experiment["train"]
        torch.manual_seed(experiment["seed"])
        layout = torch.channels_last
        self.net = networks.build(experiment["network"]).to(device, memory_format=layout)
        self.mean = copy.deepcopy(self.net).eval()
        self.critic = networks.PatchDiscriminator(1 + len(self.task.targets), self.t.get("critic", 24)).to(device, memory_format=layout)
        betas = (0.9, 0.99) if not self.t["gan"] else (0.5, 0.99)
        self.opt = torch.optim.Adam(self.net.parameters(), self.t["rate"], betas, foreach=True)
        self.critic_opt = torch.optim.Adam(self.critic.parameters(), 2e-4, (0.5, 0.99))
        self.step, self.seconds, self.begun = 0, 0.0, ""
        self.cache = cache
        os.makedirs(os.path.join(folder, "samples"), exist_ok=True)

    def state(self):
        return {"net": self.net.state_dict(), "mean": self.mean.state_dict(), "critic": self.critic.state_dict(),
                "opt": self.opt.state_dict(), "critic_opt": self.critic_opt.state_dict(), "step": self.step,
                "seconds": self.seconds, "begun": self.begun}

    def save(self):
        path = os.path.join(self.folder, "checkpoint.pt")
        torch.save(self.state(), path + ".tmp")
        os.replace(path + ".tmp", path)

    def resume(self):
        path = os.path.join(self.folder, "checkpoint.pt")
        if not os.path.exists(path):
            return False
        state = torch.load(path, map_location=self.device, weights_only=True)
        for name in ("net", "mean", "critic", "opt", "critic_opt"):
            getattr(self, name).load_state_dict(state[name])
        self.step, self.seconds = state["step"], state["seconds"]
        self.begun = state.get("begun", "")
        return True

    def begin(self, paths):
        """Take the weights of exported models."""
        from .begin import begin_with
        self.begun = begin_with(self.net, paths)
        self.mean.load_state_dict(self.net.state_dict())

    def progress(self, minutes):
        """Share of the run that is over, by steps or by time, whichever is further."""
        share = self.step / self.t["steps"]
        return min(1.0, max(share, self.seconds / (60.0 * minutes)) if minutes else share)

    def learn(self, source, target, share):
        """One step; returns the losses as floats."""
        rate = float(self.t["rate"] * min(1.0, (self.step + 1) / 100) * (0.02 + 0.49 * (1 + np.cos(np.pi * share))))
        for group in self.opt.param_groups:
            group["lr"] = rate
        adversarial = self.t["gan"] > 0 and share >= self.t["gan_from"]
        layout = torch.channels_last
        source, target = (x.to(self.device, memory_format=layout) for x in (source, target))
        target, marks = target[:, :-1], target[:, -1:]
        weight = 1.0 + self.t.get("findings", 0.0) * marks
        half = torch.autocast(self.device, torch.bfloat16)
        with half:
            output = self.net(source)
        out = output.float()
        kinds = {"l1": losses.absolute, "l2": losses.square, "gradient": losses.gradient, "ssim": losses.structure}
        # The structure costs as much as half the network: every third step, three times as strong.
        due = {k: 3.0 * (self.step % 3 == 0) if k == "ssim" else 1.0 for k in kinds}
        parts = {k: loss(out, target, weight) for k, loss in kinds.items() if self.t.get(k) and due[k]}
        total = sum(due[k] * self.t[k] * v for k, v in parts.items())
        source = middle(source)
        if source.shape[-1] != out.shape[-1]:  # the critic compares on one grid
            source = torch.nn.functional.interpolate(source, size=out.shape[-2:], mode="bilinear")
        if adversarial:
            for p in self.critic.parameters():
                p.requires_grad_(False)
            with half:
                parts["fool"] = losses.judge(self.critic(source, out), 1)
            total = total + self.t["gan"] * parts["fool"]
        self.opt.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 300.0)
        self.opt.step()
        if adversarial:
            for p in self.critic.parameters():
                p.requires_grad_(True)
            with half:
                parts["critic"] = 0.5 * (losses.judge(self.critic(source, out.detach()), 0)
                                         + losses.judge(self.critic(source, target), 1))
            self.critic_opt.zero_grad(set_to_none=True)
            parts["critic"].backward()
            self.critic_opt.step()
        keep = min(self.t["average"], (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.mean.parameters()), list(self.net.parameters()), 1 - keep)
            for a, b in zip(self.mean.buffers(), self.net.buffers()):
                a.copy_(b)
        return {k: float(v.detach()) for k, v in parts.items()}


def middle(source):
    """The slice in question, without those beside it: [N, 1, H, W]."""
    return source[:, source.shape[1] // 2:][:, :1]


def validation_set(task, paths, crop, whole=False, context=1):
    """Fixed pairs from validation subjects."""
    pool = task.pool(paths, whole=whole, context=context)
    pairs = [task.pair(pool, np.random.default_rng([61, k]), crop) for k in range(16)]
    source, target = (torch.from_numpy(np.stack(side)) for side in zip(*pairs))
    return source, target[:, :-1]


@torch.no_grad()
def validate(network, pairs, folder, step):
    """PSNR and SSIM on the fixed pairs (range 2), and a sheet of source, result, truth."""
    from PIL import Image
    source, target = pairs
    output = torch.cat([network(source[k:k + 4]) for k in range(0, len(source), 4)]).clamp(-1, 1)
    mse = (output - target).square().mean((1, 2, 3))
    psnr = float((10 * torch.log10(4.0 / mse)).mean())
    ssim = 1.0 - float(losses.structure(output, target))
    size = target.shape[-1]
    shown = torch.nn.functional.interpolate(middle(source), size=(size, size), mode="nearest")
    rows = [torch.cat([s[k, 0] for s in (shown, output, target)], 1) for k in range(6)]
    grid = torch.cat([torch.cat(rows[:3], 0), torch.cat(rows[3:], 0)], 1)
    Image.fromarray(((grid.numpy() + 1) * 127.5).astype("uint8")).save(os.path.join(folder, "samples", f"{step:06d}.png"))
    return psnr, ssim


def train(path, folder, cache, minutes=None, threads=2, workers=2, device="cpu", progress=None, fresh=False, real=None, begin=()):
    """Run an experiment to its end; returns the folder of the run.

    begin: exported models whose weights a new run begins with (begin.begin_with); a run that goes on has its own.
    """
    with open(path, encoding="utf-8") as file:
        spec = yaml.safe_load(file)
    if fresh and os.path.isdir(folder):
        shutil.rmtree(folder)
    torch.set_num_threads(threads)
    run = Run(spec, folder, cache, device)
    resumed = run.resume()
    if begin and not resumed:
        run.begin(begin)
    shutil.copyfile(path, os.path.join(folder, "experiment.yaml"))
    data = spec["data"]
    whole, context = bool(data.get("whole")), networks.context_of(spec["network"])
    pool = run.task.pool(run.task.build(cache, "train", data["subjects"], workers, data.get("skip", 0)), real, data.get("real", 0.0), data["crop"], whole, context)
    held_out = run.task.build(cache, "validation", data["validation"], workers)
    pairs = validation_set(run.task, held_out, data["crop"], whole, context)
    loader = Loader(run.task, pool, data["crop"], run.t["batch"], spec["seed"], run.step)
    curve = open(os.path.join(folder, "curve.csv"), "a" if resumed else "w", newline="", encoding="utf-8")
    writer = csv.writer(curve)
    if not resumed:
        writer.writerow(["step", "seconds", "l1", "gradient", "ssim_loss", "critic", "validation_psnr", "validation_ssim"])
        curve.flush()
    last_save = time.monotonic()
    try:
        while run.progress(minutes) < 1.0:
            begin = time.monotonic()
            parts = run.learn(*loader.queue.get(), run.progress(minutes))
            run.step += 1
            run.seconds += time.monotonic() - begin
            finished = run.progress(minutes) >= 1.0
            if run.step % 500 == 0 or finished:
                psnr, ssim = validate(run.mean, pairs, folder, run.step)
                writer.writerow([run.step, round(run.seconds, 1)] + [f"{parts.get(k, 0):.5f}" for k in ("l1", "gradient", "ssim", "critic")]
                                + [f"{psnr:.3f}", f"{ssim:.4f}"])
                curve.flush()
                if progress:
                    progress(int(1000 * run.progress(minutes)), 1000, f"step {run.step} PSNR {psnr:.2f} SSIM {ssim:.4f}")
            if time.monotonic() - last_save > 60 or finished:
                run.save()
                last_save = time.monotonic()
    finally:
        loader.stop = True
        curve.close()
    torch.save({"mean": run.mean.state_dict(), "step": run.step, "data": dataset.fingerprint(held_out), "real": len(pool.extra), "begun": run.begun,
                "experiment": os.path.splitext(os.path.basename(path))[0]},
               os.path.join(folder, "best.pt"))
    return folder
