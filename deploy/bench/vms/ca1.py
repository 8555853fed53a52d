"""CA1 on the bench: Terraform against mocked providers and a mocked AWS, Ansible on four fresh
machines."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

from deploy.bench.report import NotChecked, Report, expect
from deploy.bench.shell import run
from deploy.bench.vms import ca0
from deploy.bench.vms.machines import ADMIN_ADDRESS, Bench
from deploy.bench.vms.workstation import Operator
from deploy.flows import ROOT

_HERE = Path(__file__).resolve().parent
_BUCKET = "your-terraform-state"  # as backend.tf.example names it
_PROVIDER = "hashicorp/aws"


def ensure_tools(cache: Path) -> Path:
    """Ansible, its linter and the AWS mock in their own virtual environment, pinned. About 35 s the
    first time."""
    tools, locked = cache / "tools", ROOT / "requirements" / "deploy.txt"
    mark = tools / "installed.txt"
    if not mark.exists() or mark.read_text() != locked.read_text():
        run(["python3", "-m", "venv", "--clear", str(tools)])
        pip = [
            str(tools / "bin/pip"),
            "--disable-pip-version-check",
            "install",
            "-q",
            "--require-hashes",
            "--only-binary",
            ":all:",
        ]
        run([*pip, "-r", str(locked)], timeout_seconds=600)
        mark.write_text(locked.read_text())
    return tools


class Terraform:
    """Terraform with a provider that needs no network. Raises NotChecked when this machine has no
    terraform or no mirror."""

    def __init__(self, folder: Path, root: Path) -> None:
        if shutil.which("terraform") is None:
            raise NotChecked("this machine lacks terraform")
        self.root = root
        config = folder / "terraform.tfrc"
        config.write_text(
            f"disable_checkpoint = true\nprovider_installation {{\n  filesystem_mirror {{\n    "
            f'path    = "{_mirror()}"\n'
            f'    include = ["{_PROVIDER}"]\n  }}\n}}\n'
        )
        self.env = {
            "TF_CLI_CONFIG_FILE": str(config),
            "CHECKPOINT_DISABLE": "1",
            "NO_PROXY": "127.0.0.1",
            "TF_IN_AUTOMATION": "1",
        }

    def do(
        self, *arguments: str, env: dict[str, str] | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """One command; its output together."""
        command = ["terraform", f"-chdir={self.root}", *arguments, "-no-color"]
        return run(command, env={**self.env, **(env or {})}, timeout_seconds=300, check=check)


def _mirror() -> Path:
    """A folder with the AWS provider: TF_PROVIDER_MIRROR, else any `tf-plugins` two levels below
    the root folder."""
    named = os.environ.get("TF_PROVIDER_MIRROR")
    for folder in [Path(named)] if named else sorted(Path("/").glob("*/tf-plugins")):
        if any(folder.glob(f"*/{_PROVIDER}")):
            return folder.resolve()
    raise NotChecked("this machine lacks a mirror of the AWS provider (set TF_PROVIDER_MIRROR)")


def terraform_tests(report: Report, operator: Operator, folder: Path) -> Terraform | None:
    """Formatting, validity and `terraform test` with mock providers: no cloud, no mock server. None
    when not checked."""
    terraform: list[Terraform] = []
    with report.check("CA1: terraform init, validate, fmt"):
        tool = Terraform(folder, operator.folder / "CA1/terraform")
        tool.do("init", "-input=false")
        tool.do("validate")
        done = run(
            ["terraform", "fmt", "-check", "-recursive", str(operator.folder / "CA1/terraform")],
            env=tool.env,
            check=False,
        )
        expect(done.returncode == 0, f"not formatted: {done.stdout}")
        terraform.append(tool)
    if not terraform:
        report.skip(
            "CA1: terraform test; apply, plan, drift, destroy against the AWS mock; Ansible",
            "no terraform, see above",
        )
        return None
    results = folder / "terraform-test.xml"
    done = terraform[0].do("test", f"-junit-xml={results}", check=False)
    with report.check("CA1: terraform test ran"):
        expect(results.exists(), done.stdout)
        for case in ElementTree.parse(results).iter("testcase"):
            with report.check(f"CA1 terraform test: {case.get('classname')} {case.get('name')}"):
                expect(not list(case), ElementTree.tostring(case, encoding="unicode"))
    return terraform[0]


@contextmanager
def mocked_aws(tools: Path, folder: Path) -> Iterator[str]:
    """moto on a free port; yields its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = (folder / "moto.log").open("wb")
    command = [
        str(tools / "bin/python"),
        str(_HERE / "moto_compat.py"),
        "-H",
        "127.0.0.1",
        "-p",
        str(port),
    ]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        end = time.monotonic() + 60
        while socket.socket().connect_ex(("127.0.0.1", port)) != 0:
            expect(
                time.monotonic() < end and process.poll() is None,
                f"moto did not start: {(folder / 'moto.log').read_text()[-1000:]}",
            )
            time.sleep(0.3)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        log.close()


