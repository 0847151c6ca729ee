"""A job on a Ray cluster: its shards are done by actors, which may come and go."""
