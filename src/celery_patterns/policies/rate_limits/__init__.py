"""Rate limits that hold across all workers: token buckets on the store's clock."""
