#!/usr/bin/env bash
# A child of a real search, trained from scratch: profile this machine, search one budget on part of CIFAR-10, train the
# network on all of it, evaluate torch and ONNX Runtime, quantise, time again. About an hour and a half on one core.
# IMAGES holds train/CLASS/* and test/CLASS/*; RESULTS gets the JSON.
#
#   benchmarks/cifar10_child.sh IMAGES RESULTS
set -euo pipefail
images=$1 results=$2
run=runs/cifar10_child
mkdir -p "$results" "$run"
hwnas profile --space nasbench201 --layers 2 --out "$run/cpu.json"
hwnas search --table "$run/cpu.json" --recipe short/entrannas --epochs 20 --child-epochs 1 --finalists 0 \
  --precision float32 --kernels torch \
  --data "imagefolder:$images?train=10000&validation=2000" --budget moderate --out "$run/search"
hwnas train "$run/search" --recipe nasbench201 --setting as-searched --from-scratch --epochs 24 \
  --data "imagefolder:$images"
for split in validation test; do
  hwnas evaluate "$run/search" --data "imagefolder:$images" --split $split --json > "$results/evaluation_$split.json"
done
hwnas export "$run/search" --data "imagefolder:$images" --quantize int8
hwnas verify "$run/search"
cp "$run/search/moderate/"{architecture.json,training.jsonl,quantization.json,verification.json} "$results/"
