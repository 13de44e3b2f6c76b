"""Reads one secret by its name: from the environment, or from the file named by `<NAME>_FILE`."""

import os
from collections.abc import Mapping

from bridge.runtime.environment import read_variables
from bridge.runtime.masking import hide


def secret(name: str, environ: Mapping[str, str] = os.environ) -> str:
    """The value of NAME, or the content of the file named by NAME_FILE; empty where neither is set.
    It is masked in all later logs and output of this process. Raises ConfigError.
    """
    variable = read_variables(environ, None, (name,).__contains__).get(name)
    if variable is None:
        return ""
    hide([variable.value])
    return variable.value
