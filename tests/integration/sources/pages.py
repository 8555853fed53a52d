"""A page of docs/sources: its shell lines and files, read as they are written."""

from __future__ import annotations

import re

from tests.conftest import ROOT

ENGINE = {
    "vllm": "vllm serve",
    "sglang": "python -m sglang.launch_server",
    "litellm": "litellm --config",
}
ADDRESS, KEY = "http://gpu-tokens:8080", "gta_..."


class Page:
    """A page's shell lines, with what a reader would put in."""

    def __init__(self, name: str) -> None:
        text = (ROOT / "docs" / "sources" / f"{name}.md").read_text()
        blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
        lines = [line.strip() for block in blocks for line in block.splitlines() if line.strip()]
        self.exports = dict(
            line.removeprefix("export ").split("=", 1)
            for line in lines
            if line.startswith("export ")
        )
        self.commands = [
            line.removeprefix("gpu-tokens ") for line in lines if line.startswith("gpu-tokens ")
        ]
        self.installs = [line for line in lines if line.startswith("pip install ")]
        self.yaml = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
        self.start = next(line for line in lines if line.startswith(ENGINE[name]))
        others = len(lines) - len(self.exports) - len(self.commands) - len(self.installs)
        assert others == 1, "every line is a command, an export, an installation or the start"
