#!/usr/bin/env bash
# Fill the folder that goes with the working tree to a machine with a GPU: wheels of the packages that a torch machine may
# lack, the images, and what an earlier session returned. At most 64 MiB with the tree.
#
#   bash benchmarks/gpu/pack.sh IMAGES.tar.gz [RETURNED] [PYTHON_VERSION...]      (3.12 by default)
set -euo pipefail
cd "$(dirname "$0")/../.."
images=$1 returned=${2:-} python=${PYTHON:-python3} pack=${GPU_PACK:-gpu-pack}
shift; shift || true
versions=("${@:-3.12}")
rm -rf "$pack"
mkdir -p "$pack/wheels"
cp "$images" "$pack/cifar10-images.tar.gz"
# In the versions of this Python, which fit each other. Without numpy, scipy, torch and the like, which a machine with torch
# has and which are large.
pinned() { "$python" -c 'import sys; from importlib.metadata import version; print(*(f"{n}=={version(n)}" for n in sys.argv[1:]))' "$@"; }
for version in "${versions[@]}"; do
  # shellcheck disable=SC2046
  "$python" -m pip download --quiet --no-deps --only-binary=:all: --python-version "$version" --implementation cp \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
    --dest "$pack/wheels" $(pinned pydantic pydantic-core annotated-types typing-inspection typing-extensions typer \
    annotated-doc rich platformdirs safetensors fsspec termcolor portalocker tabulate markdown-it-py mdurl shellingham pygments segno)
done
# Source distributions of Python code alone.
# shellcheck disable=SC2046
"$python" -m pip wheel --quiet --no-deps --wheel-dir "$pack/wheels" $(pinned fvcore iopath yacs)
if [ -n "$returned" ]; then
  cp -r "$returned" "$pack/returned"
  rm -f "$pack/returned/log.txt"
fi
tree=$(git ls-files -z --cached --others --exclude-standard | xargs -0 du -cb | awk '$2 == "total" { sum += $1 } END { print sum }')
total=$(($(du -sb "$pack" | cut -f1) + tree))
echo "$pack: $(($(du -sb "$pack" | cut -f1) / 1000000)) MB, with the working tree $((total / 1000000)) MB"
if [ "$total" -gt $((64 * 1024 * 1024)) ]; then
  echo "more than 64 MiB; leave out archives of returned steps: rm $pack/returned/STEP.tar.gz.*" >&2
  exit 1
fi
