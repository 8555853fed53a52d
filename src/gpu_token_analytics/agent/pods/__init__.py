"""Which pod of this node runs on which GPUs: the kubelet says so, and placements are what becomes
of it."""
