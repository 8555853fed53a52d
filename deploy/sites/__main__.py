"""python -m deploy.sites write | check"""

from __future__ import annotations

import sys

from deploy.sites import table, written


def main(arguments: list[str]) -> int:
    """The exit status: 1 when `check` sees a file that differs from the table."""
    if arguments not in (["write"], ["check"]):
        print(__doc__, file=sys.stderr)
        return 2
    sites = table.load()
    if arguments == ["write"]:
        for path in written.write(sites):
            print(f"written: {path.relative_to(table.ROOT)}")
        return 0
    stale = written.stale(sites)
    for path in stale:
        print(f"differs from deploy/sites.yaml, make sites-files: {path.relative_to(table.ROOT)}")
    return bool(stale)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
