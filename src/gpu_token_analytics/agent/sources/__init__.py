"""GPU telemetry sources: NVML, the nvidia-smi command, exporters' pages, and a seed file for
machines without a GPU."""

from __future__ import annotations

from gpu_token_analytics.agent.readings import GpuSource
from gpu_token_analytics.errors import SettingsError
from gpu_token_analytics.settings import GpuMetricsSource, Settings


def open_source(kind: GpuMetricsSource, settings: Settings, host: str) -> GpuSource:
    """The source named `kind`. Opens nothing yet: a missing driver is reported by read(). Raises
    SettingsError for ''."""
    match kind:
        case "nvml":
            from gpu_token_analytics.agent.sources.nvml import NvmlSource

            return NvmlSource()
        case "nvidia-smi":
            from gpu_token_analytics.agent.sources.nvidia_smi import NvidiaSmiSource

            return NvidiaSmiSource(settings.nvidia_smi_path)
        case "seed":
            from gpu_token_analytics.agent.sources.seed import SeedSource

            return SeedSource(settings.gpu_seed_file, host)
        case "dcgm-exporter":
            from gpu_token_analytics.agent.sources.dcgm import DcgmSource

            return DcgmSource(settings.gpu_exporter_url, host)
        case "amd-exporter":
            from gpu_token_analytics.agent.sources.amd import AmdSource

            return AmdSource(settings.gpu_exporter_url, host)
        case "":
            raise SettingsError(
                "GPU_METRICS_SOURCE is empty; set it to nvml, nvidia-smi, dcgm-exporter, "
                "amd-exporter or seed"
            )
