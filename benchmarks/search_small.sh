#!/usr/bin/env bash
# Search small, ship large: profile this machine for the DARTS space at the sizes of SETTING (cifar: 36 channels, 20 cells,
# 32x32 images; imagenet-mobile: 48, 14, 224x224), search with 16 channels and 4 cells on part of CIFAR-10 under three
# latency budgets, and time the networks of the large size against them.
# IMAGES holds train/CLASS/* and test/CLASS/*; RESULTS gets the JSON and the log. A repeated call resumes.
#
#   benchmarks/search_small.sh SETTING IMAGES RESULTS
set -euo pipefail
setting=$1 images=$2 results=$3
run=runs/search_small/$setting
mkdir -p "$results" "$run"
{
  hwnas profile --space darts --setting "$setting" --out "$run/table.json"
  hwnas search --table "$run/table.json" --recipe short/snas --search-channels 16 --search-cells 4 \
    ${EPOCHS:+--epochs "$EPOCHS"} ${CHILD_EPOCHS:+--child-epochs "$CHILD_EPOCHS"} --kernels "${KERNELS:-compiled}" --precision float32 --finalists 0 \
    --data "imagefolder:$images?train=2560&validation=640&test=1000" \
    --verify --budget mild --budget moderate --budget aggressive --out "$run/search"
  hwnas verify "$run/search"
} 2>&1 | tee -a "$results/log.txt"
cp "$run/search/"{summary.json,manifest.json,metrics.jsonl} "$run/table.json" "$results/"