def infrastructure(
    report: Report, operator: Operator, terraform: Terraform, tools: Path, aws: str
) -> None:
    """Apply, empty second plan, drift of both kinds. Leaves the mocked machines up, inventory and
    hosts.env written."""
    _environment(operator, terraform, tools, aws)
    with report.check("CA1: make infra, against the AWS mock"):
        planned = operator.shown("make -C CA1 plan", "CA1/terraform-plan", timeout_seconds=400)
        expect("to add, 0 to change, 0 to destroy" in planned, planned[-2000:])
        said = operator.shown("make -C CA1 infra", "CA1/terraform-apply", timeout_seconds=400)
        found = re.search(r"Apply complete! Resources: (\d+) added, 0 changed, 0 destroyed", said)
        expect(found is not None, said[-2000:])
        report.say(found[0] if found else "")
    with report.check("CA1: the second plan says no changes"):
        done = terraform.do(
            "plan", "-input=false", "-detailed-exitcode", env=operator.env, check=False
        )
        expect(done.returncode == 0, done.stdout[-3000:])
    with report.check("CA1: outputs become the Ansible inventory and the smoke test's addresses"):
        operator.do("make -C CA1 inventory outputs")
        hosts = (operator.folder / "CA1/hosts.env").read_text()
        expect(
            all(f"={machine.ip}\n" in hosts for machine in operator.bench.table.machines.values()),
            hosts,
        )
    drift_in_aws(report, operator, terraform, _ec2(tools, aws))


def drift_in_aws(
    report: Report, operator: Operator, terraform: Terraform, ec2: Callable[[str], str]
) -> None:
    """A rule removed behind our back, a rule added behind our back."""
    groups = json.loads(
        terraform.do("output", "-json", "security_group_ids", env=operator.env).stdout
    )
    kafka, mongo = groups["vm1-kafka"], groups["vm2-mongo"]
    drift = "make -s -C CA1 drift DRIFT_ARGS='--only aws'"
    with report.check("CA1: no drift right after apply"):
        expect("0 differences" in operator.do(drift), "drift was reported")
    with report.check("CA1: a removed rule is found, and make infra repairs it"):
        ec2(
            f"which = [{{'Name': 'group-id', 'Values': ['{kafka}']}}]\n"
            "rules = c.describe_security_group_rules(Filters=which)['SecurityGroupRules']\n"
            "gone = [r['SecurityGroupRuleId'] for r in rules if not r['IsEgress'] and "
            "r['FromPort'] == 9092][:1]\n"
            f"c.revoke_security_group_ingress(GroupId='{kafka}', SecurityGroupRuleIds=gone)"
        )
        said = operator.do(drift, check=False)
        expect("DRIFT terraform:" in said and "vm1-kafka: rule missing" in said, said)
        operator.do("make -C CA1 infra", timeout_seconds=400)
        expect("0 differences" in operator.do(drift), "still drifting after make infra")
    with report.check(
        "CA1: an added rule is found (Terraform's own plan does not see it), with the command that "
        "removes it"
    ):
        permission = (
            "{'IpProtocol': 'tcp', 'FromPort': 27017, 'ToPort': 27017, 'IpRanges': [{'CidrIp': "
            "'0.0.0.0/0'}]}"
        )
        ec2(f"c.authorize_security_group_ingress(GroupId='{mongo}', IpPermissions=[{permission}])")
        blind = terraform.do(
            "plan", "-input=false", "-detailed-exitcode", env=operator.env, check=False
        )
        said = operator.do(drift, check=False)
        report.say(f"terraform plan alone: exit {blind.returncode}; drift: {said.strip()}")
        revoke = re.search(
            (
                rf"vm2-mongo: rule in no flow, in tcp 27017-27017 0.0.0.0/0; remove it: .*{mongo} "
                r"--security-group-rule-ids (\S+)"
            ),
            said,
        )
        expect(revoke is not None, said)
        ec2(
            f"c.revoke_security_group_ingress(GroupId='{mongo}', "
            f"SecurityGroupRuleIds=['{revoke[1] if revoke else ''}'])"
        )
        said = operator.shown(drift, "CA1/drift")
        expect("0 differences" in said, "still drifting after the rule was revoked")


