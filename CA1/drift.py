"""Says where AWS and the machines differ from this repository: exit 0 nothing, 1 something, 2 it
could not look.

    drift.py [--only aws|machines]

Terraform's plan finds what is missing or changed. It does not see a rule that somebody ADDED to a
security group (each rule is a resource of its own, and a rule that is in no state belongs to
nobody), so the rules are also read from AWS and compared with deploy/flows.yaml. On the machines,
Ansible's check mode looks at files, services and UFW, which again compares both ways.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

CA1 = Path(__file__).resolve().parent
ADMIN = "admin"


def terraform(*arguments: str) -> subprocess.CompletedProcess[str]:
    """One Terraform command in the stage's root."""
    binary = os.environ.get("TERRAFORM", "terraform")
    return subprocess.run(
        [binary, f"-chdir={CA1 / 'terraform'}", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def output(name: str) -> Any:
    """One output of the state. Exits with 2 when there is no state."""
    done = terraform("output", "-json", name)
    if done.returncode != 0:
        sys.stderr.write(f"drift: no state to compare with ({done.stderr.strip()[-300:]})\n")
        sys.exit(2)
    return json.loads(done.stdout)


def planned() -> list[str]:
    """What Terraform would change."""
    done = terraform("plan", "-input=false", "-no-color", "-detailed-exitcode", "-lock=false")
    if done.returncode == 0:
        return []
    if done.returncode != 2:
        sys.stderr.write(done.stdout[-2000:] + done.stderr[-2000:])
        sys.exit(2)
    return [
        f"terraform: {line.strip(' #')}"
        for line in done.stdout.splitlines()
        if line.startswith("  # ")
    ]


def wanted_rules(
    admin_cidr: str, groups: dict[str, str]
) -> set[tuple[str, str, str, int, int, str]]:
    """(group, direction, protocol, from port, to port, peer) of every rule that the flow table asks
    for."""
    table = yaml.safe_load((CA1.parent / "deploy" / "flows.yaml").read_text())
    rules = set()
    for flow in table["flows"]:
        source = admin_cidr if flow["from"] == ADMIN else groups[flow["from"]]
        rules.add((groups[flow["to"]], "in", "tcp", flow["port"], flow["port"], source))
        if flow["from"] != ADMIN:
            rules.add(
                (groups[flow["from"]], "out", "tcp", flow["port"], flow["port"], groups[flow["to"]])
            )
    for way in table["egress"]:
        rules |= {
            (group, "out", "tcp", way["port"], way["port"], "0.0.0.0/0")
            for group in groups.values()
        }
    return rules


def present_rules(
    groups: dict[str, str], region: str
) -> dict[tuple[str, str, str, int, int, str], str]:
    """The same for every rule that AWS has, with the rule's id."""
    import boto3  # of the stage's tools; the machines are looked at without it

    client = boto3.client(
        "ec2", region_name=region, endpoint_url=os.environ.get("AWS_ENDPOINT_URL")
    )
    pages = client.get_paginator("describe_security_group_rules").paginate(
        Filters=[{"Name": "group-id", "Values": list(groups.values())}]
    )
    found = {}
    for rule in (rule for page in pages for rule in page["SecurityGroupRules"]):
        peer = (
            rule.get("CidrIpv4")
            or rule.get("CidrIpv6")
            or rule.get("PrefixListId")
            or rule.get("ReferencedGroupInfo", {}).get("GroupId", "?")
        )
        way = "out" if rule["IsEgress"] else "in"
        found[
            (
                rule["GroupId"],
                way,
                rule["IpProtocol"],
                rule.get("FromPort", -1),
                rule.get("ToPort", -1),
                peer,
            )
        ] = rule["SecurityGroupRuleId"]
    return found


def group_rules() -> list[str]:
    """Rules that are in AWS or in the flow table, but not in both; with the command that removes a
    stranger."""
    groups: dict[str, str] = output("security_group_ids")
    admin_cidr = yaml.safe_load(output("inventory"))["all"]["vars"]["admin_cidr"]
    names = {group: name for name, group in groups.items()}
    wanted, present = wanted_rules(admin_cidr, groups), present_rules(groups, output("region"))
    lines = []
    for rule in sorted(set(present) - wanted):
        group, way, protocol, low, high, peer = rule
        command = f"aws ec2 revoke-security-group-{'egress' if way == 'out' else 'ingress'}"
        revoke = f"{command} --group-id {group} --security-group-rule-ids {present[rule]}"
        lines.append(
            f"security group of {names[group]}: rule in no flow, {way} {protocol} {low}-{high} "
            f"{peer}; remove it: {revoke}"
        )
    for group, way, protocol, low, _, peer in sorted(wanted - set(present)):
        lines.append(
            f"security group of {names[group]}: rule missing, {way} {protocol} {low} "
            f"{names.get(peer, peer)}; make infra"
        )
    return lines


def machines() -> list[str]:
    """What Ansible would change on the machines."""
    command = [
        str(Path(sys.executable).with_name("ansible-playbook")),
        "site.yml",
        "--check",
        "--diff",
        "-e",
        "image_archive=",
    ]
    done = subprocess.run(command, cwd=CA1 / "ansible", capture_output=True, text=True, check=False)
    recap = re.findall(
        r"^(\S+)\s+:.*changed=(\d+).*unreachable=(\d+)\s+failed=(\d+)", done.stdout, re.MULTILINE
    )
    if not recap or any(int(unreachable) or int(failed) for _, _, unreachable, failed in recap):
        sys.stderr.write(done.stdout[-3000:] + done.stderr[-1000:])
        sys.exit(2)
    tasks = re.findall(r"^TASK \[(.*)\] \*+\n((?:(?!TASK|PLAY).*\n)*)", done.stdout, re.MULTILINE)
    changed = [
        (task, host)
        for task, text in tasks
        for host in re.findall(r"^changed: \[([^\]]*)\]", text, re.MULTILINE)
    ]
    return [f"{host}: {task}; make configure" for task, host in changed]


def main() -> int:
    """Prints one line per difference; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=["aws", "machines"])
    only = parser.parse_args().only
    lines: list[str] = []
    if only != "machines":
        lines += planned() + group_rules()
    if only != "aws":
        lines += machines()
    for line in lines:
        print(f"DRIFT {line}")
    print(f"{len(lines)} differences")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
