#!/usr/bin/env bash
# Latency tables of this machine and their error, measured by latency_accuracy.py on networks that no fit has used.
#
#   benchmarks/latency_tables.sh NAME RESULTS DEVICE...
#
# NAME names the machine: a device such as cpu+openvino gets latency_tables/NAME-openvino.json with the networks of
# nasbench201 and of the darts search setting. RESULTS gets a JSON for each, and the log. DARTS_NETWORKS=40 uses
# fewer networks of darts, where they are slow, NETWORKS=60 fewer of both. For the device page, which a browser of this
# machine must open, put tests/support/stand_ins/phone first in PATH: it does.
set -euo pipefail
name=$1 results=$2
shift 2
mkdir -p "$results"
for device in "$@"; do
  runtime=${device#*+}
  case $device in cpu) runtime=onnxruntime ;; browser) runtime=onnxruntime-web ;; page*) runtime=${device%%\?*} ;; esac
  table=latency_tables/$name-$runtime.json
  for space in nasbench201 darts; do
    networks=${NETWORKS:-100}
    [ $space = darts ] && networks=${DARTS_NETWORKS:-$networks}
    {
      date -u +%FT%TZ
      echo "hwnas profile --device $device --space $space --out $table"
      hwnas profile --device "$device" --space $space --licence CC0-1.0 --out "$table"
      python benchmarks/latency_accuracy.py "$table" --space $space --networks "$networks" \
        --out "$results/$runtime-$space.json"
      date -u +%FT%TZ
    } | tee -a "$results/log.txt"
  done
done
