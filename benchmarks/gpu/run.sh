#!/usr/bin/env bash
# A session on a GPU: install what this Python lacks from carried wheels, then run the steps of the plan, each within its
# limit, and write a record of each into OUT at once. benchmarks/gpu/README.md has the whole procedure.
#
#   bash benchmarks/gpu/run.sh OUT [SECONDS] [--only STEP...]
#   bash benchmarks/gpu/run.sh --plan
#   bash benchmarks/gpu/run.sh --rehearse OUT
set -uo pipefail
SECONDS=0
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
pack=${GPU_PACK:-gpu-pack}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
if [ -d "$pack/wheels" ]; then
  site=$(mktemp -d)
  # One after the other: a wheel that does not fit this Python must not keep the others out.
  for wheel in $("$python" "benchmarks/gpu/missing.py" "$pack/wheels"); do
    "$python" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --target "$site" "$wheel" ||
      echo "cannot install $wheel"
  done
  export PYTHONPATH="$PYTHONPATH:$site"
fi
exec "$python" -m benchmarks.gpu.run --pack "$pack" --spent "$SECONDS" "$@"
