"""Reading params.yaml or a profile, with every fault named by its dotted key."""

from pathlib import Path

import yaml
from pydantic import ValidationError

from vlm_r1.config.sections import Params
from vlm_r1.errors import ConfigError


def profile_file(name: str, folder: Path = Path("profiles")) -> Path:
    """The params file of the profile `name`.

    Raises:
        ConfigError: there is no such profile.
    """
    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.yaml"))) or "none here"
        raise ConfigError(
            got=f"profile {name!r}",
            need=f"one of: {known}",
            because=f"a profile is a params file in {folder}/",
            do="name one of these, or write that file; run from the project's root",
        )
    return path


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check a params file.

    Raises:
        ConfigError: the file is missing, is not YAML, or has an unknown key or a wrong value.
    """
    return parse_params(_read_yaml(path), source=str(path))


def parse_params(values: dict, source: str) -> Params:
    """`values` as `Params`; every fault is named by its dotted key.

    Raises:
        ConfigError: an unknown key or a wrong value.
    """
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(part) for part in fault['loc']) or 'file'}: {fault['msg']}"
            f" (found {_brief(fault['input'])})"
            for fault in error.errors()
        )
        raise ConfigError(
            got=f"{source}: {faults}",
            need="only known keys with values of the documented type",
            because="a misspelt key would otherwise train with a default that nobody chose",
            do="correct the keys named above; `vlm-r1 config` prints the resolved parameters",
        ) from None


def _read_yaml(path: Path) -> dict:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        values, fault = None, "no such file"
    except yaml.YAMLError as error:
        values, fault = None, " ".join(str(error).split())
    else:
        fault = f"a {type(values).__name__}"
    if not isinstance(values, dict):
        raise ConfigError(
            got=f"{path}: {fault}",
            need="a YAML file with one section a stage",
            because="every stage reads its knobs there",
            do="run from the project's root, or name the file with --params",
        )
    return values


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
