#!/usr/bin/env bash
# Budgets of real devices kept by a small search: one search a seed, of the cells of NAS-Bench-201 at 8 channels and one
# cell a stage, for three budgets on four devices whose published tables are of the network of 16 channels and five cells
# a stage. The cells found are judged by the latencies that were measured on the devices and by the accuracies after full
# training, beside cells that need no search.
# IMAGES holds train/CLASS/* and test/CLASS/*; DATA holds nb201_accuracy.csv.gz and nb201_latency_ms.csv.gz; RESULTS gets
# the JSON and the log. METHODS, SEEDS, EPOCHS, JOBS, DEVICES, SIZE (of the images) and RECIPES (a folder of recipes by
# method) change what is searched. A repeated call resumes.
#
#   benchmarks/real_devices.sh IMAGES DATA RESULTS
set -euo pipefail
images=$1 data=$2 results=$3
run=runs/$(basename "$results")
mkdir -p "$results" "$run"
targets=(--budget mild --budget moderate --budget aggressive)
for device in ${DEVICES:-pixel3 samsung-a50 gold-6240 1080ti-1}; do
  targets+=(--table "shipped:published-$device")
done
truth=(--accuracy "$data/nb201_accuracy.csv.gz" --latency "$data/nb201_latency_ms.csv.gz")
methods=()
for method in ${METHODS:-snas drnas random}; do methods+=(--method "$method"); done
{
  hwnas benchmark baselines "${truth[@]}" "${targets[@]}" --out "$results/baselines.json"
  hwnas benchmark nasbench201 "${methods[@]}" "${truth[@]}" "${targets[@]}" --search-channels 8 --search-cells 1 \
    ${EPOCHS:+--epochs "$EPOCHS"} --seeds "${SEEDS:-0,1}" --jobs "${JOBS:-2}" --recipe "${RECIPES:-benchmarks/nasbench201}/{method}.yaml" \
    --data "imagefolder:$images?train=10000&validation=2000&test=100${SIZE:+&size=$SIZE}" --out "$run"
} 2>&1 | tee -a "$results/log.txt"
cp "$run/summary.json" "$results/"
python - "$run" "$results" <<'END'
import json, pathlib, sys
run, results = map(pathlib.Path, sys.argv[1:])
found = [json.loads(file.read_text()) for file in sorted(run.glob("*/seed*/*/result.json"))]
(results / "results.json").write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
END
