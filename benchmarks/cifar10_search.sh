#!/usr/bin/env bash
# A real search on part of CIFAR-10: profile this machine, search three latency budgets, train, export, time again.
# About an hour on 2 cores. IMAGES holds train/CLASS/* and test/CLASS/*; RESULTS gets the JSON and the log.
#
#   benchmarks/cifar10_search.sh IMAGES RESULTS
set -euo pipefail
images=$1 results=$2
run=runs/cifar10_search
mkdir -p "$results" "$run"
hwnas profile --space nasbench201 --cells 1 --out "$run/cpu.json" 2>&1 | tee "$results/log.txt"
hwnas search --space nasbench201 --cells 1 --table "$run/cpu.json" --recipe snas-hour --precision float32 --kernels torch --finalists 0 \
  --data "imagefolder:$images?train=12800&validation=3200" --verify \
  --budget mild --budget moderate --budget aggressive --out "$run/search" 2>&1 | tee -a "$results/log.txt"
cp "$run/search/"{summary.json,manifest.json,metrics.jsonl,table.json} "$results/"
