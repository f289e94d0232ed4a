#!/usr/bin/env bash
# Search on part of CIFAR-10 for two latency budgets in nasbench201 and darts with the table of a runtime, and time the
# exported networks on that runtime.
# TABLE holds both spaces; IMAGES holds train/CLASS/* and test/CLASS/*; RESULTS gets the JSON and the log. DEVICE is that
# of the table by default. For the device page, which a browser of this machine must open, put
# tests/support/stand_ins/phone first in PATH: it does. A repeated call resumes.
#
#   benchmarks/runtime_searches.sh TABLE IMAGES RESULTS [DEVICE]
set -euo pipefail
table=$1 images=$2 results=$3 device=${4:-}
mkdir -p "$results"
declare -A cells=([nasbench201]=1 [darts]=4)
for space in nasbench201 darts; do
  run=runs/$(basename "$results")/$space
  {
    hwnas search --table "$table" --space "$space" --recipe short/snas --search-cells "${cells[$space]}" \
      --epochs "${EPOCHS:-6}" --child-epochs 0 --finalists 0 --budget moderate --budget aggressive \
      --data "imagefolder:$images?train=2560&validation=640&test=1000" --out "$run"
    hwnas verify "$run" ${device:+--device "$device"}
  } 2>&1 | tee -a "$results/log.txt"
  cp "$run/summary.json" "$results/$space.json"
done
