"""The Ansible role as far as it needs no target: its options, its manual, and what it makes of what it is told.

What it does to a machine is for tests/e2e/test_role.py.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from unitmem.policyfile.reader import load, parse

CHECKOUT = Path(__file__).parents[2]
ANSIBLE = CHECKOUT / "ansible"
ROLE = ANSIBLE / "roles/unitmem"
OPTIONS = yaml.safe_load((ROLE / "meta/argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
DEFAULTS = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
POLICY = {"name": "leak", "units": ["web@*.service"], "steps": [{"when": "anon > 1G", "do": "log"}]}


# --- its manual


def as_markdown(text):
    """A description with Ansible's markup as Markdown's."""
    return re.sub(r"\b[CO]\((.*?)\)(?!\))", r"`\1`", " ".join(text.split()))


def rows(options):
    """The lines of the table that tells of them."""
    for name, option in options.items():
        described = option["description"]
        text = " ".join([described] if isinstance(described, str) else described)
        kind = " or ".join(f"`{choice}`" for choice in option.get("choices", [])) or option["type"]
        if option.get("required"):
            kind += ", required"
        default = f"`{json.dumps(option['default'])}`" if "default" in option else ""
        yield f"| `{name}` | {kind} | {default} | {as_markdown(text)} |"


@pytest.mark.parametrize(
    "options", [OPTIONS, OPTIONS["unitmem_instances"]["options"]], ids=["the role", "an instance"]
)
def test_the_manual_has_a_table_of_every_option(options):
    manual = (ROLE / "README.md").read_text().splitlines()
    assert [row for row in rows(options) if row not in manual] == []


def test_the_manual_tells_of_no_other_variable_or_tag():
    manual = (ROLE / "README.md").read_text()
    tasks = yaml.safe_load((ROLE / "tasks/main.yml").read_text())
    tags = {tag for task in tasks for tag in task["tags"]} - {"always"}
    assert set(re.findall(r"\bunitmem_[a-z_]+\b", manual)) == set(OPTIONS) | tags


def test_the_defaults_are_the_documented_ones():
    assert {name: option["default"] for name, option in OPTIONS.items()} == DEFAULTS


def test_targets_of_make_that_are_named_exist():
    targets = set(re.findall(r"^([a-z0-9-]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE))
    files = [*ANSIBLE.rglob("*.md"), *ANSIBLE.rglob("*.yml")]
    named = {name for file in files for name in re.findall(r"[`(]make ([\w-]+)", file.read_text())}
    assert named
    assert named <= targets


# --- its options


def mistakes(variables):
    """What the role says is wrong with them."""
    # takes a while to import, and each worker imports all files
    from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

    return ArgumentSpecValidator(OPTIONS).validate({**DEFAULTS, **variables}).error_messages


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"unitmem_instances": [{"name": "web", "policies": [POLICY]}]}, []),
        ({"unitmem_instances": [{"name": "web", "file": "web.yaml", "state": "stopped"}]}, []),
        ({"unitmem_instances": [{"name": "web", "state": "absent"}]}, []),
        ({"unitmem_instances": [{"name": "web"}]}, ["policies, file, template"]),
        ({"unitmem_instances": [{"policies": [POLICY]}]}, ["name"]),
        ({"unitmem_instances": [{"name": "web", "polices": [POLICY]}]}, ["polices", "policies"]),
        (
            {"unitmem_instances": [{"name": "web", "policies": [POLICY], "file": "web.yaml"}]},
            ["mutually exclusive"],
        ),
        ({"unitmem_instances": [{"name": "web", "file": "web.yaml", "interval": "1s"}]}, ["interval"]),
        ({"unitmem_instances": [{"name": "web", "state": "running", "file": "a"}]}, ["running", "started"]),
        ({"unitmem_method": "snap"}, ["snap", "auto, package, wheel"]),
        ({"unitmem_observe": "perhaps"}, ["perhaps"]),
    ],
)
def test_options_are_typed(variables, words):
    errors = mistakes(variables)
    assert bool(errors) == bool(words), errors
    assert [word for word in words if not any(word in error for error in errors)] == []


def test_a_bool_is_made_one_wherever_it_is_used():
    """From an INI inventory or the command line comes text, and `false` as text is true."""
    names = "|".join(name for name, option in OPTIONS.items() if option["type"] == "bool")
    used = [
        (path.name, line.strip())
        for folder in ("vars", "tasks", "handlers", "templates")
        for path in (ROLE / folder).iterdir()
        for line in path.read_text().splitlines()
        # in a sentence, none is used
        if re.search(rf"\b({names})\b(?! \| bool| to false| there\.|\))", line)
    ]
    assert used == []


def test_the_example_is_one_that_runs():
    for group in ("all", "canary"):
        variables = yaml.safe_load((ANSIBLE / f"inventory/group_vars/{group}.yml").read_text())
        assert mistakes(variables) == []
        for instance in variables.get("unitmem_instances", []):
            if "file" in instance:
                checked = load(ANSIBLE / "files" / instance["file"])
            else:
                checked = parse(json.dumps({"policies": instance["policies"]}))
            assert checked.warnings == ()


# --- what it makes of what it is told

GOOD = {
    "ID": "debian",
    "VERSION_ID": "12",
    "booted": "yes",
    "systemd": "252",
    "cgroup": "cgroup2fs",
    "controllers": "cpuset cpu io memory pids",
    "psi": "yes",
    "python:/usr/bin/python3": "3.11",
    "place": "venv",
    "venv": "3.11",
    "wheel": "",
    **dict.fromkeys(
        (
            "files",
            "states",
            "drop_ins",
            "enabled",
            "observers",
            "active",
            "unsettled",
            "failed",
            "stale_policies",
            "stale_units",
            "link",
        ),
        "",
    ),
}
TARGETS = {
    "debian 12": ({}, "wheel", []),
    "debian 13": ({"VERSION_ID": "13", "python:/usr/bin/python3": "3.13"}, "package", []),
    "debian testing": ({"VERSION_ID": None, "python:/usr/bin/python3": "3.13"}, "package", []),
    "ubuntu": ({"ID": "ubuntu", "ID_LIKE": "debian", "VERSION_ID": "24.04"}, "wheel", []),
    "el 9": (
        {
            "ID": "almalinux",
            "ID_LIKE": "rhel centos fedora",
            "VERSION_ID": "9.6",
            "python:/usr/bin/python3": "3.9",
        },
        "wheel",
        [],
    ),
    "no systemd": (
        {"booted": "no", "systemd": ""},
        "wheel",
        ["systemd: this machine was not booted with systemd"],
    ),
    "an old one": ({"systemd": "247"}, "wheel", ["systemd: version 247 is here"]),
    "cgroup v1": (
        {"cgroup": "tmpfs", "controllers": ""},
        "wheel",
        [
            "cgroup v2: /sys/fs/cgroup is tmpfs rather than cgroup2fs. Boot with systemd.unified_cgroup_hierarchy=1"
        ],
    ),
    "no controller": ({"controllers": "cpu pids"}, "wheel", ["memory controller: "]),
    "no psi": ({"psi": "no"}, "wheel", ["PSI: /proc/pressure/memory can't be read. Boot with psi=1"]),
    "debian 11": (
        {"VERSION_ID": "11", "systemd": "247", "python:/usr/bin/python3": "3.9"},
        "wheel",
        ["systemd: version 247", "Python: /usr/bin/python3 is 3.9"],
    ),
    "no python": ({"python:/usr/bin/python3": None}, "wheel", ["Python: /usr/bin/python3 is not there"]),
    "something in the way": ({"place": "other"}, "wheel", ["unitmem_venv: /opt/unitmem is there already"]),
}
# what plain YAML would take for something else has to come through as it was
TRICKY = {
    "name": "tricky",
    "interval": "1s",
    "budget": {"actions": 3, "per": "1h"},
    "policies": [
        {
            "units": ["*.service", "a@0x1f.service"],
            "name": "on",
            "steps": [
                {
                    "when": "pressure.full.avg10 > 40%",
                    "for": "10s",
                    "do": {"run": ["/bin/echo", "{{ x }}: # %s \\n", "é"]},
                }
            ],
        }
    ],
}
WRITTEN = "{policies: []}  # as it was, {{ x }}\n\n"
# a copy takes a second, a debug none
PLAY = """
- hosts: localhost
  connection: local
  gather_facts: false
  vars_files: [{role}/defaults/main.yml, {role}/vars/main.yml]
  tasks:
    - ansible.builtin.debug:
        msg: {{method: "{{{{ __unitmem_method }}}}", obstacles: "{{{{ __unitmem_obstacles }}}}"}}
      loop: "{{{{ targets }}}}"
      vars:
        __unitmem_probe: {{stdout_lines: "{{{{ item }}}}"}}
      register: preflight
    - ansible.builtin.debug:
        msg: "{{{{ __unitmem_text }}}}"
      loop: "{{{{ unitmem_instances }}}}"
      register: texts
    - ansible.builtin.copy:
        content: "{{{{ made | to_json }}}}"
        dest: "{directory}/made.json"
        mode: "0600"
      vars:
        __unitmem_texts: "{{{{ dict(unitmem_instances | map(attribute='name') | zip(texts.results | map(attribute='msg'))) }}}}"
        made:
          preflight: "{{{{ preflight.results | map(attribute='msg') }}}}"
          texts: "{{{{ texts.results | map(attribute='msg') }}}}"
          directory: "{directory}"
          problems: "{{{{ lookup('ansible.builtin.template', '{role}/templates/problems.j2') }}}}"
