"""CA4's Terraform: validity, its own tests with mocked providers, and two regions and a third
against the mock of AWS."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

from deploy.bench.report import Report, expect
from deploy.bench.shell import run
from deploy.bench.vms import ca1
from deploy.sites.table import ROOT, SiteTable

_CODE = ROOT / "CA4" / "terraform"
_VARIABLES = {
    "TF_VAR_my_ip_cidr": "198.51.100.10/32",
    "TF_VAR_ssh_public_key_file": "tests/id_test.pub",
    "TF_VAR_ami_ids": '{a="ami-12c6146b", b="ami-12c6146b", c="ami-12c6146b"}',
}


def run_checks(report: Report, table: SiteTable, folder: Path, cache: Path) -> None:
    """Leaves nothing, neither in the mock nor in the checkout's code."""
    terraform: list[ca1.Terraform] = []
    with report.check("CA4: terraform init, validate, fmt"):
        tool = ca1.Terraform(folder, _CODE)
        tool.env |= {"TF_DATA_DIR": str(folder / "terraform-data")} | _VARIABLES
        tool.do("init", "-input=false")
        tool.do("validate")
        done = run(
            ["terraform", "fmt", "-check", "-recursive", str(_CODE)], env=tool.env, check=False
        )
        expect(done.returncode == 0, f"not formatted: {done.stdout}")
        terraform.append(tool)
    for tool in terraform:
        _mocked_providers(report, tool, folder)
        _mocked_aws(report, tool, table, folder, cache)


def _mocked_providers(report: Report, terraform: ca1.Terraform, folder: Path) -> None:
    results = folder / "terraform-test.xml"
    done = terraform.do("test", f"-junit-xml={results}", check=False)
    with report.check("CA4: terraform test"):
        expect(results.exists(), done.stdout[-2000:])
        cases = list(ElementTree.parse(results).iter("testcase"))
        failed = [ElementTree.tostring(case, encoding="unicode") for case in cases if list(case)]
        expect(bool(cases) and not failed, "\n".join(failed) or "no test ran")
        report.say(f"{len(cases)} runs: {', '.join(str(case.get('name')) for case in cases)}")


def _mocked_aws(
    report: Report, terraform: ca1.Terraform, table: SiteTable, folder: Path, cache: Path
) -> None:
    with ca1.mocked_aws(ca1.ensure_tools(cache), folder) as aws:
        env = {"TF_VAR_aws_endpoint": aws}
        state = f"-state={folder / 'sites.tfstate'}"
        with report.check("CA4: terraform apply against the AWS mock: a region per site, peered"):
            done = terraform.do("apply", "-input=false", "-auto-approve", state, env=env)
            added = re.search(
                r"Apply complete! Resources: (\d+) added, 0 changed, 0 destroyed", done.stdout
            )
            expect(added is not None, done.stdout[-2000:])
            report.say(added[0] if added else "")
            shown = terraform.do("output", state, "addresses", env=env).stdout
            expect(all(site.host_ip in shown for site in table.sites.values()), shown)
        with report.check("CA4: the second plan says no changes"):
            done = terraform.do(
                "plan", "-input=false", "-detailed-exitcode", state, env=env, check=False
            )
            expect(done.returncode == 0, done.stdout[-3000:])
        with report.check("CA4: terraform destroy leaves nothing"):
            done = terraform.do("destroy", "-input=false", "-auto-approve", state, env=env)
            expect("Destroy complete!" in done.stdout, done.stdout[-2000:])
