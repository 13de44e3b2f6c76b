"""One secret by its name: from the environment, or the file that `<NAME>_FILE` names."""

import os
from collections.abc import Mapping

from bridge.runtime.environment import read_variables
from bridge.runtime.masking import hide


def secret(name: str, environ: Mapping[str, str] = os.environ) -> str:
    """The value of NAME, or what the file holds that NAME_FILE names; empty where neither is set.
    From then on it is masked in what this process logs and prints. Raises ConfigError.
    """
    variable = read_variables(environ, None, (name,).__contains__).get(name)
    if variable is None:
        return ""
    hide([variable.value])
    return variable.value
