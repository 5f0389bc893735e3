"""The files of infra/jenkins and docker/ fit each other and the sources of the plugins. No controller has loaded them."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from tests.jenkins.conftest import ROOT
from tests.jenkins.controller_schema import Controller

INFRA = ROOT / "infra" / "jenkins"
DOCKER = ROOT / "docker"
REALMS = sorted((INFRA / "realms").glob("*.yaml"))
PIPELINES = [ROOT / "Jenkinsfile", *sorted(INFRA.glob("*.Jenkinsfile"))]
STEPS = sorted((INFRA / "library" / "vars").glob("*.groovy"))


def name_of(path):
    return str(Path(path).relative_to(ROOT))


def read(path):
    return path.read_text(encoding="utf-8")


def code(path):
    """The text of a pipeline without its comments; an address in a string keeps its slashes."""
    return re.sub(r"(?<!:)//.*|/\*.*?\*/", "", read(path), flags=re.MULTILINE)


GROOVY = set("assert catch def else finally for if import return switch throw try while".split())  # noqa: SIM905


def words(path):
    """What begins a statement or a condition: sections, options, steps."""
    text = re.sub(r"'''.*?'''|\"\"\".*?\"\"\"", "''", code(path), flags=re.DOTALL)
    lines = re.findall(
        r"(?:^|\{)[ \t]*([A-Za-z]\w*)(?=\s*[({]|[ \t]+['\w])(?![ \t]+\w+[ \t]*=[^=])", text, flags=re.MULTILINE
    )
    own = re.findall(r"\bdef (\w+) *\(", text)
    return {*lines, *re.findall(r"= *(credentials)\(", text)} - GROOVY - set(own)


# --- configuration as code ---


class OneOfEachKey(yaml.SafeLoader):
    """YAML takes the last of two equal keys in silence."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"twice: {sorted(twice)}", node.start_mark)
        return super().construct_mapping(node, deep)


def load(path):
    return yaml.load(read(path), OneOfEachKey)


def merged(one, other, where=""):
    """As configuration-as-code does it by default (ErrorOnConflictMergeStrategy): lists are appended, scalars clash."""
    if isinstance(one, dict) and isinstance(other, dict):
        both = {key: merged(one[key], other[key], f"{where}.{key}") for key in one.keys() & other.keys()}
        return {**one, **other, **both}
    if isinstance(one, list) and isinstance(other, list):
        return [*one, *other]
    raise ValueError(f"{where} stands in two files")


def controller(realm="ldap"):
    return Controller.model_validate(merged(load(INFRA / "jenkins.yaml"), load(INFRA / "realms" / f"{realm}.yaml")))


@pytest.mark.parametrize("realm", ["ldap", "local", "oidc"])
def test_the_controller_with_each_realm_has_only_keys_that_the_plugins_know(realm):
    assert controller(realm).jenkins.securityRealm is not None


def test_each_realm_is_a_file_of_its_own_and_jenkins_yaml_has_none():
    assert [path.stem for path in REALMS] == ["ldap", "local", "oidc"]
    assert "securityRealm" not in load(INFRA / "jenkins.yaml")["jenkins"]
    everything = load(INFRA / "jenkins.yaml")
    for path in REALMS:
        everything = merged(everything, load(path))
    with pytest.raises(ValueError, match="one realm"):
        Controller.model_validate(everything)


