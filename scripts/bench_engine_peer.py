"""One peer under scripts/bench_engine: `bench_engine_peer.py onnxruntime|openvino MODEL IN OUT THREADS [streams]`.

streams: MODEL takes one image, IN holds several; a thread for each, all at once. Speaks as bench_engine_worker.c does. Float32 is forced: on processors with AMX, OpenVINO would
otherwise compute in bfloat16, which is no answer to the same question.
"""

import concurrent.futures
import importlib.metadata
import json
import sys
import time

import numpy as np


def status_mb(field):
    for line in open("/proc/self/status"):
        if line.startswith(field):
            return int(line.split()[1]) / 1024


def load_onnxruntime(model, threads, streams):
    import onnxruntime as ort

    def load():
        o = ort.SessionOptions()
        o.intra_op_num_threads = 1 if streams else threads
        o.inter_op_num_threads = 1
        o.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        s = ort.InferenceSession(model, o, providers=["CPUExecutionProvider"])
        name = s.get_inputs()[0].name

        def one(x):
            return s.run(None, {name: x})[0]

        if not streams:
            return one
        pool = concurrent.futures.ThreadPoolExecutor(threads)
        return lambda x: np.concatenate(list(pool.map(one, np.split(x, len(x)))))

    return load


def load_openvino(model, threads, streams):
    import openvino as ov

    def load():
        core = ov.Core()
        config = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "THROUGHPUT" if streams else "LATENCY",
                  "NUM_STREAMS": threads if streams else 1, "INFERENCE_PRECISION_HINT": "f32"}
        compiled = core.compile_model(model, "CPU", config)
        if not streams:
            request = compiled.create_infer_request()
            return lambda x: request.infer({0: x}, share_inputs=True, share_outputs=True)[0]
        queue, results = ov.AsyncInferQueue(compiled), {}
        queue.set_callback(lambda request, i: results.__setitem__(i, request.get_output_tensor(0).data.copy()))

        def run(x):
            for i in range(len(x)):
                queue.start_async({0: x[i:i + 1]}, i)
            queue.wait_all()
            return np.concatenate([results[i] for i in range(len(x))])

        return run

    return load


def main():
    peer, model, source, result, threads, *streams = sys.argv[1:]
    x = np.load(source)
    load = {"onnxruntime": load_onnxruntime, "openvino": load_openvino}[peer](model, int(threads), bool(streams))
    before = status_mb("VmRSS:")
    start, start_cpu = time.perf_counter(), time.process_time()
    run = load()
    y = run(x)
    first, first_cpu = (time.perf_counter() - start) * 1e3, (time.process_time() - start_cpu) * 1e3
    np.save(result, np.array(y))
    print(json.dumps({"load_first_ms": first, "load_first_cpu_ms": first_cpu, "peak_mb": status_mb("VmHWM:") - before,
                      "text": f"{peer} {importlib.metadata.version(peer)}"}), flush=True)
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        run(x)
        print((time.perf_counter() - wall) * 1e3, (time.process_time() - cpu) * 1e3, flush=True)


main()
