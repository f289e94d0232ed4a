#!/usr/bin/env python3
"""Measure the gain of max(x, 0) over ReLU in networks for the browser: both timed in alternation, in one process.

    python benchmarks/web_relu.py --out result.json

Random nasbench201 networks are run by onnxruntime-web (WebAssembly, one thread) in node, which runs the same code as a
browser does; `make browser` installs onnxruntime-web. The ratio is the time with ReLUs over the time without.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch

from hwnas.networks.child import ChildNetwork
from hwnas.runtimes.onnx_model import write_onnx
from hwnas.runtimes.onnxruntime_web import convert_for_web
from hwnas.spaces import SizedSpace, get_space

ROUNDS, RUNS = 30, 5
LIBRARY = Path("node_modules/onnxruntime-web/dist/ort.wasm.min.mjs")
PROGRAM = """
import fs from 'fs';
const [library, folder, count, rounds, runs] = process.argv.slice(2);
const ort = await import(library);
ort.env.wasm.numThreads = 1;
const data = Float32Array.from({length: 3 * 32 * 32}, () => Math.random() * 2 - 1), all = [];
for (let n = 0; n < count; n++) for (const form of ['relu', 'max']) {
  const session = await ort.InferenceSession.create(new Uint8Array(fs.readFileSync(`${folder}/${n}-${form}.onnx`)),
                                                    {executionProviders: ['wasm']});
  const feeds = {[session.inputNames[0]]: new ort.Tensor('float32', data, [1, 3, 32, 32])};
  for (let i = 0; i < 20; i++) await session.run(feeds);
  all.push({n, form, best: Infinity, run: () => session.run(feeds)});
}
for (let round = 0; round < rounds; round++) for (const one of all) {
  const began = performance.now();
  for (let i = 0; i < runs; i++) await one.run();
  one.best = Math.min(one.best, (performance.now() - began) / runs);
}
console.log(JSON.stringify({version: ort.env.versions.web, times: all.map(({n, form, best}) => [n, form, best])}));
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=40)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    space = get_space("nasbench201")
    setting, shuffler, chosen = space.setting("cifar"), random.Random(11), []
    while len(chosen) < arguments.networks:
        operations = tuple(shuffler.choice(space.operations) for _ in range(space.num_edges))
        if any(space.cells["cell"].live_edges(operations)):
            chosen.append(space.architecture((operations,)))
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, architecture in enumerate(chosen):
            child = ChildNetwork(SizedSpace(space, setting), architecture, prune=True).eval()
            write_onnx(child, [torch.zeros(1, 3, 32, 32)], folder / f"{number}-relu.onnx")
            convert_for_web(folder / f"{number}-relu.onnx", folder / f"{number}-max.onnx")
        (folder / "program.mjs").write_text(PROGRAM)
        command = ["node", "program.mjs", str(LIBRARY.resolve()), name, str(len(chosen)), str(ROUNDS), str(RUNS)]
        done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    said = json.loads(done.stdout.splitlines()[-1])
    times = {(number, form): ms for number, form, ms in said["times"]}
    ratios = [times[n, "relu"] / times[n, "max"] for n in range(len(chosen))]
    result = {
        "onnxruntime_web": said["version"],
        "networks": len(chosen),
        "ratio_median": round(float(np.median(ratios)), 3),
        "ratio_least": round(min(ratios), 3),
        "ratio_greatest": round(max(ratios), 3),
        "ratio_percentiles_10_90": [round(float(q), 3) for q in np.percentile(ratios, [10, 90])],
    }
    print(json.dumps(result, indent=2))
    if arguments.out:
        each = [
            {"architecture": space.format(a), "relu_ms": times[n, "relu"], "max_ms": times[n, "max"]}
            for n, a in enumerate(chosen)
        ]
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps({**result, "each": each}, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
