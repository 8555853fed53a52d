"""`python -m gpu_token_analytics`: the same as `gpu-tokens`."""

from gpu_token_analytics.cli import main

main()
