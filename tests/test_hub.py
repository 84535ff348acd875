"""A base on the Hugging Face hub: one commit, fetched once, then used without a network."""

import json
import shutil

import pytest
import yaml
from huggingface_hub import constants
from safetensors.torch import load_file
from typer.testing import CliRunner

from tests.conftest import LORA, small_values
from tests.hub_server import COMMIT, NAME, serve_hub
from tests.training_jobs import train
from vlm_r1.cli import main as cli
from vlm_r1.config import parse_params
from vlm_r1.errors import ConfigError, FetchError, ModelError, TemporaryFetchError
from vlm_r1.experiment import base_path, contract_of
from vlm_r1.models.digest import checkpoint_digest
from vlm_r1.models.hub import blob_sha256, fetch, snapshot
from vlm_r1.models.loading import base_of, load_model, load_processor
from vlm_r1.training import trainers
from vlm_r1.training.job import load_job


@pytest.fixture(scope="module")
def files(small_root) -> dict[str, bytes]:
    """The small base as a repository on the hub, with weights that nothing here reads."""
    found = {file.name: file.read_bytes() for file in (small_root / "models/base").iterdir()}
    return found | {"pytorch_model.bin": b"pickled", "README.md": b"# tiny\n"}


@pytest.fixture
def hub(files, tmp_path, monkeypatch):
    """A hub at HF_ENDPOINT, and an empty cache."""
    with serve_hub(dict(files)) as server:
        files_at = f"{server.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", files_at)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        yield server


@pytest.fixture
def fetched(hub, monkeypatch):
    """The folder of the fetched model; from then on the network is off (HF_HUB_OFFLINE)."""
    folder = fetch(NAME, COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    return folder


def values_of(**sections) -> dict:
    values = small_values()
    values["task"] |= {"base_model": NAME, "revision": COMMIT}
    for section, options in sections.items():
        values[section] |= options
    return values


@pytest.fixture
def root(small_root, tmp_path):
    """A project whose base is on the hub."""
    shutil.copytree(small_root / "data", tmp_path / "project/data")
    return tmp_path / "project"


@pytest.mark.parametrize("moving", ["main", "v1.0", "0123456"])
def test_a_branch_a_tag_and_a_short_hash_are_refused(moving):
    with pytest.raises(ConfigError, match=rf"'{moving}': need a commit, 40 hexadecimal"):
        parse_params(values_of(task={"base_model": NAME, "revision": moving}), "moving")


def test_a_name_needs_a_commit_and_a_folder_must_not_have_one(small_root, tmp_path):
    named = parse_params(values_of(task={"base_model": NAME, "revision": None}), "named")
    with pytest.raises(ConfigError, match=r"no folder of the project, and task\.revision null"):
        base_path(named, small_root)
    folder = parse_params(values_of(task={"base_model": "models/base"}), "folder")
    with pytest.raises(ConfigError, match=f"a folder, and task.revision {COMMIT}"):
        base_path(folder, small_root)


def test_the_command_fetches_what_is_read_and_only_once(hub, tmp_path, files):
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump(values_of()))
    for _ in range(2):
        done = CliRunner().invoke(cli.app, ["fetch", "model", "--params", str(file)])
        assert done.exit_code == 0, done.output
    folder = snapshot(NAME, COMMIT)
    assert done.stdout.strip() == str(folder)
    assert {found.name for found in folder.iterdir()} == set(files) - {"pytorch_model.bin"}
    loads = [line for line in hub.requests if line.startswith("GET") and "resolve" in line]
    assert len(loads) == len(list(folder.iterdir()))


def test_a_base_in_a_folder_is_not_fetched(tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump(small_values()))
    done = CliRunner().invoke(cli.app, ["fetch", "model", "--params", str(file)])
    assert isinstance(done.exception, ConfigError)
    assert "task.revision null for task.base_model models/base" in str(done.exception)


