"""Where shards are encoded. An executor knows nothing of video: it calls the shard function."""
