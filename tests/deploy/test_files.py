"""The shipped deployment files: valid for the tools that read them, and about a server that exists."""

import json
import re
import shutil
import subprocess
import sysconfig
import tomllib
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import httpx
import kubernetes_validate
import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from sqlalchemy import text

from ciphershift.benchmarks.harness.server_process import ServerProcess
from ciphershift.client import Client
from ciphershift.server.settings import EngineUrl, Settings
from tests.server.store.conftest import State
from tests.support.programs import required

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = "1.31"
CHART = DEPLOY / "helm/ciphershift"
VARIANTS = {
    "cpu": ["database.secret=own"],
    "gpu": ["database.secret=own", "gpu.enabled=true"],
    "autoscaling": ["database.secret=own", "autoscaling.enabled=true"],
    "object store": [
        "database.url=postgresql://h/d",
        "storage.url=s3://bucket/path",
        "storage.secret=ciphershift-store",
        "settings.CIPHERSHIFT_STORAGE_BYTES=1000",
        "networkPolicies.egressPorts={5432,9000,4318}",
        "image.digest=sha256:0a",
    ],
}
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}\b")
METRIC = re.compile(r"\bciphershift_[a-z_]+\b")


@pytest.fixture
def exported(server: ServerProcess, client: Client, tiny_images: NDArray[np.uint8]) -> set[str]:
    """Names of the series that a server which has worked exports."""
    client.predict(tiny_images[:1])
    text = httpx.get(f"{server.url}/metrics").text
    return {line.split("{")[0].split(" ")[0] for line in text.splitlines() if not line.startswith("#")}


@pytest.mark.parametrize(
    "path",
    [DEPLOY / "grafana/dashboards/ciphershift.json", DEPLOY / "prometheus/alerts.yml"],
    ids=lambda path: path.name,
)
def test_dashboard_and_alerts_ask_for_series_that_are_exported(path: Path, exported: set[str]) -> None:
    expressions = list(strings_of(yaml.safe_load(path.read_text()), {"expr"}))
    assert len(expressions) >= 5
    wanted = {name for expression in expressions for name in METRIC.findall(expression)}
    assert wanted
    assert wanted <= exported


def strings_of(value: Any, keys: set[str]) -> list[str]:
    """Every text under one of these keys, however deep."""
    if isinstance(value, dict):
        own = [text for key, text in value.items() if key in keys and isinstance(text, str)]
        return own + [text for inner in value.values() for text in strings_of(inner, keys)]
    return [text for inner in value for text in strings_of(inner, keys)] if isinstance(value, list) else []


def test_the_dashboards_panels_have_a_place_and_a_title() -> None:
    dashboard = json.loads((DEPLOY / "grafana/dashboards/ciphershift.json").read_text())
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        place = panel["gridPos"]
        assert panel["title"]
        assert place["x"] + place["w"] <= 24
    taken = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(taken) == len(set(taken)), "two panels overlap"


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = Path(sysconfig.get_path("scripts")) / "helm"
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


def rendered(variant: str) -> list[Any]:
    """Every object of the chart."""
    values = [option for value in VARIANTS[variant] for option in ("--set", value)]
    done = helm("template", "release", str(CHART), "--namespace", "clinic", *values)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def deployment(variant: str, component: str) -> Any:
    """A deployment of the chart."""
    name = f"ciphershift-{component}"
    (found,) = [o for o in rendered(variant) if o["kind"] == "Deployment" and o["metadata"]["name"] == name]
    return found


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_chart_makes_what_the_schemas_of_kubernetes_allow(variant: str) -> None:
    objects = rendered(variant)
    assert {"Deployment", "Service", "Job", "Ingress", "NetworkPolicy"} <= {o["kind"] for o in objects}
    assert ("PersistentVolumeClaim" in {o["kind"] for o in objects}) == (variant != "object store")
    for one in objects:
        if one["kind"] != "ScaledObject":
            kubernetes_validate.validate(one, KUBERNETES, strict=True)


def test_the_chart_passes_its_linter_and_says_what_it_needs() -> None:
    done = helm("lint", "--strict", str(CHART), "--set", "database.secret=own")
    assert done.returncode == 0, done.stdout
    without = helm("template", "release", str(CHART))
    assert without.returncode != 0
    assert "set database.secret" in without.stderr


