"""A mock of AWS (moto) on one port, with two of its gaps closed so that Terraform's second plan can
be empty.

    python moto_compat.py -H 127.0.0.1 -p PORT

Without these, moto 5.2.5 reports an instance without the security groups it was started with, and
drops the description of rules between groups; the AWS provider then plans to change both for ever.
Runs with the deployment tools' own Python.
"""

# moto is not installed where mypy runs, and this file is only ever run, never imported.
# mypy: ignore-errors

import sys

from moto.ec2.models import instances
from moto.ec2.models import security_groups as groups

_prepare = instances.Instance.prep_nics


def _prepare_and_keep_groups(self, *args, **kwargs):
    """The provider names the groups at the first network interface; moto then shows none on the
    instance."""
    _prepare(self, *args, **kwargs)
    if not self.security_groups and 0 in self.nics:
        self.security_groups = list(self.nics[0].group_set)


instances.Instance.prep_nics = _prepare_and_keep_groups
groups.SecurityGroupRule.description = property(
    lambda rule: rule.ip_range.get("Description") or rule.source_group.get("Description")
)

from moto.server import main  # noqa: E402 - the server takes the classes as they are when it is imported

main(sys.argv[1:])