"""


def run(play, *options, status=0, **environment):
    """What a playbook tells."""
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), *options, play],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ
        | {"ANSIBLE_CONFIG": str(ANSIBLE / "ansible.cfg"), "ANSIBLE_LOCALHOST_WARNING": "false"}
        | environment,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What one play makes of all that is above."""
    directory = tmp_path_factory.mktemp("role")
    (directory / "templates").symlink_to(ROLE / "templates")
    play = directory / "play.yml"
    play.write_text(PLAY.format(role=ROLE, directory=directory))
    (directory / "written.yaml").write_text(WRITTEN)
    targets = [
        [f"{key}={value}" for key, value in {**GOOD, **changes}.items() if value is not None]
        for changes, _, _ in TARGETS.values()
    ]
    checked = {
        "stderr_lines": [
            "file.yaml:2:1: broken",
            "tricky.yaml:3:1: broken",
            "rendered.yaml:1:1: broken",
            "Something else.",
        ]
    }
    (directory / "template.j2").write_text("{# #}policies: 3\n")
    instances = [
        TRICKY,
        {"name": "file", "file": str(directory / "written.yaml")},
        {"name": "rendered", "template": str(directory / "template.j2")},
    ]
    variables = directory / "variables.json"
    # as group_vars would have it: what looks like a template and isn't meant as one is marked so
    variables.write_text(
        yaml.dump(
            {"targets": targets, "__unitmem_checked": checked, "unitmem_instances": instances},
            sort_keys=False,
        ).replace("'{{ x }}", "!unsafe '{{ x }}")
    )
    run(play, "-e", f"@{variables}")
    return json.loads((directory / "made.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_a_machine_that_lacks_something_is_told_what_and_what_to_do(made, target):
    _, method, obstacles = TARGETS[target]
    told = made["preflight"][list(TARGETS).index(target)]
    assert told["method"] == method
    assert len(told["obstacles"]) == len(obstacles), told["obstacles"]
    assert [words for words in obstacles if not any(t.startswith(words) for t in told["obstacles"])] == []


@pytest.mark.slow
def test_policies_as_data_are_written_as_they_were_meant(made):
    text, *_ = made["texts"]
    wanted = {key: value for key, value in TRICKY.items() if key != "name"}
    assert yaml.safe_load(text) == wanted
    assert parse(text).warnings == ()
    assert text.splitlines()[1:5] == [
        'interval: "1s"',
        'budget: {"actions": 3, "per": "1h"}',
        "policies:",
        '  - units: ["*.service", "a@0x1f.service"]',
    ]


@pytest.mark.slow
def test_a_file_of_policies_is_written_to_the_letter(made):
    _, text, _ = made["texts"]
    assert text == WRITTEN


@pytest.mark.slow
def test_problems_are_told_by_the_names_that_files_have_for_their_author(made):
    directory = made["directory"]
    assert made["problems"].splitlines() == [
        "broken policies",
        f"{directory}/written.yaml:2:1: broken",
        "/etc/unitmem/tricky.yaml:3:1: broken",
        '    budget: {"actions": 3, "per": "1h"}',
        f"{directory}/template.j2 (rendered):1:1: broken",
        "    policies: 3",
        "Something else.",
        "No instance was changed: each runs on with the policies that it had.",
    ]


@pytest.fixture(scope="module")
def evaluate():
    """evaluate(expression, **variables): what the role makes of it where the variables are these."""
    from ansible.parsing.dataloader import DataLoader
    from ansible.plugins.loader import init_plugin_loader
    from ansible.template import Templar, trust_as_template

    init_plugin_loader()
    loader = DataLoader()
    defined = {}
    for file in ("defaults/main.yml", "vars/main.yml"):
        defined |= loader.load_from_file(str(ROLE / file), trusted_as_template=True)

    def evaluate(expression, **variables):
        return Templar(loader, defined | variables).template(trust_as_template(f"{{{{ {expression} }}}}"))

    return evaluate


def probe(**told):
    return {"stdout_lines": [f"{key}={value}" for key, value in {**GOOD, **told}.items()]}


def task(file, name):
    """The task of that name in a file of the role, in a block or not."""
    listed = yaml.safe_load((ROLE / file).read_text())
    (found,) = (task for outer in listed for task in outer.get("block", [outer]) if task["name"] == name)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "said",
    ["no", True, "false", "0", "true", "yes", "1", False],
)
def test_no_is_no_as_text_too(evaluate, said):
    """What isn't listed stays, who shall act acts, and what is remembered is removed or not as it is meant."""
    is_meant = said in ("true", "yes", "1", True)

    def made_of(option, expression):
        instances = [{"name": "a"}, {"name": "yes", "observe": "yes"}, {"name": "no", "observe": "no"}]
        variables = {
            "__unitmem_probe": probe(active="a other", states="gone", psi="no"),
            "__unitmem_texts": {},
            "unitmem_instances": [*instances, {"name": "gone", "state": "absent"}],
        }
        return evaluate(expression, **variables, **{option: said})

    assert made_of("unitmem_exclusive", "'other' in __unitmem_gone") == is_meant
    assert made_of("unitmem_keep_state", "'gone' not in __unitmem_gone") == is_meant
    assert made_of("unitmem_require_psi", "__unitmem_obstacles | length") == is_meant
    check = f"lookup('ansible.builtin.template', '{ROLE}/templates/check.sh.j2')"
    assert ("--strict" in made_of("unitmem_strict", check)) == is_meant
    assert made_of("unitmem_observe", "__unitmem_observing") == ["a", "yes"] if is_meant else ["yes"]


@pytest.mark.slow
def test_a_new_package_has_policies_checked_that_did_not_change(evaluate):
    """What it refuses would be found at the next boot."""
    conditions = task("tasks/instances.yml", "Check the policies on the target")["when"]
    check = " and ".join(f"({condition})" for condition in conditions)

    def made_of(expression, **registered):
        return evaluate(
            expression,
            __unitmem_probe=probe(active="a", **{"there:/opt/unitmem/bin/unitmem": "yes"}),
            __unitmem_new_policies=[],
            unitmem_instances=[{"name": "a"}],
            **registered,
        )

    for name in ("Install it", "Install the package from the package sources"):
        registered = task("tasks/package.yml", name)["register"]
        assert made_of(check, **{registered: {"changed": True}})
        assert not made_of(check, **{registered: {"changed": False}})
        # its own scripts have done that
        assert made_of("__unitmem_to_restart", **{registered: {"changed": True}}) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "there", "is_wanted"),
    [
        ("unitmem", "", False),
        ("unitmem", "0.1.0", True),
        ("unitmem=0.1.0", "0.1.0", True),
        ("unitmem=0.2.0", "0.1.0", False),
        ("unitmem=0.1.*", "0.1.0", True),
        ("unitmem=0.1*", "0x1.0", False),
        ("unitmem=0.1", "0.1.0", False),
        ("unitmem=0.1.0", "", False),
    ],
)
def test_what_apt_would_change_is_told_without_its_python(evaluate, asked, there, is_wanted):
    would_change = task(
        "tasks/package.yml", "Say what would be installed, where apt can't tell without python3-apt"
    )
    variables = {"unitmem_package": asked, "__unitmem_probe": probe(**{"package:unitmem": there})}
    assert evaluate(would_change["changed_when"], **variables) is not is_wanted


