#!/usr/bin/env bash
# Encodes a corpus with several processes on one machine, one for each GPU if there are any, and completes the store.
#
#   bash job_array.sh JOBS INPUT STORE --model MODEL [FLAGS of dyntok encode]
#
# Run it again to resume. Exit code 3: done, with failed videos.
set -euo pipefail
jobs=$1 input=$2 store=$3
shift 3

# Freezing the plan first is not needed, but then wrong inputs and settings show at once.
dyntok plan "$input" --out "$store" "$@" >&2

pids=()
for ((index = 0; index < jobs; index++)); do
  if command -v nvidia-smi >/dev/null; then export CUDA_VISIBLE_DEVICES=$index; fi
  dyntok encode "$input" --out "$store" --num-jobs "$jobs" --job-index "$index" --quiet "$@" >&2 &
  pids+=($!)
done
trap 'kill -TERM "${pids[@]}" 2>/dev/null || true' INT TERM

for ((index = 0; index < jobs; index++)); do
  code=0
  wait "${pids[index]}" || code=$?
  # 3: some of its videos failed, and each is recorded with its reason.
  if ((code != 0 && code != 3)); then echo "job $index ended with code $code" >&2; fi
done

# Refuses, with code 1 and the missing shards, if a job did not get through.
dyntok status "$store" --finalize
