"""From a finished run to the one ONNX file that the node loads, with its facts inside.

Weights are stored as float16 (half the size; the node computes in float32), all or those of the
large layers, when the answer stays within one grey level of 4095 of the float32 network on
validation slices; otherwise as float32.
"""

import os
import subprocess

import numpy as np
import onnx
import onnxruntime
import torch
import yaml
from onnx import TensorProto, helper, numpy_helper

from . import dataset, gate, networks
from .engine import GREY_LEVEL
from .tasks import TASKS, Radiograph

LIMIT_BYTES = 8 << 20
BASELINE_GREY_LEVELS = 32  # what the paper's networks may lose by halving: they are measured, not shipped to be run
# Which weights become float16, tried in this order: all, those of the large layers only (they are most of the file,
# and lie deepest, where rounding shows least), none.
HALVED = (16, 60_000, None)

TRAINING_DATA = ("Slices of a numerical lumbar-spine phantom (scripts/phantom: anatomy drawn from seeds, contrasts by the "
                 "spin-echo equations at 1.5 T), subjects {first} to {last}; {real}.")
NO_REAL = "no patient's image was used"
SOME_REAL = "and {count} lateral slices of one volunteer's T2 volume (Spinal Cord Toolbox tutorial data, MIT licence)"
INTENDED_USE = ("Research and development. Shows how a series would look in another contrast or resolution; not for diagnosis, "
                "never in place of an acquisition.")
LIMITS = ("Preliminary: briefly trained on a numerical phantom, not validated on patients. Sagittal lumbar turbo spin echo at 1.5 T without "
          "contrast agent, fat saturation or implants. May miss, change or invent findings; signal that the source does not hold "
          "(a lesion visible only in the target contrast) cannot appear.")
RADIOGRAPH_DATA = ("Standing lateral radiographs and midsagittal T2-weighted images in the same posture and frame, both of a numerical "
                   "lumbar-spine phantom only (scripts/phantom: Beer-Lambert projection; spin-echo equations at 1.5 T); no patient's image "
                   "was used. Subjects {first} to {last}.")
RADIOGRAPH_LIMITS = ("Preliminary: briefly trained on a numerical phantom, not validated on patients. One standing lateral radiograph of the "
                     "lumbar spine for presentation. A radiograph does not show discs' water, fluid, nerves, cord, protrusions, oedema or "
                     "fatty marrow: all of these in the result are guesses of what is usual and no findings. Bones' outlines, alignment, disc "
                     "heights and the shape of fractures follow the radiograph; widths are magnified as on it.")
FLUID = (" On the one real T2 volume tried (3D, fluid no brighter than fat) cerebrospinal fluid came out right near the midline and was partly "
         "lost in lateral slices; what lies in front of the spine is guessed.")