def state_in_s3(
    report: Report, operator: Operator, terraform: Terraform, tools: Path, aws: str
) -> None:
    """backend.tf.example as it stands, with the mock's address beside it."""
    with report.check(
        "CA1: backend.tf.example keeps the state in S3, and a held lock file refuses a second "
        "operator"
    ):
        root = operator.bench.folder / "s3"
        root.mkdir()
        example = (operator.folder / "CA1/terraform/backend.tf.example").read_text()
        (root / "backend.tf").write_text(
            example + 'resource "terraform_data" "any" {\n  input = "x"\n}\n'
        )
        mock = (
            "skip_credentials_validation = true\nskip_requesting_account_id = "
            "true\nskip_metadata_api_check = true\n"
        )
        (root / "mock.hcl").write_text(
            f'{mock}use_path_style = true\nendpoints = {{ s3 = "{aws}" }}\n'
        )
        s3 = _client(tools, aws, "s3")
        s3(
            f"c.create_bucket(Bucket='{_BUCKET}', "
            f"CreateBucketConfiguration={{'LocationConstraint': 'eu-central-1'}})"
        )
        env = terraform.env | _credentials(aws)
        command = ["terraform", f"-chdir={root}"]
        run([*command, "init", "-input=false", "-backend-config=mock.hcl"], env=env)
        run([*command, "apply", "-input=false", "-auto-approve"], env=env)
        keys = s3(f"print([o['Key'] for o in c.list_objects_v2(Bucket='{_BUCKET}')['Contents']])")
        expect(keys.strip() == "['gpu-tokens/ca1.tfstate']", keys)
        s3(
            f"c.put_object(Bucket='{_BUCKET}', Key='gpu-tokens/ca1.tfstate.tflock', "
            f'Body=b\'{{"ID": "someone-else"}}\')'
        )
        said = run(
            [*command, "apply", "-input=false", "-auto-approve", "-no-color"], env=env, check=False
        )
        expect(
            said.returncode != 0 and "Error acquiring the state lock" in said.stdout, said.stdout
        )


def destroy(report: Report, operator: Operator, tools: Path, aws: str) -> None:
    """Teardown leaves nothing: asked of the mock, not of Terraform."""
    with report.check("CA1: make down leaves nothing in the AWS mock"):
        said = operator.do("make -C CA1 down", timeout_seconds=400)
        expect("Destroy complete!" in said, said[-2000:])
        left = _ec2(tools, aws)(
            "vpcs = [v['VpcId'] for v in c.describe_vpcs()['Vpcs'] if not v['IsDefault']]\n"
            "instances = [i for r in c.describe_instances()['Reservations'] for i in "
            "r['Instances']]\n"
            "alive = [i['InstanceId'] for i in instances if i['State']['Name'] != 'terminated']\n"
            "groups = [g['GroupId'] for g in c.describe_security_groups()['SecurityGroups'] if "
            "g['GroupName'] != 'default']\n"
            "print(vpcs, alive, groups, c.describe_key_pairs()['KeyPairs'], "
            "c.describe_volumes()['Volumes'])"
        )
        expect(left.strip() == "[] [] [] [] []", left)


def _environment(operator: Operator, terraform: Terraform, tools: Path, aws: str) -> None:
    """What an operator would have in terraform.tfvars and in the shell, pointed at the bench."""
    image = _ec2(tools, aws)(
        "print(c.describe_images(Filters=[{'Name': 'virtualization-type', 'Values': "
        "['hvm']}])['Images'][0]['ImageId'])"
    ).strip()
    bench = operator.bench
    lines = [
        f'my_ip_cidr = "{ADMIN_ADDRESS}/32"',
        f'ssh_public_key_file = "{bench.key}.pub"',
        f'ami_id = "{image}"',
        f'aws_endpoint = "{aws}"',
        "connect_privately = true",
    ]
    (operator.folder / "CA1/terraform/terraform.tfvars").write_text("\n".join(lines) + "\n")
    operator.env |= {**terraform.env, **_credentials(aws), "TOOLS": str(tools)}


