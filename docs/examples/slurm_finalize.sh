#!/usr/bin/env bash
# The last step, on any node: index and manifest.
#
#   sbatch --dependency=afterany:ARRAY_ID slurm_finalize.sh STORE
#
# `afterany`, since a job with failed videos ends with code 3, which Slurm counts as a failure. If shards are missing,
# this ends with code 1 and says which jobs have to be submitted again.
#
#SBATCH --job-name=dyntok-finalize
#SBATCH --cpus-per-task=2
#SBATCH --mem=8G
#SBATCH --time=01:00:00
set -euo pipefail
exec dyntok status "$1" --finalize