@pytest.mark.slow
@pytest.mark.parametrize(
    ("found", "wanted", "state"),
    [
        ("active", "started", None),
        ("active", "stopped", "stopped"),
        ("unsettled", "started", "restarted"),
        ("unsettled", "stopped", "stopped"),
        ("failed", "started", "started"),
        ("failed", "stopped", None),
    ],
)
def test_what_is_started_or_stopped(evaluate, found, wanted, state):
    """An instance that fails again and again runs no more than one that has failed, though systemd calls it activating."""
    start = task("tasks/instances.yml", "Start or stop the instances")
    item = {"name": "a", "state": wanted}
    variables = {
        "__unitmem_probe": probe(**{found: "a"}, enabled="a" if wanted == "started" else ""),
        "item": item,
    }
    for name, text in start["vars"].items():
        variables[name] = evaluate(text.strip("{} "), **variables)
    if state is None:
        assert not evaluate(start["when"], **variables)
    else:
        assert evaluate(start["when"], **variables)
        assert evaluate(start["ansible.builtin.systemd_service"]["state"].strip("{} "), **variables) == state


@pytest.mark.slow
def test_what_fails_again_and_again_is_not_reloaded_and_can_be_removed(evaluate):
    variables = {
        "__unitmem_probe": probe(active="a", unsettled="b c"),
        "__unitmem_written": {"results": [{"changed": True, "item": name} for name in ("a", "b")]},
        "unitmem_instances": [{"name": "a"}, {"name": "b"}, {"name": "c", "state": "absent"}],
    }
    assert evaluate("__unitmem_to_reload", **variables) == ["a"]
    assert evaluate("__unitmem_gone", **variables) == ["c"]
    assert evaluate("__unitmem_found", **variables) == ["a", "b", "c"]


