"""What each setting of a run means: for its flag's help, the YAML template and the JSON schema. Imports nothing."""

from __future__ import annotations

MEANINGS: dict[str, str] = {
    "model": "HF hub id, local checkpoint folder, or `demo`; required",
    "revision": "branch, tag or commit of a hub model",
    "space": "store projected tokens (llm) or tower features (vision)",
    "precision": "arithmetic of the model; auto is float32 on CPUs, bfloat16 elsewhere",
    "compile": "compile the model with torch.compile",
    "frames": "frames a video, spread uniformly",
    "fps": "frames a second of video, instead of --frames",
    "max_frames": "with --fps: above it, this many uniformly",
    "thresholds": "similarities above which neighbours merge; the largest is stored, all others follow from it",
    "format": "shards as tars (webdataset) or Zarr v3 groups (zarr)",
    "layout": "nested stores the finest threshold only; explicit stores every one",
    "dtype": "dtype of stored tokens",
    "shard_size": "aimed size of a shard",
    "batch_size": "frames per forward pass; one fixed shape",
    "decoder": "decoding library; auto takes one that is exact on the file",
    "max_pixels": "largest width x height that is decoded",
    "max_seconds": "longest video that is decoded",
    "full_fingerprint": "fingerprint inputs by their whole content, not by head and tail",
    "executor": "where shards are encoded: in this process (local), or by Ray actors (ray); auto takes ray for more "
    "than one GPU or where an address is given",
    "ray_address": "Ray cluster to join, as host:port or `auto`; without it, Ray starts here and ends with the run",
    "actors": "Ray actors; 0 is one for each GPU, or one for each machine without",
    "gpus_per_actor": "share of a GPU that an actor takes; 0 makes actors without GPU",
    "cpus_per_actor": "CPUs that an actor takes; by default its decode processes",
    "max_attempts": "times that a video alone may kill its process before it is given up",
    "grace_period_s": "after SIGTERM, time for the shards in work to be committed",
    "device": "what the model runs on: cpu, mps, cuda or cuda:N; auto takes a GPU where there is one",
    "decode_workers": "decode processes; 0 is one per core, at most 16",
    "decode_timeout_s": "longest decode of one video",
    "decode_memory": "memory of one decode process",
    "input_cache": "temporary disk space for remote videos until they are decoded",
    "fail_fast": "stop at the first failed video",
}