def test_what_cannot_be_fetched_is_refused(hub, monkeypatch):
    with pytest.raises(FetchError, match=r"studio/tiny at ffff(.|\n)*task\.revision"):
        fetch(NAME, "f" * 40)
    with pytest.raises(FetchError, match="studio/other"):
        fetch("studio/other", COMMIT)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr("time.sleep", lambda _: None)  # between the client's own tries
    with pytest.raises(TemporaryFetchError, match="it goes on where it stopped"):
        fetch(NAME, COMMIT)


def test_damaged_weights_are_found_and_fetched_again(hub):
    hub.damaged.add("model.safetensors")
    with pytest.raises(TemporaryFetchError, match=r"model\.safetensors does not have its SHA-256"):
        fetch(NAME, COMMIT)
    with pytest.raises(ModelError, match="incomplete in the local cache"):
        snapshot(NAME, COMMIT)
    hub.damaged.clear()
    assert (fetch(NAME, COMMIT) / "model.safetensors").exists()


def test_a_stage_does_not_download(hub, root):
    params = parse_params(values_of(), "hub")
    with pytest.raises(ModelError, match=r"not in the local cache(.|\n)*vlm-r1 fetch model"):
        contract_of(params, root)
    assert hub.requests == []


def test_the_digest_is_that_of_the_files_and_the_contract_names_the_commit(
    fetched, root, small_root
):
    assert blob_sha256(fetched / "model.safetensors") is not None  # it is not read again
    assert blob_sha256(fetched / "config.json") is None
    assert checkpoint_digest(fetched) == checkpoint_digest(small_root / "models/base")
    contract = contract_of(parse_params(values_of(), "hub"), root)
    assert contract.base_digest == checkpoint_digest(fetched)
    assert contract.base_revision == COMMIT


def test_grpo_trains_offline_and_its_reference_is_of_the_same_commit(
    fetched, hub, root, monkeypatch
):
    seen = {}

    class Noted(trainers.ResumableGRPOTrainer):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            seen["reference"] = self.ref_model.config._name_or_path

    monkeypatch.setattr("vlm_r1.training.grpo.ResumableGRPOTrainer", Noted)
    job = load_job(parse_params(values_of(train={"steps": 1}), "hub"), root, "grpo")
    train(job)
    assert seen["reference"] == str(fetched) == str(job.base)
    assert json.loads((job.output / "checkpoint-1/contract.json").read_text()) == (
        job.contract.model_dump()
    )
    assert hub.requests == []


def test_an_adapter_names_its_base_and_commit_and_is_loaded_offline(fetched, hub, root):
    params = parse_params(values_of(train={"steps": 1, "lora": LORA | {"r": 2}}), "hub")
    job = load_job(params, root, "sft")
    train(job)
    folder = job.output / "checkpoint-1"
    adapter = json.loads((folder / "adapter_config.json").read_text())
    assert (adapter["base_model_name_or_path"], adapter["revision"]) == (NAME, COMMIT)
    assert base_of(folder) == fetched
    base = load_file(fetched / "model.safetensors")
    embedding = load_model(folder, params.task).get_input_embeddings().weight
    assert (embedding == base["model.embed_tokens.weight"]).all()
    adapter["revision"] = None
    (folder / "adapter_config.json").write_text(json.dumps(adapter))
    with pytest.raises(ModelError, match=r"studio/tiny is no folder here(.|\n)*no revision"):
        load_model(folder, params.task)


def test_the_base_is_loaded_by_its_name_for_predict(fetched):
    task = parse_params(values_of(), "hub").task
    assert load_model(NAME, task).name_or_path == str(fetched)
    assert load_processor(NAME, task).tokenizer.padding_side == "left"
    with pytest.raises(ModelError, match="studio/other: no such folder"):
        load_model("studio/other", task)


def test_a_model_in_several_files_must_have_them_all(small_root, tmp_path, small_params):
    folder = shutil.copytree(small_root / "models/base", tmp_path / "base")
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"model-00002-of-00002\.safetensors is missing"):
        load_model(folder, small_params.task)