def test_what_has_to_be_root_s_is_made_so():
    """A file of another user is written anew by every play, as it isn't what is wanted, and a service doesn't obey it."""
    written = [
        task["ansible.builtin.copy"]
        for path in sorted((ROLE / "tasks").glob("*.yml"))
        for task in yaml.safe_load(path.read_text())
        if "__unitmem_is_there" in str(task.get("when"))
    ]
    assert len(written) == 4
    made = task("tasks/instances.yml", "Make the directory of policies")["ansible.builtin.file"]
    for each, mode in ((made, "0755"), *((each, "0644") for each in written)):
        assert (each["owner"], each["group"], each["mode"]) == ("root", "root", mode)


def test_one_way_of_installing_is_removed_only_when_the_other_is_there():
    for file, other in (("wheel.yml", "package_absent.yml"), ("package.yml", "wheel_absent.yml")):
        listed = yaml.safe_load((ROLE / "tasks" / file).read_text())
        assert listed[-1]["ansible.builtin.include_tasks"]["file"] == other


SYSTEMCTL = """#!/bin/sh
case $1 in
    show) printf 'Id=%s\\nLoadState=loaded\\nActiveState=active\\n' "$2" ;;
    restart) echo "$*" >>{directory}/done ;;
esac
"""
CHECK = """#!/bin/sh
echo "$*" >>{directory}/done
case $2 in */edited.yaml) echo "no" >&2 && exit 78 ;; esac
"""
RESTART = """
- hosts: localhost
  connection: local
  gather_facts: false
  vars_files: [{role}/defaults/main.yml, {role}/vars/main.yml]
  tasks:
    - ansible.builtin.debug:
      changed_when: true
      notify: Restart the instances
      register: __unitmem_installed
  handlers:
    - ansible.builtin.import_tasks: {role}/handlers/main.yml
"""