def test_an_object_store_and_a_digest_are_used() -> None:
    for component in ("api", "worker"):
        pod = deployment("object store", component)["spec"]["template"]["spec"]
        assert pod["containers"][0]["image"].endswith("ciphershift@sha256:0a")
        assert [volume["name"] for volume in pod["volumes"]] == ["scratch"]
        assert {"secretRef": {"name": "ciphershift-store"}} in pod["containers"][0]["envFrom"]
    (settings,) = [o for o in rendered("object store") if o["kind"] == "ConfigMap"]
    assert settings["data"]["CIPHERSHIFT_STORAGE"] == "s3://bucket/path"
    (secret,) = [o for o in rendered("object store") if o["kind"] == "Secret"]
    assert secret["stringData"] == {"CIPHERSHIFT_DATABASE": "postgresql://h/d"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_pods_write_to_mounted_folders_alone_that_hold_what_they_may_write(variant: str) -> None:
    """The root file system is read-only, and the image's user has no home."""
    (settings,) = [o["data"] for o in rendered(variant) if o["kind"] == "ConfigMap"]
    is_object_store = "://" in settings["CIPHERSHIFT_STORAGE"]
    written = Path(settings["CIPHERSHIFT_CACHE"] if is_object_store else settings["CIPHERSHIFT_STORAGE"])
    for component in ("api", "worker"):
        pod = deployment(variant, component)["spec"]["template"]["spec"]
        mounts = {mount["mountPath"]: mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
        (name,) = [mounts[str(folder)] for folder in (written, *written.parents) if str(folder) in mounts]
        (volume,) = [volume for volume in pod["volumes"] if volume["name"] == name]
        if is_object_store:
            assert int(volume["emptyDir"]["sizeLimit"]) == (2 << 30) + int(settings["CIPHERSHIFT_STORAGE_BYTES"])
        else:
            assert "persistentVolumeClaim" in volume


def test_scratch_space_holds_every_key_that_an_object_store_may_have() -> None:
    """Also if the limit is the server's own."""
    options = ("--set", "database.secret=own", "--set", "storage.url=s3://bucket/path")
    done = helm("template", "release", str(CHART), *options)
    limits = {int(size) for size in re.findall(r'sizeLimit: "(\d+)"', done.stdout)}
    assert limits == {(2 << 30) + Settings.model_fields["storage_bytes"].default}


def test_the_ways_in_are_those_of_the_proxies() -> None:
    (ingress,) = [o for o in rendered("cpu") if o["kind"] == "Ingress"]
    paths = {path["path"] for rule in ingress["spec"]["rules"] for path in rule["http"]["paths"]}
    (line,) = re.findall(r"@service path (.+)", (DEPLOY / "proxies/Caddyfile").read_text())
    assert paths == {path.removesuffix("/*") for path in line.split()}


def test_pods_reach_the_ports_that_are_named() -> None:
    for variant, wanted in (("cpu", {5432, 443}), ("object store", {5432, 9000, 4318})):
        (out,) = [o for o in rendered(variant) if o["metadata"]["name"] == "ciphershift-out"]
        assert {port["port"] for rule in out["spec"]["egress"] if "to" not in rule for port in rule["ports"]} == wanted


def containers() -> list[Any]:
    """Every container of the chart, with its place."""
    found = []
    for variant in VARIANTS:
        for one in rendered(variant):
            spec = (one.get("spec") or {}).get("template", {}).get("spec", {})
            found += [(f"{variant}: {item['name']}", spec, item) for item in spec.get("containers", [])]
    return found


def test_containers_are_bounded_and_have_no_privileges() -> None:
    assert len(containers()) >= 2
    for place, pod, container in containers():
        security = pod.get("securityContext", {}) | container["securityContext"]
        assert {"cpu", "memory"} & set(container["resources"]["limits"]), place
        assert security["runAsNonRoot"] is True, place
        assert security["allowPrivilegeEscalation"] is False, place
        assert security["readOnlyRootFilesystem"] is True, place
        assert security["capabilities"]["drop"] == ["ALL"], place


def test_settings_in_the_files_are_settings_of_the_server() -> None:
    own = {"CIPHERSHIFT_VERSION", "CIPHERSHIFT_THREADS"}  # what the compose file itself is told
    known = {f"CIPHERSHIFT_{name.upper()}" for name in Settings.model_fields} | own
    texts = {
        path: path.read_text() for path in [ROOT / "docker-compose.yml", ROOT / "Dockerfile", *DEPLOY.rglob("*.y*ml")]
    }
    named = {(path.name, name) for path, text in texts.items() for name in re.findall(r"\bCIPHERSHIFT_[A-Z_]+\b", text)}
    assert len(named) >= 5
    assert {(file, name) for file, name in named if name not in known} == set()


def test_the_compose_file_names_services_volumes_and_files_that_exist() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    services = compose["services"]
    assert {"api", "worker", "postgres", "prometheus", "grafana"} <= set(services)
    for name, service in services.items():
        depends = service.get("depends_on", [])
        assert set(depends) <= set(services), name
        for volume in service.get("volumes", []):
            source = volume.split(":")[0] if isinstance(volume, str) else volume["source"]
            exists = (ROOT / source).exists() if source.startswith(".") else source in compose["volumes"]
            assert exists, f"{name}: {source}"
        assert "docker.sock" not in json.dumps(service)


def test_the_compose_file_is_what_compose_reads() -> None:
    # The program inside the package: its Python wrapper swallows the exit code.
    program = str(files("compose") / "docker-compose")
    passwords = {"POSTGRES_PASSWORD": "0a", "GRAFANA_PASSWORD": "0b"}

    def read(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [program, *arguments, "config", "--quiet"]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    done = read(**passwords)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "POSTGRES_PASSWORD" in read(GRAFANA_PASSWORD="0b").stderr, "a missing password is named"
    broken = (ROOT / "docker-compose.yml").read_text().replace("read_only:", "read_onyl:")
    with NamedTemporaryFile("w", suffix=".yml") as file:
        file.write(broken)
        file.flush()
        assert read("--file", file.name, **passwords).returncode != 0, "a misspelt key is found"


def test_settings_in_a_file_beside_the_compose_file_reach_every_process_of_ours(tmp_path: Path) -> None:
    """All but those that follow from how the parts are put together."""
    shutil.copy(ROOT / "docker-compose.yml", tmp_path)
    own = {"CIPHERSHIFT_DATABASE", "CIPHERSHIFT_ENGINE", "CIPHERSHIFT_CACHE"}
    given = {f"CIPHERSHIFT_{name.upper()}": f"value of {name}" for name in Settings.model_fields}
    given = {name: value for name, value in given.items() if name not in own} | {"AWS_SECRET_ACCESS_KEY": "secret"}
    (tmp_path / "ciphershift.env").write_text("".join(f"{name}={value}\n" for name, value in given.items()))
    command = [str(files("compose") / "docker-compose"), "config", "--format", "json"]
    environment = {"POSTGRES_PASSWORD": "0a", "GRAFANA_PASSWORD": "0b", "CIPHERSHIFT_THREADS": "7"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    services = json.loads(done.stdout)["services"]
    for name in ("api", "worker", "migrate"):
        assert given.items() <= services[name]["environment"].items(), name
    assert services["worker"]["environment"]["CIPHERSHIFT_ENGINE"].endswith("threads=7")
    assert "AWS_SECRET_ACCESS_KEY" not in services["postgres"]["environment"]
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {"ciphershift.env", ".env", "deploy/prometheus/metrics-token"} <= set(ignored), "they hold secrets"


def test_the_variant_with_a_card_is_what_compose_reads() -> None:
    program = str(files("compose") / "docker-compose")
    environment = {"POSTGRES_PASSWORD": "0a", "GRAFANA_PASSWORD": "0b"}
    both = ["--file", "docker-compose.yml", "--file", "docker-compose.gpu.yml"]
    command = [program, *both, "config", "--format", "json"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    services = json.loads(done.stdout)["services"]
    worker, base = services["worker"], services["api"]
    assert EngineUrl.parse(worker["environment"]["CIPHERSHIFT_ENGINE"]).scheme == "torch"
    assert worker["environment"]["CIPHERSHIFT_DATABASE"] == base["environment"]["CIPHERSHIFT_DATABASE"]
    assert worker["read_only"] is True
    assert worker["build"]["args"]["LOCK"] == "gpu"
    assert worker["image"] != base["image"], "the API's image has no torch"
    assert_the_same_sets(base["environment"], worker["environment"])


def assert_the_same_sets(*of_processes: dict[str, str]) -> None:
    """The API names the set of a model, a worker reads inputs under it: settings of both must give the same."""
    api, worker = (
        Settings(engine=of["CIPHERSHIFT_ENGINE"], parameter_sets=of["CIPHERSHIFT_PARAMETER_SETS"]).stand_ins
        for of in of_processes
    )
    assert api == worker == ("FAST_N512_BLOCK3", "EXACT_N2048_BLOCK3")


def test_a_worker_with_a_card_has_its_engine_and_limit() -> None:
    (container,) = deployment("gpu", "worker")["spec"]["template"]["spec"]["containers"]
    variables = {variable["name"]: variable["value"] for variable in container["env"]}
    assert EngineUrl.parse(variables["CIPHERSHIFT_ENGINE"]).scheme == "torch"
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    (without,) = deployment("cpu", "worker")["spec"]["template"]["spec"]["containers"]
    assert container["image"] != without["image"], "the image has no torch otherwise"
    assert [variable["name"] for variable in without["env"]] == list(variables)
    (settings,) = [o["data"] for o in rendered("gpu") if o["kind"] == "ConfigMap"]
    assert_the_same_sets({"CIPHERSHIFT_ENGINE": "queue://"} | settings, variables | settings)


def test_workers_follow_the_queue_by_a_query_that_the_database_answers(
    postgres: Callable[[], str], tmp_path: Path
) -> None:
    (scaled,) = [o for o in rendered("autoscaling") if o["kind"] == "ScaledObject"]
    worker = deployment("autoscaling", "worker")
    assert scaled["spec"]["scaleTargetRef"]["name"] == worker["metadata"]["name"]
    assert "replicas" not in worker["spec"]
    (trigger,) = scaled["spec"]["triggers"]
    assert trigger["metadata"]["connectionFromEnv"] == "CIPHERSHIFT_DATABASE"
    state = State(Settings(database=postgres(), storage=str(tmp_path)))
    state.jobs.finish(state.running(), b"logits", 1.0, 0.0)
    state.running()
    state.submit()
    with state.database.reading() as session:
        assert session.execute(text(trigger["metadata"]["query"])).scalar() == 2
    state.database.close()


def locked(name: str) -> dict[str, tuple[str, int]]:
    """Of each package of a lock: its version, and of how many files it has the hash."""
    entries = re.split(r"^(?=[a-z0-9])", (DEPLOY / "locks" / f"{name}.txt").read_text(), flags=re.MULTILINE)[1:]
    found = [(re.match(r"([a-z0-9.-]+)==([^ ;]+)", entry), len(HASH.findall(entry))) for entry in entries]
    return {match[1]: (match[2], hashes) for match, hashes in found if match}


@pytest.mark.parametrize(
    ("name", "extras"),
    [
        ("server", ("server", "postgres", "s3", "otel")),
        ("gpu", ("server", "postgres", "s3", "otel", "gpu")),
        ("build", ()),
    ],
)
def test_the_image_installs_the_tested_versions_by_their_hashes(name: str, extras: tuple[str, ...]) -> None:
    """`make locks` writes the locks anew; that their hashes are right tests/packaging shows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    tested = dict(re.findall(r"^([^#=\s]+)==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    tested = {canonicalize_name(package): version for package, version in tested.items()}
    packages = locked(name)
    assert all(hashes for _, hashes in packages.values())
    common = packages.keys() & tested.keys()
    assert {package: packages[package][0] for package in common} == {package: tested[package] for package in common}
    optional = project["project"]["optional-dependencies"]
    wanted = project["project"]["dependencies"] if extras else project["build-system"]["requires"]
    wanted = [*wanted, *(requirement for extra in extras for requirement in optional[extra])]
    assert {canonicalize_name(Requirement(each).name) for each in wanted} <= packages.keys()
    assert ("torch" in packages) == (name == "gpu")
    commands = (ROOT / "Dockerfile").read_text().split("FROM")[2]
    for line in commands.splitlines():
        if "pip install" in line or "pip wheel" in line:
            assert "--require-hashes" in line or "--no-deps" in line


def test_the_dockerfile_passes_hadolint() -> None:
    hadolint = Path(sysconfig.get_path("scripts")) / "hadolint"
    done = subprocess.run([hadolint, "Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_what_the_configuration_of_prometheus_offers_passes_promtool(tmp_path: Path) -> None:
    """Lines that are to be switched on begin with a # and no space."""
    promtool = required("promtool", "prometheus")
    shutil.copytree(DEPLOY / "prometheus", tmp_path, dirs_exist_ok=True)
    file = tmp_path / "prometheus.yml"
    text = re.sub(r"^( *)#(?! )", r"\1", file.read_text(), flags=re.MULTILINE)
    config = yaml.safe_load(text)
    assert [job["authorization"]["type"] for job in config["scrape_configs"]] == ["Bearer", "Bearer"]
    assert config["alerting"]["alertmanagers"]
    file.write_text(text)
    command = [promtool, "check", "config", "--syntax-only", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_rules_and_scraping_pass_promtool() -> None:
    promtool = required("promtool", "prometheus")
    for command in (
        ["check", "rules", "alerts.yml"],
        ["test", "rules", "alerts_test.yml"],
        ["check", "config", "--syntax-only", "prometheus.yml"],
    ):
        done = subprocess.run(
            [promtool, *command], cwd=DEPLOY / "prometheus", capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
