#!/usr/bin/env bash
# Regret of gradient methods beside first-order DARTS and random search in minutes of search: NAS-Bench-201 at 8 channels
# and one cell a stage, 10,000 images of CIFAR-10, three seeds. Every method searches alone (recipes of this folder, one
# thread a search) and with a shortlist of finalists, which are trained for some epochs at five cells a stage (recipes of
# finalists/).
# IMAGES holds train/CLASS/* and test/CLASS/*; DATA holds nb201_accuracy.csv.gz; RESULTS gets the JSON and the log.
# METHODS, SEEDS, TRAIN (images), SIZE (of the images), JOBS and RECIPES (alone, finalists or both) change what is
# searched. A repeated call resumes.
#
#   benchmarks/nasbench201/short_protocol.sh IMAGES DATA RESULTS
set -euo pipefail
images=$1 data=$2 results=$3
here=$(dirname "$0")
methods=()
for method in ${METHODS:-darts random beta-darts idarts zarts balenas balenas-tf}; do methods+=(--method "$method"); done
for kind in ${RECIPES:-alone finalists}; do
  if [ "$kind" = alone ]; then recipes=$here; else recipes=$here/$kind; fi
  run=runs/$(basename "$results")/$kind
  mkdir -p "$results/$kind" "$run"
  hwnas benchmark nasbench201 "${methods[@]}" --accuracy "$data/nb201_accuracy.csv.gz" --search-channels 8 --search-cells 1 \
    --seeds "${SEEDS:-0,1,2}" --jobs "${JOBS:-2}" --recipe "$recipes/{method}.yaml" \
    --data "imagefolder:$images?train=${TRAIN:-10000}&validation=2000&test=100${SIZE:+&size=$SIZE}" --out "$run" 2>&1 |
    tee -a "$results/$kind/log.txt"
  cp "$run/summary.json" "$results/$kind/"
  python - "$run" "$results/$kind" <<'END'
import json, pathlib, sys
run, results = map(pathlib.Path, sys.argv[1:])
found = [json.loads(file.read_text()) for file in sorted(run.glob("*/seed*/result.json"))]
(results / "results.json").write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
END
done