@pytest.mark.slow
def test_a_guard_is_restarted_only_where_its_policies_are_taken(tmp_path):
    """One with the code from before is better than one that does not start."""
    (tmp_path / "play.yml").write_text(RESTART.format(role=ROLE))
    (tmp_path / "variables.json").write_text(json.dumps({"__unitmem_probe": probe(active="web edited")}))
    for program, text in (("systemctl", SYSTEMCTL), ("unitmem", CHECK)):
        (tmp_path / program).write_text(text.format(directory=tmp_path))
        (tmp_path / program).chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    variables = "-e", f"@{tmp_path}/variables.json", "-e", f"__unitmem_program={tmp_path}/unitmem"
    told = run(tmp_path / "play.yml", *variables, PATH=path)
    *checks, restart = (tmp_path / "done").read_text().splitlines()
    assert sorted(checks) == ["check /etc/unitmem/edited.yaml", "check /etc/unitmem/web.yaml"]
    assert restart == "restart unitmem@web.service"
    assert "unitmem@edited.service goes on with the code and the options from before" in told
    assert "unitmem@web.service goes on" not in told


@pytest.mark.slow
def test_a_failure_keeps_those_that_come_after_as_they_are(tmp_path):
    """The example's own play, with a role that fails on one of the second batch."""
    fails = {"ansible.builtin.fail": {}, "when": "inventory_hostname == 'c'"}
    (tmp_path / "roles/unitmem/tasks").mkdir(parents=True)
    tasks = [{"ansible.builtin.debug": {}}, fails]
    (tmp_path / "roles/unitmem/tasks/main.yml").write_text(json.dumps(tasks))
    play = tmp_path / "site.yml"
    play.write_text((ANSIBLE / "site.yml").read_text())
    told = run(play, "--inventory", "a,b,c,d,e,f,g,h", "--extra-vars", "ansible_become=false", status=2)
    assert set(re.findall(r"^ok: \[(.)\]", told, re.MULTILINE)) == {"a", "b", "c"}


