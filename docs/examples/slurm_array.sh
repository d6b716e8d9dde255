#!/usr/bin/env bash
# One job of a Slurm array: encodes its share of the shards.
#
#   sbatch slurm_array.sh INPUT STORE --model MODEL [FLAGS of dyntok encode]
#
#SBATCH --job-name=dyntok
#SBATCH --array=0-15
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=16
#SBATCH --mem=64G
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=B:TERM@120
set -euo pipefail
input=$1 store=$2
shift 2

# As many as --array names above. SLURM_ARRAY_TASK_COUNT would be wrong when only some jobs are submitted again
# (sbatch --array=3,7 ...), and so would the shares.
jobs=${DYNTOK_JOBS:-16}

# exec: the signal that Slurm sends two minutes before the time is up goes to dyntok, which stops cleanly.
exec dyntok encode "$input" --out "$store" --num-jobs "$jobs" --job-index "$SLURM_ARRAY_TASK_ID" --quiet "$@"