class Deployed(torch.nn.Module):
    """The network with its output limited to the range that the metadata promises."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, image):
        return torch.clamp(self.network(image), -1.0, 1.0)


def load(run, task=None):
    """(experiment, network with averaged weights, step) of a finished run.

    task: which of the tasks that were learned together; the experiment returned then names it.
    """
    with open(os.path.join(run, "experiment.yaml"), encoding="utf-8") as file:
        spec = yaml.safe_load(file)
    state = torch.load(os.path.join(run, "best.pt"), map_location="cpu", weights_only=True)
    network = networks.build(spec["network"])
    network.load_state_dict(state["mean"])
    if task and task != spec["task"]:
        network.only(TASKS[spec["task"]].targets.index(TASKS[task].target))
        spec = {**spec, "together": spec["task"], "task": task, "name": spec["name"].replace(spec["task"], task)}
    return {**spec, "real slices": state.get("real", 0), "begun": state.get("begun", ""), "experiment": state.get("experiment", spec["task"])}, network.eval(), state["step"]


def halve(model, least):
    """Store every float32 initialiser of at least so many values as float16, followed by a Cast to float32."""
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < least:
            continue
        values = numpy_helper.to_array(tensor)
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), name + "_half"))
        casts.append(helper.make_node("Cast", [name + "_half"], [name], name=name + "_cast", to=TensorProto.FLOAT))
    for node in reversed(casts):
        model.graph.node.insert(0, node)


def facts_of(spec, step, figures):
    """The metadata of a model file; every value is text."""
    task, scale = TASKS[spec["task"]], TASKS[spec["task"]].scale
    network = networks.build(spec["network"])  # only for the grid it needs
    first = dataset.SPLITS["train"] + spec["data"].get("skip", 0)
    commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True,
                            cwd=os.path.dirname(os.path.realpath(__file__)), check=False).stdout.strip()
    low, high = dataset.PERCENTILES
    radiograph = isinstance(task, Radiograph)
    return {
        "spinenode.format": "1", "spinenode.task": task.name, "spinenode.version": spec["version"],
        "spinenode.name": spec["name"], "spinenode.input_contrast": task.input_contrast,
        "spinenode.output_contrast": task.output_contrast, "spinenode.input_slices": str(networks.context_of(spec["network"])), "spinenode.scale": str(scale),
        "spinenode.grid": "{0}x{0}".format(spec["data"]["crop"] // scale) if spec["data"].get("whole") else f"any:{network.multiple}",
        **{"spinenode." + key: value for key, value in task.accepts.items()},
        "spinenode.normalisation": f"percentile {low:g} {high:g}",
        "spinenode.output": "source" if scale > 1 else "unit",
        "spinenode.training_data": (RADIOGRAPH_DATA if radiograph else TRAINING_DATA).format(first=first, last=first + spec["data"]["subjects"] - 1,
                                                         real=SOME_REAL.format(count=spec["real slices"]) if spec.get("real slices") else NO_REAL),
        "spinenode.intended_use": INTENDED_USE, "spinenode.limits": RADIOGRAPH_LIMITS if radiograph else LIMITS + (FLUID if scale == 1 and task.source == "t2" else ""),
        "spinenode.licence": "same licence as Spinenode's source",
        "spinenode.figures": figures,
        "spinenode.training": f"scripts/train {spec['experiment']}; {step} steps of {spec['train']['batch']} {'slices' if spec['data'].get('whole') else 'crops'}; commit {commit}"
                               + (f"; begun with {spec['begun']}" if spec.get("begun") else ""),
    }


def export(run, path, figures=None, task=None, program=None, cache=os.path.join("build", "gate")):
    """Write the model of a run; returns {"bytes", "difference", "half", …}.

    program: the node's, which measures what the model's quality gate is made of; None: the file gets no gate.
    """
    spec, network, step = load(run, task)
    scale = TASKS[spec["task"]].scale
    deployed = Deployed(network).eval()  # exporting puts the mode back that it finds
    whole = spec["data"]["crop"] // scale if spec["data"].get("whole") else 0
    context = networks.context_of(spec["network"])
    example = torch.rand(1, context, whole or 64, whole or 96) * 2 - 1
    axes = {0: "N"} if whole else {0: "N", 2: "H", 3: "W"}
    temporary = path + ".tmp"
    torch.onnx.export(deployed, (example,), temporary, input_names=["image"], output_names=["synthetic"], opset_version=17,
                      dynamo=False, dynamic_axes={"image": axes, "synthetic": {k: {"H": "rows", "W": "columns"}.get(v, v) for k, v in axes.items()}})
    model = onnx.load(temporary)
    probe = probes(spec)
    if whole:
        probe = [torch.nn.functional.interpolate(p[None], size=(whole, whole), mode="bilinear")[0] for p in probe]
    with torch.no_grad():
        expected = torch.cat([deployed(p[None]) for p in probe]).numpy()
    chosen, difference = None, None
    for least in HALVED:
        candidate, is_half = onnx.ModelProto(), least is not None
        candidate.CopyFrom(model)
        if is_half:
            halve(candidate, least)
        candidate.producer_name = "spinenode scripts/train"
        del candidate.metadata_props[:]
        onnx.checker.check_model(candidate)
        session = onnxruntime.InferenceSession(candidate.SerializeToString(), providers=["CPUExecutionProvider"])
        got = np.concatenate([session.run(None, {"image": p[None].numpy()})[0] for p in probe])
        difference = float(np.abs(got - expected).max())
        if difference <= (GREY_LEVEL * (BASELINE_GREY_LEVELS if whole else 1) if is_half else 1e-4):
            chosen = candidate
            break
    if chosen is None:
        raise RuntimeError(f"{run}: the exported network differs from PyTorch's by {difference:.2e}")
    if figures is None:
        figures = last_figures(run) + ("; mean of the contrasts learned together" if "together" in spec else "")
    helper.set_model_props(chosen, facts_of(spec, step, figures))
    data = chosen.SerializeToString()
    if len(data) > LIMIT_BYTES:
        raise RuntimeError(f"{run}: {len(data)} bytes, more than the {LIMIT_BYTES} a shipped model may have")
    with open(temporary, "wb") as file:
        file.write(data)
    os.replace(temporary, path)
    if program:
        gate.calibrate(path, program, cache=cache)
    size = 512 // scale
    macs, parameters = networks.cost(network, size, size, context)
    return {"bytes": os.path.getsize(path), "difference": difference, "half": is_half, "macs_512": macs, "parameters": parameters, "step": step}


def probes(spec):
    """Inputs that the exported file is compared on: two of a validation subject, [C, H, W] each."""
    images = TASKS[spec["task"]].examples(dataset.SPLITS["validation"] + 5000, networks.context_of(spec["network"]))
    return [torch.from_numpy(image.astype(np.float32) * 2 - 1) for image in images]


def last_figures(run):
    """The last validation line of the curve, in words."""
    with open(os.path.join(run, "curve.csv"), encoding="utf-8") as file:
        lines = file.read().strip().splitlines()
    names, values = lines[0].split(","), lines[-1].split(",")
    row = dict(zip(names, values))
    return (f"validation on phantom subjects: PSNR {float(row['validation_psnr']):.2f} dB, "
            f"SSIM {float(row['validation_ssim']):.4f} (range -1 to 1)")
