"""One peer under scripts/bench_engine: `bench_engine_peer.py onnxruntime|openvino MODEL IN OUT THREADS`.

Speaks as bench_engine_worker.c does. Float32 is forced: on processors with AMX, OpenVINO would
otherwise compute in bfloat16, which is no answer to the same question.
"""

import json
import sys
import time

import numpy as np


def status_mb(field):
    for line in open("/proc/self/status"):
        if line.startswith(field):
            return int(line.split()[1]) / 1024


def load_onnxruntime(model, threads):
    import onnxruntime as ort

    def load():
        o = ort.SessionOptions()
        o.intra_op_num_threads = threads
        o.inter_op_num_threads = 1
        o.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        s = ort.InferenceSession(model, o, providers=["CPUExecutionProvider"])
        name = s.get_inputs()[0].name
        return lambda x: s.run(None, {name: x})[0]

    return load, f"onnxruntime {ort.__version__}"


def load_openvino(model, threads):
    import openvino as ov

    def load():
        core = ov.Core()
        config = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY",
                  "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
        request = core.compile_model(model, "CPU", config).create_infer_request()
        return lambda x: request.infer({0: x}, share_inputs=True, share_outputs=True)[0]

    return load, f"openvino {ov.__version__.split('-')[0]}"


def main():
    peer, model, source, result, threads = sys.argv[1:6]
    x = np.load(source)
    load, text = {"onnxruntime": load_onnxruntime, "openvino": load_openvino}[peer](
        model, int(threads))
    before = status_mb("VmRSS:")
    start, start_cpu = time.perf_counter(), time.process_time()
    run = load()
    y = run(x)
    first, first_cpu = (time.perf_counter() - start) * 1e3, (time.process_time() - start_cpu) * 1e3
    np.save(result, np.array(y))
    print(json.dumps({"load_first_ms": first, "load_first_cpu_ms": first_cpu, "peak_mb": status_mb("VmHWM:") - before,
                      "text": text}), flush=True)
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        run(x)
        print((time.perf_counter() - wall) * 1e3, (time.process_time() - cpu) * 1e3, flush=True)


main()