def _credentials(aws: str) -> dict[str, str]:
    keys = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    return {**keys, "AWS_ENDPOINT_URL": aws, "AWS_DEFAULT_REGION": "eu-central-1"}


def _ec2(tools: Path, aws: str) -> Callable[[str], str]:
    return _client(tools, aws, "ec2")


def _client(tools: Path, aws: str, service: str) -> Callable[[str], str]:
    """Runs Python with `c`, a client of the mock's `service`, and returns what it prints."""

    def call(code: str) -> str:
        program = (
            f"import boto3\nc = boto3.client('{service}', region_name='eu-central-1')\n" + code
        )
        return run([str(tools / "bin/python"), "-c", program], env=_credentials(aws)).stdout

    return call


def configuration(report: Report, bench: Bench, operator: Operator, image: Path) -> None:
    """Ansible: first run, second run changed=0, drift found and repaired, then what CA0 promises
    too."""
    operator.env |= {
        "IMAGE_ARCHIVE": str(image),
        "SSH_KEY": str(bench.key),
        "ANSIBLE_SSH_COMMON_ARGS": f"-o UserKnownHostsFile={bench.folder / 'known_hosts'}",
        "ANSIBLE_FORCE_COLOR": "0",
    }
    configure = "make -C CA1 -e configure"
    with report.check("CA1: Ansible's first run, on fresh machines"):
        report.say(_recap(operator.shown(configure, "CA1/ansible", timeout_seconds=600)))
    with report.check("CA1: Ansible's second run changes nothing"):
        recap = _recap(operator.do(configure, timeout_seconds=600))
        report.say(recap)
        expect(not re.search(r"changed=[1-9]", recap), recap)
    with report.check(
        "CA1: drift on the machines is found (a firewall rule added by hand, SSH opened), and "
        "repaired"
    ):
        bench.inside("vm2-mongo", "ufw", "allow", "27017/tcp")
        bench.inside(
            "vm4-producers",
            "sed",
            "-i",
            "s/PasswordAuthentication no/PasswordAuthentication yes/",
            "/etc/ssh/sshd_config.d/00-gpu-tokens.conf",
        )
        said = operator.do(
            "make -s -C CA1 -e drift DRIFT_ARGS='--only machines'", timeout_seconds=300, check=False
        )
        report.say(said.strip())
        expect(
            "DRIFT vm2-mongo: base : Open exactly" in said
            and "DRIFT vm4-producers: base : Accept keys only" in said,
            said,
        )
        operator.do(configure, timeout_seconds=600)
        said = operator.do(
            "make -s -C CA1 -e drift DRIFT_ARGS='--only machines'", timeout_seconds=300, check=False
        )
        expect("0 differences" in said, said)
    ca0.logins(report, bench, "CA1")
    ca0.reachability(report, bench, "CA1, containers running")


def verification(report: Report, operator: Operator) -> None:
    """The stage's own verify targets."""
    for target in ("verify", "verify-workflow MAX_DOCS=100"):
        with report.check(f"CA1: make {target}"):
            operator.env["SSH_OPTIONS"] = " ".join(operator.bench.ssh_options)
            command = f"make -s -C CA1 -e {target}"
            said = (
                operator.shown(command, "CA1/verify", timeout_seconds=420)
                if target == "verify"
                else operator.do(command, timeout_seconds=420)
            )
            report.say(
                "\n".join(["", *(f"    {line[:150]}" for line in said.strip().splitlines()[-12:])])
            )


def lint(report: Report, operator: Operator, tools: Path) -> None:
    """ansible-lint's strictest profile, and yamllint through it."""
    with report.check("CA1: ansible-lint, profile production"):
        env = {"PATH": f"{tools / 'bin'}:{os.environ['PATH']}", "ANSIBLE_FORCE_COLOR": "0"}
        command = [
            str(tools / "bin/ansible-lint"),
            "--offline",
            "--profile",
            "production",
            "-q",
            "--nocolor",
            "site.yml",
        ]
        done = run(
            command, cwd=operator.folder / "CA1/ansible", env=env, check=False, timeout_seconds=300
        )
        expect(done.returncode == 0, done.stdout[-3000:])


def _recap(output: str) -> str:
    return "\n".join(["", *(f"    {line}" for line in output.splitlines() if "changed=" in line)])
