#!/usr/bin/env python3
"""Measure the error of a latency table: whole networks timed end to end, by code independent of the profilers.

    python benchmarks/latency_accuracy.py TABLE --networks 100 --out result.json

Random architectures that the table has never seen are exported as a user would export them (for torch: flattened by
torch.fx, so that layers are timed and not the Python of containers around them), timed in shuffled rounds in several
processes, and compared with what the table predicts. The noise floor is the difference between two halves of the same
measurements, below which no prediction can be assessed. The machine's speed varies, so errors are reported three
times: as timed, and after division by the machine's speed, which is estimated from the reference model, whose latency
the table records (it fits into a core's own cache), or from ten of the networks that the table's correction was fitted
on (they do not fit), timed again among the others.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.stats import kendalltau

ROUNDS, RUNS, WARM_UPS, SEED = 40, 5, 5, 11  # rounds in all, runs in a visit
PROCESSES = {"onnxruntime": 10, "ncnn": 10, "litert": 10}  # the others take long to load a network: 4
REFERENCE, ANCHORS = "reference", 10


# --- the measuring process: models in a folder, times out -------------------------------------------------------------


def load(runtime: str, path: Path, threads: int) -> Callable[[], object]:
    """Return a function that runs the model once on random images."""
    if runtime == "torch":
        import torch

        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        module = flattened(torch.load(path, weights_only=False))  # written by this very script a moment ago
        images = torch.randn(*json.loads(path.with_suffix(".shape").read_text()))
        return lambda: module(images)
    shape = json.loads(path.with_suffix(".shape").read_text())
    images = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    if runtime == "onnxruntime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return lambda: session.run(None, {name: images})
    if runtime == "openvino":
        import openvino

        core = openvino.Core()
        model = core.read_model(path)
        model.reshape(shape)
        settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        request = core.compile_model(model, "CPU", settings).create_infer_request()
        request.set_input_tensor(openvino.Tensor(images))
        return request.infer
    if runtime == "litert":
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(str(path), num_threads=threads)
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], images.transpose(0, 2, 3, 1).copy())
        return interpreter.invoke
    if runtime == "ncnn":
        import ncnn

        net = ncnn.Net()
        net.opt.num_threads = threads
        for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
            setattr(net.opt, option, False)
        net.load_param(str(path))
        net.load_model(str(path.with_suffix(".bin")))
        given, wanted = net.input_names()[0], net.output_names()[0]
        image = ncnn.Mat(images[0]).clone()  # its own memory: it crashes on any other

        def run() -> object:
            extractor = net.create_extractor()
            extractor.input(given, image)
            return extractor.extract(wanted)

        return run
    raise SystemExit(f"no loader for runtime {runtime}")


def measure(folder: Path, runtime: str, threads: int, seed: int) -> None:
    """Print the milliseconds of every model, round by round, as JSON."""
    import os

    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])
    names = json.loads((folder / "models.json").read_text())
    runs = {name: load(runtime, folder / file, threads) for name, file in names.items()}
    order, shuffler = [name for name in names if name != REFERENCE], random.Random(seed)
    times: dict[str, list[float]] = {name: [] for name in names}

    def visit(name: str) -> None:
        runs[name]()
        least = float("inf")
        for _ in range(RUNS):
            began = time.perf_counter()
            runs[name]()
            least = min(least, time.perf_counter() - began)
        times[name].append(least * 1e3)

    for run in runs.values():
        for _ in range(WARM_UPS):
            run()
    for _ in range(ROUNDS // PROCESSES.get(runtime, 4)):
        shuffler.shuffle(order)
        for number, name in enumerate(order):
            if number % 4 == 0:
                visit(REFERENCE)
            visit(name)
    print(json.dumps(times))


PAGE = """<!doctype html><script src="/ort/ort.wasm.min.js"></script><script>
const given = new URLSearchParams(location.search), RUNS = 5;
let state = Number(given.get("seed")) + 1;
const random = () => (state = (state * 48271) % 2147483647) / 2147483647;
(async () => {
  ort.env.wasm.wasmPaths = "/ort/"; ort.env.wasm.numThreads = Number(given.get("threads"));
  const models = await (await fetch("/models.json")).json(), runs = {}, times = {};
  for (const [name, file] of Object.entries(models)) {
    const shape = await (await fetch("/" + file.replace(".onnx", ".shape"))).json();
    const session = await ort.InferenceSession.create("/" + file, {executionProviders: ["wasm"]});
    const data = Float32Array.from({length: shape.reduce((a, b) => a * b)}, () => random() * 2 - 1);
    const feeds = {[session.inputNames[0]]: new ort.Tensor("float32", data, shape)};
    runs[name] = () => session.run(feeds); times[name] = [];
    for (let n = 0; n < 20; n++) await runs[name]();
  }
  const visit = async name => {
    await runs[name]();
    let least = Infinity;
    for (let n = 0; n < RUNS; n++) {
      const began = performance.now(); await runs[name](); least = Math.min(least, performance.now() - began);
    }
    times[name].push(least);
  };
  const order = Object.keys(models).filter(name => name != "reference");
  for (let round = 0; round < Number(given.get("rounds")); round++) {
    order.sort(() => random() - 0.5);
    for (let n = 0; n < order.length; n++) { if (n % 4 == 0) await visit("reference"); await visit(order[n]); }
  }
  await fetch("/done", {method: "POST", body: JSON.stringify(times)});
})().catch(error => fetch("/done", {method: "POST", body: JSON.stringify({error: String(error)})}));
</script>"""


def measure_in_browser(folder: Path, threads: int, seed: int) -> None:
    """Measure in headless Chromium; onnxruntime-web is in node_modules."""
    import http.server
    import os
    import threading

    answers: list[bytes] = []
    done = threading.Event()
    library = Path("node_modules/onnxruntime-web/dist")

    class Server(http.server.BaseHTTPRequestHandler):
        def answer(self, body: bytes, kind: str) -> None:
            self.send_response(200)
            for name, value in {
                "Content-Type": kind,
                "Content-Length": str(len(body)),
                "Cross-Origin-Opener-Policy": "same-origin",
                "Cross-Origin-Embedder-Policy": "require-corp",
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            if path == "/":
                return self.answer(PAGE.encode(), "text/html")
            file = library / path[5:] if path.startswith("/ort/") else folder / path[1:]
            kinds = {".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm"}
            return self.answer(file.read_bytes(), kinds.get(file.suffix, "application/octet-stream"))

        def do_POST(self) -> None:
            answers.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.answer(b"", "text/plain")
            done.set()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        root = ["--no-sandbox"] if os.geteuid() == 0 else []
        quiet = ["--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update"]
        address = f"http://127.0.0.1:{server.server_address[1]}/?seed={seed}&threads={threads}&rounds={ROUNDS // 4}"
        command = ["chromium", "--headless", *root, *quiet, "--disable-sync", f"--user-data-dir={profile}", address]
        browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            if not done.wait(1200):
                raise SystemExit("the browser has not answered")
        finally:
            browser.kill()
            browser.wait()
    times = json.loads(answers[0])
    if "error" in times:
        raise SystemExit(times["error"])
    print(json.dumps(times))


# --- the rest: which networks, what the table says, how far off it is ------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--space")
    parser.add_argument("--setting")
    parser.add_argument("--networks", type=int, default=100)
    parser.add_argument("--seed", type=int, default=SEED, help="draws the networks")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()

    from hwnas.calibration.residual import fit_residual
    from hwnas.cost.model import build_cost_models
    from hwnas.spaces.encoding import encode
    from hwnas.tables.io import read_table
    from hwnas.tables.network_key import choose_network

    table = read_table(arguments.table)
    sized = choose_network(table, arguments.space, arguments.setting)
    space, key = sized.space, sized.key
    seen = {network.architecture for network in table.networks.get(key, [])}
    shuffler = random.Random(arguments.seed)
    chosen: list = []
    while len(chosen) < arguments.networks:
        cells = tuple(tuple(shuffler.choice(space.operations) for _ in cell.edges) for cell in space.cells.values())
        architecture = space.architecture(cells)
        connected = all(any(c.live_edges(ops)) for c, ops in zip(space.cells.values(), cells, strict=True))
        if connected and architecture not in chosen and space.format(architecture, True) not in seen:
            chosen.append(architecture)
    anchors = [network for network in table.networks.get(key, []) if network.fitted][:ANCHORS]
    timed = [*chosen, *(space.parse(network.architecture) for network in anchors)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, timed, sized, table.runtime.name, table.runtime.batch)
        times = []
        processes = PROCESSES.get(table.runtime.name, 4)
        for number in range(processes):
            command = [sys.executable, __file__, "--measure", name, table.runtime.name, str(table.runtime.threads)]
            done = subprocess.run([*command, str(number)], capture_output=True, text=True, check=True)
            times.append(json.loads(done.stdout.splitlines()[-1]))
            print(f"process {number + 1} of {processes}", file=sys.stderr)
    # A process's own speed, and the machine's at that time, is what all its networks have in common.
    by_process = np.array([[statistics.median(t[f"network{n}"]) for n in range(len(timed))] for t in times])
    # Brought to the speed of a fast one, as the table is.
    level = np.median(by_process / np.median(by_process, axis=0), axis=1)
    by_process /= (level / np.percentile(level, 20))[:, None]
    again = np.median(by_process, axis=0)[len(chosen) :]
    anchored = float(np.median(again / np.array([network.latency_ms for network in anchors])))
    by_process = by_process[:, : len(chosen)]
    measured = np.median(by_process, axis=0)
    reference_ms = float(np.percentile([statistics.median(t[REFERENCE]) for t in times], 20))
    slowdown = reference_ms / table.quality.sentinel_ms if table.quality.sentinel_ms else 1.0
    choices = encode(space, chosen)
    predicted = build_cost_models(table, sized)["latency_ms"].predict_many(choices)
    with_residual = fit_residual(table, sized).predict_many(choices)
    halves = np.median(by_process[::2], axis=0) / np.median(by_process[1::2], axis=0) - 1
    floor_tau = kendalltau(np.median(by_process[::2], axis=0), np.median(by_process[1::2], axis=0)).statistic
    result = {
        "device": table.device.name,
        "runtime": f"{table.runtime.name} {table.runtime.version}",
        "threads": table.runtime.threads,
        "network": key,
        "networks": len(chosen),
        "seed": arguments.seed,
        "fitted_on": table.correction[key].networks,
        "table_sha256": table.sha256,
        "median_ms": float(np.median(measured)),
        "machine_slowdown": {"by_reference": slowdown, "by_known_networks": anchored},
        "floor_percent": float(100 * np.mean(np.abs(halves))),
        "floor_kendall_tau": float(floor_tau),
        "as_the_clock_says": judge(predicted, measured),
        "speed_by_reference_divided_out": judge(predicted, measured / slowdown),
        "speed_by_known_networks_divided_out": judge(predicted, measured / anchored),
        "with_residual_predictor": judge(with_residual, measured / anchored),
        "macs_only_kendall_tau": float(
            kendalltau(build_cost_models(table, sized)["macs"].predict_many(choices), measured).statistic
        ),
    }
    print(json.dumps(result, indent=2))
    result["each"] = [
        {"architecture": space.format(architecture, True), "predicted_ms": round(p, 5), "measured_ms": round(m, 5)}
        for architecture, p, m in zip(chosen, predicted.tolist(), measured.tolist(), strict=True)
    ]
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(result, indent=2, sort_keys=True) + "\n")


def judge(predicted: np.ndarray, measured: np.ndarray) -> dict[str, float]:
    error = predicted / measured - 1
    return {
        "mean_error_percent": float(100 * np.mean(np.abs(error))),
        "bias_percent": float(100 * np.mean(error)),
        "within_5_percent": float(np.mean(np.abs(error) <= 0.05)),
        "within_10_percent": float(np.mean(np.abs(error) <= 0.1)),
        "worst_percent": float(100 * np.max(np.abs(error))),
        "kendall_tau": float(kendalltau(predicted, measured).statistic),
    }


def flattened(module: object) -> object:
    """Return the module as one graph of layers, without containers."""
    import torch
    import torch.fx

    tracer = torch.fx.Tracer()
    usual = tracer.is_leaf_module  # torch's own layers
    tracer.is_leaf_module = lambda m, name: usual(m, name) or type(m).__name__ == "FactorizedReduce"
    graph, root = tracer.trace(module), torch.nn.Module()
    for node in list(graph.nodes):
        layer = module.get_submodule(node.target) if node.op == "call_module" else None
        if isinstance(layer, torch.nn.Identity):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
        elif layer is not None:
            root.add_module(node.name, layer)
            node.target = node.name
    return torch.fx.GraphModule(root, graph)


def write(folder: Path, chosen: list, sized: object, runtime: str, batch: int) -> None:
    """Build the networks, as users get them, and the reference model: eight 3x3 convolutions, 32 channels at 16x16."""
    import torch
    from torch import nn

    from hwnas.networks.child import ChildNetwork
    from hwnas.runtimes.onnx_model import write_onnx
    from hwnas.runtimes.registry import RUNTIMES

    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    layers = [(nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32)) for _ in range(8)]
    models = {REFERENCE: (nn.Sequential(*(layer for block in layers for layer in block)), (32, 16, 16))}
    setting = sized.setting
    shape = (setting.image_channels, setting.height, setting.width)
    models |= {
        f"network{n}": (ChildNetwork(sized, architecture, prune=True), shape) for n, architecture in enumerate(chosen)
    }
    files = {}
    for name, (module, shape) in models.items():
        module.eval()
        file = folder / f"{name}.onnx"
        inputs = [torch.zeros(batch, *shape)]
        if runtime == "torch":
            file = file.with_suffix(".pt")
            torch.save(module, file)
        elif runtime in ("ncnn", "litert"):
            write_onnx(module, inputs, file)
            convert = RUNTIMES[runtime].convert
            convert(file, file := folder / f"{name}{RUNTIMES[runtime].suffix}")
        else:
            write_onnx(module, inputs, file)
            if runtime == "onnxruntime-web":
                from hwnas.runtimes.onnxruntime_web import convert_for_web

                convert_for_web(file, file)
        file.with_suffix(".shape").write_text(json.dumps([batch, *shape]))
        files[name] = file.name
    print(f"{len(files)} models written", file=sys.stderr)
    (folder / "models.json").write_text(json.dumps(files))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"] and sys.argv[3] == "onnxruntime-web":
        measure_in_browser(Path(sys.argv[2]), int(sys.argv[4]), int(sys.argv[5]))
    elif sys.argv[1:2] == ["--measure"]:
        measure(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    else:
        main()
