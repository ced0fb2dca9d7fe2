#!/usr/bin/env bash
# All that is worth doing where a CUDA device is at hand for some minutes, each part within minutes of its own.
#
#   benchmarks/gpu.sh OUT [LEASE [TESTS [SPEEDS]]]     minutes: 9, 2 and 2; 0 leaves a part out
#
# OUT gets environment.txt, tests.log, loops.csv, simulate.csv and lease/, which `cellbook runs import` takes.
# The variables PYTHON, PLAN, STORE, SIDE_BY_SIDE and DEVICE change what runs, on what, and where runs are kept.
# The trainings of the lease share the device by NVIDIA's MPS, where that is installed and no other is running.
set -uo pipefail

out=${1:?give a folder for what comes out}
lease=${2:-9} tests=${3:-2} speeds=${4:-2}
here=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python} device=${DEVICE:-cuda}
mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 2
store=${STORE:-$out/runs} plan=${PLAN:-$here/benchmarks/lease.yml}
export PYTHONPATH=$here${PYTHONPATH:+:$PYTHONPATH} OMP_NUM_THREADS=1 PATH=$PATH:/usr/local/nvidia/bin
failed=0

# A part: its name, its minutes and its command, which is stopped when they are over.
part() {
  local name=$1 minutes=$2 began=$SECONDS status=0
  shift 2
  if awk "BEGIN { exit !($minutes > 0) }"; then
    timeout --foreground --kill-after=30 "$(awk "BEGIN { print 60 * $minutes }")" "$@" || status=$?
    echo "$name: code $status after $((SECONDS - began)) s"
    [ "$status" -eq 0 ] || failed=1
  fi
}

environment() {
  "$python" - "$device" <<'END'
import sys
import torch
from cellbook.runs import choose_device, device_name
device = choose_device(sys.argv[1])
print(f"torch {torch.__version__}, CUDA {torch.version.cuda}, {device_name(device)}")
if device != "cpu":
    free, whole = (n / 2**30 for n in torch.cuda.mem_get_info(device))
    print(f"{free:.1f} of {whole:.1f} GiB are free")
END
}

begin_mps() {
  if [ "$device" = cpu ] || ! command -v nvidia-cuda-mps-control > /dev/null; then
    echo "MPS: none"
    return
  fi
  if [ -n "${CUDA_MPS_PIPE_DIRECTORY:-}" ]; then
    echo "MPS: the one at $CUDA_MPS_PIPE_DIRECTORY"
    return
  fi
  mps=$(mktemp -d)
  export CUDA_MPS_PIPE_DIRECTORY=$mps/pipe CUDA_MPS_LOG_DIRECTORY=$mps/log
  mkdir "$CUDA_MPS_PIPE_DIRECTORY" "$CUDA_MPS_LOG_DIRECTORY"
  if nvidia-cuda-mps-control -d; then
    trap 'echo quit | nvidia-cuda-mps-control; rm -rf "$mps"' EXIT
    echo "MPS: begun"
  else
    echo "MPS: could not begin"
    unset CUDA_MPS_PIPE_DIRECTORY CUDA_MPS_LOG_DIRECTORY
    rm -rf "$mps"
  fi
}

environment 2>&1 | tail -n 3 | tee "$out/environment.txt"
if [ "${PIPESTATUS[0]}" -ne 0 ]; then
  echo "error: DEVICE=$device is no use here" >&2
  exit 2
fi

beside=()
"$python" -c "import xdist" 2> /dev/null && beside=(-n 4)
part tests "$tests" "$python" -m pytest -q ${beside[@]+"${beside[@]}"} -p no:cacheprovider -m gpu "$here/tests" > "$out/tests.log" 2>&1
tail -n 3 "$out/tests.log"

part loops "$speeds" "$python" "$here/benchmarks/train_loops.py" --device "$device" --steps 20 --csv "$out/loops.csv"
part simulate "$speeds" "$python" "$here/benchmarks/simulate.py" --devices "$device" --seconds 2 --csv "$out/simulate.csv"

begin_mps
# The lease stops by itself; the half minute is for one that does not.
part lease "$(awk "BEGIN { print ($lease > 0 ? $lease + 0.5 : 0) }")" \
  "$python" -m cellbook.cli lease "$plan" --minutes "$lease" --out "$out/lease" --store "$store" --device "$device" \
  ${SIDE_BY_SIDE:+--side-by-side "$SIDE_BY_SIDE"}
exit "$failed"
