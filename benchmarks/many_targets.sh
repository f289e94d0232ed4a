#!/bin/sh
# One search for three budgets on two runtimes of this machine, against a search for one of the six targets: seconds of
# both, the networks timed on their runtimes. About ten minutes on two cores.
#   benchmarks/many_targets.sh RESULTS
set -eu
out=$1
sizes="--space nasbench201 --channels 16 --cells 1 --input 3x32x32"
data="digits?size=32"
mkdir -p "$out"
for runtime in onnxruntime torch; do
  [ -e "$out/$runtime.json" ] || hwnas profile --device "cpu+$runtime" $sizes --out "$out/$runtime.json"
done
search="hwnas search --data $data --recipe snas-short --child-epochs 0 --space nasbench201 --channels 16 --cells 1
        --precision float32 --kernels torch --finalists 0"
six="--table $out/onnxruntime.json --table $out/torch.json --budget mild --budget moderate --budget aggressive"
seconds() { # of a command, to stdout
  began=$(date +%s.%N)
  "$@" > "$out/log.txt" 2>&1
  date +%s.%N | awk -v began="$began" '{ printf "%.1f\n", $1 - began }'
}
for round in 1 2; do
  rm -rf "$out/one" "$out/six"
  one_s=$(seconds $search --table "$out/onnxruntime.json" --budget moderate --out "$out/one")
  six_s=$(seconds $search $six --out "$out/six")
  echo "$one_s $six_s" | awk -v r="$round" '{ printf "round %d: one target %.1f s, six targets %.1f s, ratio %.2f\n", r, $1, $2, $2 / $1 }'
done
rm -rf "$out/one" "$out/six"
$search $six --verify --out "$out/verified"
hwnas verify "$out/verified"
rm "$out/log.txt"
