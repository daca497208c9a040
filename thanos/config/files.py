"""The YAML of `conf/` and of a user's own folders, in which text is what is written.

YAML would make a number of `revision: 12345e6` and 124 of `pattern: 2:4`; Hydra then makes text of
the number. Where the schema says text, plain scalars are read as they stand, as on a command line.
"""

from pathlib import Path

import yaml
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.plugins.config_source import ConfigResult
from omegaconf import OmegaConf
from omegaconf._utils import get_yaml_loader

from ..errors import UserError
from .keys import all_keys

_NO_TEXT = tuple(f"tag:yaml.org,2002:{kind}" for kind in ("bool", "int", "float"))


class ConfigFiles(FileConfigSource):
    """A folder of configuration files, as Hydra asks for them."""

    @staticmethod
    def scheme() -> str:
        return "thanos"

    def load_config(self, config_path: str) -> ConfigResult:
        """Read a file.

        Raises:
            UserError: it is no YAML.
        """
        file = Path(self.path, self._normalize_file_name(config_path))
        try:
            result = super().load_config(config_path)
            loader = get_yaml_loader()(file.read_text(encoding="utf-8"))
            node = loader.get_single_node()
            if isinstance(node, yaml.MappingNode):
                group, _, _ = config_path.rpartition("/")
                package = result.header.get("package") or group
                _keep_text(node, "" if package in ("", "_global_") else f"{package}.")
                result.config = OmegaConf.create(loader.construct_document(node))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise UserError(f"{file} is no YAML ({' '.join(str(error).split())})") from error
        return result


SourcesRegistry.instance().register(ConfigFiles)


def _keep_text(node: yaml.MappingNode, prefix: str) -> None:
    for name, value in node.value:
        key = all_keys().get(f"{prefix}{name.value}")
        if key is None:
            continue
        if key.is_group and isinstance(value, yaml.MappingNode):
            _keep_text(value, f"{key.name}.")
        elif key.kind not in (int, float, bool):
            for scalar in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if scalar.tag in _NO_TEXT:
                    scalar.tag = "tag:yaml.org,2002:str"