def test_a_key_that_stands_twice_and_a_key_that_nobody_knows_are_noticed(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("jenkins:\n  mode: A\n  mode: B\n", encoding="utf-8")
    with pytest.raises(yaml.YAMLError, match="twice"):
        load(path)
    known = merged(load(INFRA / "jenkins.yaml"), load(INFRA / "realms" / "ldap.yaml"))
    known["unclassified"]["globalLibraries"]["libraries"][0]["retriever"]["modernSCM"]["libraryFolder"] = "x"
    with pytest.raises(ValueError, match="libraryFolder"):
        Controller.model_validate(known)


def test_no_secret_stands_in_the_files():
    for path in [INFRA / "jenkins.yaml", *REALMS]:
        for line in read(path).splitlines():
            found = re.match(r"\s*(?:- )?(\w*(?:[Pp]assword|[Ss]ecret|privateKey)\w*):\s*(\S.*)", line)
            if found:
                assert "readFile:/run/secrets/" in found[2], f"{path.name}: {line}"


# --- roles ---


def roles():
    return controller().jenkins.authorizationStrategy.roleBased.roles.items


def permissions(who, item):
    """What a user or a group may do with an item."""
    return {
        permission
        for role in roles()
        if who in {entry.user or entry.group for entry in role.entries} and re.fullmatch(role.pattern, item)
        for permission in role.permissions
    }


RIGHTS = {
    "gatehouse-trainers": {"mlops": "Read Build", "approvals": "", "operations": ""},
    "gatehouse-approvers": {"mlops": "Read", "approvals": "Read Build", "operations": ""},
    "gatehouse-operators": {"mlops": "Read Build Cancel", "approvals": "", "operations": "Read Build Cancel"},
    "gatehouse": {"mlops": "Read", "approvals": "Read", "operations": ""},
    "gatehouse-retrain": {"mlops": "Read Build", "approvals": "", "operations": ""},
}


@pytest.mark.parametrize("who", RIGHTS)
def test_each_role_may_what_it_must_and_no_more(who):
    for folder, rights in RIGHTS[who].items():
        expected = {f"Job/{right}" for right in rights.split()}
        for item in (folder, f"{folder}/flights", f"{folder}/flights/main"):
            assert permissions(who, item) == expected, item
    assert permissions(who, "mlops-other") == set()


def test_the_roles_are_those_of_the_table_and_each_has_a_name_of_its_own():
    entries = [entry for role in roles() for entry in role.entries]
    assert {entry.user or entry.group for entry in entries} == set(RIGHTS)
    assert {entry.user for entry in entries} - {None} == {"gatehouse", "gatehouse-retrain"}
    assert len({role.name for role in roles()}) == len(roles())


@pytest.mark.parametrize("path", PIPELINES, ids=name_of)
def test_whoever_may_answer_a_pipeline_has_a_role_that_sees_it(path):
    for submitters in re.findall(r"submitter:? *'([^']+)'", code(path)):
        for who in submitters.split(","):
            assert "Job/Read" in permissions(who.strip(), "mlops/flights/main"), who


# --- jobs and secrets: run, not only read ---

ID = "gatehouse-settings"
SECRETS = {
    "gatehouse_settings": "line",
    "gatehouse_settings_approval": "approval",
    "gatehouse_settings_production": "production",
    "gatehouse_settings_monitoring": "monitoring",
    "gatehouse_webhook": "token\n",
    "gatehouse_token": f"11{'a' * 32}\n",
    "gatehouse_retrain_token": f"11{'b' * 32}\n",
}


@pytest.fixture(scope="module")
def made(groovy, tmp_path_factory):
    """What jobs.groovy makes, and what credentials.groovy leaves behind after four starts."""
    folder = tmp_path_factory.mktemp("secrets")
    rotated = SECRETS | {"gatehouse_settings_approval": "new", "gatehouse_token": f"11{'c' * 32}"}
    lost = {
        name: text for name, text in SECRETS.items() if name not in {"gatehouse_webhook", "gatehouse_retrain_token"}
    }
    starts = {"first": SECRETS, "rotated": rotated, "lost": lost, "empty": {}}
    for name, files in {**starts, "place": {}}.items():
        (folder / name).mkdir()
        for path, text in files.items():
            (folder / name / path).write_text(text, encoding="utf-8")
    places = [folder / name for name in starts]
    done = groovy(
        "controller_files.groovy",
        INFRA / "jobs.groovy",
        INFRA / "credentials.groovy",
        *places,
        env={"GATEHOUSE_SECRETS": str(folder / "place")},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    return found | {"starts": dict(zip(starts, found["starts"], strict=True))}


def items(made):
    return {item["name"]: item for item in made["items"]}


def script_of(item):
    if item["kind"] == "multibranchPipelineJob":
        return item["factory"]["workflowBranchProjectFactory"]["scriptPath"]
    return item["definition"]["cpsScm"]["scriptPath"]


JOBS = {
    "mlops/flights": "Jenkinsfile",
    "approvals/decide": "infra/jenkins/approval.Jenkinsfile",
    "operations/production": "infra/jenkins/operations.Jenkinsfile",
    "operations/monitoring": "infra/jenkins/monitoring.Jenkinsfile",
}


def test_the_jobs_are_these_each_in_its_folder_and_each_runs_its_file(made):
    jobs = {name: script_of(item) for name, item in items(made).items() if item["kind"] != "folder"}
    assert jobs == JOBS
    assert {name for name, item in items(made).items() if item["kind"] == "folder"} == {
        "mlops",
        "approvals",
        "operations",
    }


@pytest.mark.parametrize("path", JOBS.values())
def test_the_file_that_a_job_runs_is_there(path):
    assert (ROOT / path).is_file()


def test_only_main_is_built_and_every_job_comes_from_the_one_repository(made):
    for address, jobs in (
        ("ssh://git@git.corp.example/ml/gatehouse.git", "items"),
        ("ssh://git@elsewhere/x.git", "elsewhere"),
    ):
        for item in made[jobs]:
            if item["kind"] == "multibranchPipelineJob":
                source = item["branchSources"]["git"]
                assert (source["remote"], source["includes"], source["credentialsId"]) == (address, "main", "git-ssh")
            elif item["kind"] == "pipelineJob":
                source = item["definition"]["cpsScm"]["scm"]["git"]
                assert source == {"remote": {"url": address, "credentials": "git-ssh"}, "branch": "main"}
    (library,) = controller().unclassified.globalLibraries.libraries
    assert library.retriever.modernSCM.scm.git.remote.endswith(":-ssh://git@git.corp.example/ml/gatehouse.git}")


def test_a_push_is_seen_without_a_webhook(made):
    trigger = items(made)["mlops/flights"]["triggers"]["periodicFolderTrigger"]
    assert re.fullmatch(r"\d+[mhd]", trigger["interval"])


@pytest.mark.parametrize(
    "job", [job for job, path in JOBS.items() if path != "Jenkinsfile" and (ROOT / path).is_file()]
)
def test_a_job_is_declared_with_the_parameters_and_the_clock_of_its_file(made, job):
    text, item = code(ROOT / JOBS[job]), items(made)[job]
    given = item.get("parameters", {})
    declared = [name for kind in ("choiceParam", "stringParam") for name, *_ in given.get(kind, [])]
    assert sorted(declared) == sorted(re.findall(r"\b(?:string|choice)\(\s*name: *'([^']+)'", text))
    for name, choices, _ in given.get("choiceParam", []):
        listed = re.search(rf"choice\(\s*name: *'{name}', *choices: *\[([^\]]*)\]", text)[1]
        assert choices == re.findall(r"'([^']*)'", listed)
    clock = item.get("properties", {}).get("pipelineTriggers", {}).get("triggers", {})
    assert [entry["spec"] for entry in clock.values()] == re.findall(r"\bcron\('([^']+)'\)", text)


def bound(path):
    """The ids of the credentials that a pipeline binds, whichever way."""
    return set(re.findall(r"\b(?:credentials\(|credentialsId: *|tokenCredentialId: *)'([^']+)'", code(path)))


def bound_by(job):
    """What a job binds, itself or through the shared steps that it calls."""
    path = ROOT / JOBS[job]
    if not path.is_file():
        return set()
    return bound(path).union(*(bound(step) for step in STEPS if step.stem in words(path)))


@pytest.mark.parametrize("job", JOBS)
def test_every_credential_that_a_job_binds_is_one_that_it_can_see(made, job):
    seen = set(made["starts"]["first"]["folders"][job.split("/")[0]]) | {"git-ssh"}
    assert bound_by(job) <= seen


def test_every_credential_of_a_folder_is_bound_by_a_job_of_the_folder(made):
    for folder, seen in made["starts"]["first"]["folders"].items():
        jobs = [job for job in JOBS if job.startswith(f"{folder}/")]
        assert set(seen) == set().union(*map(bound_by, jobs)), folder


def test_nothing_but_the_key_of_the_repository_is_global():
    (domain,) = controller().credentials.system.domainCredentials
    assert [entry.basicSSHUserPrivateKey.id for entry in domain.credentials] == ["git-ssh"]


def test_each_folder_gets_its_own_secrets_and_those_of_no_other(made):
    first = made["starts"]["first"]
    assert first["problem"] is None
    assert {name: set(kept) for name, kept in first["folders"].items()} == {
        "mlops": {ID, f"{ID}-approval", f"{ID}-production", "gatehouse-webhook"},
        "approvals": {f"{ID}-approval"},
        "operations": {f"{ID}-production", f"{ID}-monitoring", "gatehouse-webhook"},
    }
    assert first["folders"]["operations"][f"{ID}-production"]["secret"] == "production"
    assert first["folders"]["mlops"]["gatehouse-webhook"]["secret"] == "token"
    for kept in first["folders"].values():
        assert {entry["scope"] for entry in kept.values()} == {"GLOBAL"}
        assert {name: entry["kind"] for name, entry in kept.items()} == {
            name: "string" if name == "gatehouse-webhook" else "file" for name in kept
        }


def test_a_new_start_takes_what_the_files_hold_then(made):
    rotated = made["starts"]["rotated"]
    assert rotated["problem"] is None
    for folder in ("mlops", "approvals"):
        assert rotated["folders"][folder][f"{ID}-approval"]["secret"] == "new"
    assert {call.split()[0] for calls in rotated["calls"].values() for call in calls} == {"update"}
    assert rotated["tokens"] == {"gatehouse": [f"11{'c' * 32}"], "gatehouse-retrain": [f"11{'b' * 32}"]}


def test_a_secret_whose_file_is_gone_is_gone_and_said_so(made):
    lost = made["starts"]["lost"]
    assert "gatehouse_webhook" in lost["problem"]
    assert "gatehouse_retrain_token" in lost["problem"]
    assert "gatehouse_settings" not in lost["problem"]
    assert "gatehouse-webhook" not in lost["folders"]["mlops"]
    assert made["starts"]["empty"]["folders"] == {"mlops": {}, "approvals": {}, "operations": {}}


BROKEN_JOBS = {
    "a method is misspelt": ("numToKeep(20)", "numberToKeep(20)", "no method numberToKeep"),
    "a method stands in the wrong block": ("branch('main')", "url('x')", "no method url"),
    "an argument is of the wrong type": ("numToKeep(20)", "numToKeep('20')", "numToKeep takes"),
    "a folder is missing": ("folder('approvals')", "folder('approval')", "no folder approvals"),
}


@pytest.mark.parametrize("name", BROKEN_JOBS)
def test_in_the_jobs_it_is_noticed_when(groovy, tmp_path, name):
    old, new, said = BROKEN_JOBS[name]
    text = read(INFRA / "jobs.groovy")
    assert old in text
    (tmp_path / "jobs.groovy").write_text(text.replace(old, new, 1), encoding="utf-8")
    done = groovy("controller_files.groovy", tmp_path / "jobs.groovy", INFRA / "credentials.groovy")
    assert done.returncode != 0
    assert said in done.stderr


# --- the shared steps ---


def test_the_shared_steps_are_where_the_controller_looks_for_them():
    (library,) = controller().unclassified.globalLibraries.libraries
    assert ROOT / library.retriever.modernSCM.libraryPath == INFRA / "library"
    assert STEPS, "a library without steps ends every build"


# --- agents, locks ---


@pytest.mark.parametrize("path", [*PIPELINES, *STEPS], ids=name_of)
def test_every_label_has_an_agent_and_every_lock_is_declared(path):
    files = controller()
    labels = {label for node in files.jenkins.nodes for label in node.permanent.labelString.split()}
    assert set(re.findall(r"\b(?:label|node)[ (]+'([^']+)'", code(path))) <= labels
    locks = {resource.name for resource in files.unclassified.lockableResourcesManager.declaredResources}
    assert set(re.findall(r"\block\(resource: '([^']+)'\)", code(path))) <= locks


def test_no_agent_and_no_lock_is_declared_for_nothing():
    text = "".join(map(code, [*PIPELINES, *STEPS]))
    for node in controller().jenkins.nodes:
        assert f"'{node.permanent.labelString}'" in text
    for resource in controller().unclassified.lockableResourcesManager.declaredResources:
        assert f"'{resource.name}'" in text


# --- plugins ---

# What each plugin brings to a pipeline: sections, conditions, options, steps.
BRINGS = {
    "pipeline-model-definition": """
        aborted agent allOf always anyOf beforeAgent beforeInput beforeOptions booleanParam branch choice cleanup
        disableRestartFromStage disableResume environment equals expression failure label not options parameters pipeline
        post script skipDefaultCheckout stage stages steps string success triggers unstable unsuccessful when
    """,
    "pipeline-input-step": "id input message ok submitter submitterParameter",
    "workflow-basic-steps": """
        archiveArtifacts catchError deleteDir dir echo error fileExists pwd readFile retry sleep timeout warnError withEnv
        writeFile
    """,
    "workflow-job": "buildDiscarder cron disableConcurrentBuilds durabilityHint upstream",
    "workflow-durable-task-step": "node sh",
    "workflow-multibranch": "changeRequest",
    "git": "checkout",
    "credentials-binding": "credentials withCredentials",
    "generic-webhook-trigger": "GenericTrigger",
    "junit": "junit",
    "lockable-resources": "lock",
    "pipeline-milestone-step": "milestone",
    "timestamper": "timestamps",
    "pipeline-groovy-lib": " ".join(path.stem for path in STEPS),
}
WORDS = {word: plugin for plugin, given in BRINGS.items() for word in given.split()}
# The plugin that a key of jenkins.yaml or of a realm needs; core needs none.
KEYS = {
    "authorizationStrategy.roleBased": "role-strategy",
    "basicSSHUserPrivateKey": "ssh-credentials",
    "credentials.system": "credentials",
    "gitHostKeyVerificationConfiguration": "git-client",
    "globalLibraries": "pipeline-groovy-lib",
    "lockableResourcesManager": "lockable-resources",
    "audit-trail": "audit-trail",
    "jobs": "job-dsl",
    "modernSCM.scm.git": "git",
    "securityRealm.ldap": "ldap",
    "securityRealm.oic": "oic-auth",
}
# The plugin that a method of jobs.groovy needs.
METHODS = {
    "folder": "cloudbees-folder",
    "multibranchPipelineJob": "workflow-multibranch",
    "pipelineJob": "workflow-job",
    "workflowBranchProjectFactory": "workflow-multibranch",
    "periodicFolderTrigger": "cloudbees-folder",
    "pipelineTriggers": "workflow-job",
    "branchSources": "branch-api",
    "cpsScm": "workflow-cps",
    "git": "git",
}
# The plugin that a class of credentials.groovy comes from; core needs none.
PACKAGES = {
    "com.cloudbees.hudson.plugins.folder": "cloudbees-folder",
    "com.cloudbees.plugins.credentials": "credentials",
    "org.jenkinsci.plugins.plaincredentials": "plain-credentials",
    "hudson": None,
    "jenkins": None,
}
# Listed for people and for scripts, not because a file names them.
BY_THEMSELVES = {"configuration-as-code", "pipeline-graph-view", "pipeline-rest-api", "script-security"}


def plugins():
    listed = {}
    for line in read(INFRA / "plugins.txt").splitlines():
        entry, _, reason = (part.strip() for part in line.partition("#"))
        if entry:
            name, _, version = entry.partition(":")
            assert name not in listed, f"{name} twice"
            listed[name] = (version, reason)
    return listed


@pytest.mark.parametrize("path", [*PIPELINES, *STEPS], ids=name_of)
def test_every_plugin_that_a_pipeline_needs_is_listed(path):
    unknown = words(path) - set(WORDS)
    assert not unknown, "say in BRINGS which plugin each of these comes from"
    assert {WORDS[word] for word in words(path)} <= set(plugins())


def keys(value, path=""):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield f"{path}.{key}"
            yield from keys(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for inner in value:
            yield from keys(inner, path)


def needed():
    """Each plugin that a file needs."""
    used = {WORDS[word] for path in [*PIPELINES, *STEPS] for word in words(path) if word in WORDS}
    found = "\n".join(f"{key}." for path in [INFRA / "jenkins.yaml", *REALMS] for key in keys(load(path)))
    used |= {plugin for key, plugin in KEYS.items() if f".{key}." in found}
    called = set(re.findall(r"^\s*(\w+)\b(?=[ (])", code(INFRA / "jobs.groovy"), flags=re.MULTILINE))
    used |= {plugin for method, plugin in METHODS.items() if method in called}
    for imported in re.findall(r"^import ([\w.]+)", read(INFRA / "credentials.groovy"), flags=re.MULTILINE):
        used.add(next(plugin for package, plugin in PACKAGES.items() if imported.startswith(f"{package}.")))
    return used - {None}


def test_every_plugin_that_the_controllers_files_need_is_listed_and_none_for_nothing():
    assert needed() | BY_THEMSELVES == set(plugins())


def test_every_key_and_method_of_a_plugin_is_still_in_use():
    found = "\n".join(f"{key}." for path in [INFRA / "jenkins.yaml", *REALMS] for key in keys(load(path)))
    assert [key for key in KEYS if f".{key}." not in found] == []
    text = code(INFRA / "jobs.groovy")
    assert [method for method in METHODS if not re.search(rf"\b{method}\b", text)] == []


def test_every_plugin_is_pinned_and_says_where_its_version_comes_from():
    for name, (version, reason) in plugins().items():
        assert re.fullmatch(r"\d[\w.-]*", version), name
        assert re.match(r"(bom|tag \(\d{4}-\d\d-\d\d\)): ", reason), name


# --- images ---

DOCKERFILES = sorted(DOCKER.glob("*/Dockerfile"))


def instructions(path):
    text = re.sub(r"^#.*\n", "", read(path), flags=re.MULTILINE).replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize("path", DOCKERFILES, ids=name_of)
def test_an_image_is_made_of_files_that_there_are(path):
    known = {"FROM", "RUN", "COPY", "ENV", "USER", "WORKDIR", "VOLUME", "ENTRYPOINT", "HEALTHCHECK"}
    assert {name for name, _ in instructions(path)} <= known
    copied = [shlex.split(rest) for name, rest in instructions(path) if name == "COPY"]
    for given in copied:
        sources = [word for word in given if not word.startswith("--")][:-1]
        if not any(word.startswith("--from=") for word in given):
            assert sources
            assert all((ROOT / source).exists() for source in sources), given


def test_the_images_are_of_the_line_that_the_plugins_are_pinned_for():
    (line, version) = re.search(r"LTS line (\d+\.\d+)\.x, image (\S+)\.", read(INFRA / "plugins.txt")).groups()
    assert version.startswith(f"{line}.")
    used = {rest.split()[0] for path in DOCKERFILES for name, rest in instructions(path) if name == "FROM"}
    assert {image for image in used if image.startswith("jenkins/")} == {f"jenkins/jenkins:{version}-lts-jdk21"}
    stages = {rest.split(" AS ")[1] for path in DOCKERFILES for name, rest in instructions(path) if " AS " in rest}
    assert not any(image.endswith(":latest") or ":" not in image for image in used - stages)


def test_the_controllers_image_holds_every_file_where_the_configuration_looks_for_it():
    path = DOCKER / "jenkins" / "Dockerfile"
    placed = {}
    for name, rest in instructions(path):
        if name == "COPY":
            *sources, target = [word for word in shlex.split(rest) if not word.startswith("--")]
            for source in sources:
                if (ROOT / source).is_dir():
                    placed |= {f"{target}{inner.name}": inner for inner in (ROOT / source).iterdir()}
                else:
                    placed[target + Path(source).name if target.endswith("/") else target] = ROOT / source
    (environment,) = [rest for name, rest in instructions(path) if name == "ENV"]
    settings = dict(word.split("=", 1) for word in shlex.split(environment))
    assert [placed[file] for file in settings["CASC_JENKINS_CONFIG"].split(",")] == [
        INFRA / "jenkins.yaml",
        INFRA / "realms" / "ldap.yaml",
    ]
    assert {placed[seed.file] for seed in controller().jobs} == {INFRA / "jobs.groovy"}
    assert placed["/usr/share/jenkins/ref/init.groovy.d/credentials.groovy.override"] == INFRA / "credentials.groovy"
    assert settings["CASC_STRICT_SECRET_RESOLUTION"] == "true"
    (run,) = [rest for name, rest in instructions(path) if name == "RUN"]
    (listed,) = re.findall(r"-f (\S+)", run)
    assert placed[listed] == INFRA / "plugins.txt"
    assert "--latest=false" in run.split(), "or the tool takes newer versions than the pinned ones"


def test_the_trial_on_one_machine_is_made_of_these_images_nodes_and_files():
    compose = load(DOCKER / "compose.yaml")
    services = compose["services"]
    built = {
        DOCKER / service["build"]["context"] / service["build"]["dockerfile"]
        for service in services.values()
        if "build" in service
    }
    assert {path.resolve() for path in built} == set(DOCKERFILES)
    named = [service["command"][-1] for service in services.values() if "command" in service]
    assert sorted(named) == sorted(node.permanent.name for node in controller().jenkins.nodes)
    for service in services.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in compose["volumes"] or source == "./secrets" or (DOCKER / source).is_file(), volume
        for secret in service.get("secrets", []):
            assert (secret if isinstance(secret, str) else secret["source"]) in compose["secrets"]
        for setting in service.get("environment", {}):
            assert setting.startswith("POSTGRES_") or f"`{setting}`" in read(DOCKER / "jenkins" / "README.md")
    agent = read(DOCKER / "agent" / "Dockerfile")
    assert "@/run/secrets/agent_secret" in agent
    assert {
        secret["target"] for name in services if name.startswith("agent") for secret in services[name]["secrets"]
    } == {"agent_secret"}


def test_secrets_reach_neither_the_repository_nor_an_image():
    assert "/docker/secrets/" in read(ROOT / ".gitignore").split()
    assert "docker/secrets" in read(ROOT / ".dockerignore").split()


def test_nothing_relaxes_what_a_browser_may_run():
    for path in [*INFRA.rglob("*"), *DOCKER.rglob("*")]:
        if path.is_file() and path.suffix != ".md":
            assert "DirectoryBrowserSupport" not in read(path), path


# --- what people are told ---


def test_every_secret_is_in_the_table_of_the_controllers_image():
    asked = set(SECRETS)
    for path in [INFRA / "jenkins.yaml", *REALMS]:
        asked |= set(re.findall(r"/run/secrets/(\w+)", read(path)))
    told = set(re.findall(r"^\| `([a-z_]+)` \|", read(DOCKER / "jenkins" / "README.md"), flags=re.MULTILINE))
    assert asked == told