STATES = {
    "steady": ("active", 5000),
    "old": ("active", 1000),
    "looping": ("activating", 5000),
    "ending": ("deactivating", 5000),
    "broken": ("failed", 5000),
    "off": ("inactive", 0),
}


def test_the_probe_sorts_instances_by_what_they_do(tmp_path):
    """With a systemctl of its own, and a stat, to which the package's files are of 2000."""
    shown = "\n\n".join(
        f"Id=unitmem@{name}.service\nActiveState={state}\nStateChangeTimestamp=@9999\nExecMainStartTimestamp=@{started}"
        for name, (state, started) in STATES.items()
    )
    (tmp_path / "shown").write_text(shown + "\n")
    commands = {
        "systemctl": f'[ "$1" != show ] || cat {tmp_path}/shown',
        "stat": 'case "$*" in *%Y*/var/lib/dpkg/info/unitmem.list*) echo 2000 ;; esac',
    }
    for name, text in commands.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        ["sh", ROLE / "files/probe.sh", tmp_path / "venv", "", "dpkg", ""],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )
    told = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert {key: told[key] for key in ("active", "unsettled", "failed", "stale_units")} == {
        "active": "steady old",
        "unsettled": "looping ending",
        "failed": "broken",
        "stale_units": "old",
    }


def test_the_probe_tells_what_the_role_asks_for(tmp_path):
    """On this very machine, whatever it is: it only reads."""
    probe = [
        "sh",
        ROLE / "files/probe.sh",
        tmp_path,
        "/usr/bin/python3 /nowhere/python3.11",
        "dpkg nopackage",
        "/",
    ]
    done = subprocess.run(probe, check=True, capture_output=True, text=True)
    assert done.stderr == ""
    told = dict(line.split("=", 1) for line in done.stdout.splitlines())
    asked = set(re.findall(r"__unitmem_target\.([a-z_]+)", (ROLE / "vars/main.yml").read_text()))
    assert asked - set(told) == set()
    assert told["place"] == "free"
    assert re.fullmatch(r"3\.\d+", told["python:/usr/bin/python3"])
    assert "python:/nowhere/python3.11" not in told
    assert "package:nopackage" not in told
    assert told["metrics"] == "root"
