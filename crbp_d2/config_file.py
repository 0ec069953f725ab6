"""Configs from files and options, by the safe YAML loader: no tag of a file runs code."""

import functools
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

import yaml
from detectron2.config import CfgNode, get_cfg
from detectron2.utils.file_io import PathManager
from fvcore.common.config import BASE_KEY

from crbp_d2.config import add_crbp_config
from crbp_d2.utils import _detectron2  # noqa: F401, I001  (first: it explains a missing detectron2)
from crbp_d2.utils.errors import did_you_mean, full_keys

# Keys that may be None; yacs accepts None for a value of any type.
MAY_BE_NONE = ("MODEL.RECURRENCE.EARLY_STOP.ENABLED", "SOLVER.WEIGHT_DECAY_BIAS", "SOLVER.WEIGHT_DECAY_NORM")


def value_of(cfg: CfgNode, key: str) -> Any:
    """The value of a key by its full name."""
    return functools.reduce(lambda node, name: node[name], key.split("."), cfg)


def leaves(section: dict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key that is not a section, by its full name, and its value."""
    for key, value in section.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def load_config(path: str, options: Sequence = ()) -> CfgNode:
    """detectron2's defaults and this package's, changed by a config file and by options.

    Args:
        path: a YAML file, with its bases.
        options: keys and values in turn.

    Raises:
        KeyError, ValueError: see merge_config_file and merge_options.
    """
    cfg = get_cfg()
    add_crbp_config(cfg)
    merge_config_file(cfg, path)
    merge_options(cfg, options)
    return cfg


def given_keys(path: str, options: Sequence = ()) -> set[str]:
    """Full names of the keys in a checked config file, without its bases, and in options."""
    with PathManager.open(path, "r", encoding="utf-8") as file:
        return {key for key, _ in leaves(yaml.safe_load(file))} | {str(key) for key in options[::2]}


def merge_config_file(cfg: CfgNode, path: str) -> None:
    """cfg.merge_from_file(path), without detectron2's fallback to an unsafe loader.

    Raises:
        ValueError: one sentence: a missing file, invalid YAML, a tag that is not plain YAML, no keys at the top, files
            that name each other as `_BASE_`, or a key without a value.
        KeyError: an unknown key, by the file and its full name.
    """
    _check(cfg, path, ())
    none = _without_value(cfg)
    try:
        cfg.merge_from_file(path, allow_unsafe=False)
    except (AssertionError, ValueError) as error:
        # An unknown version, a value of another type than the default's.
        raise ValueError(f"{path}: {_one_line(error)}") from error
    except KeyError as error:
        key = str(error.args[0]).rsplit(" ", 1)[-1]
        raise KeyError(f"{path}: {error.args[0]}{did_you_mean(key, full_keys(cfg))}") from error
    if lost := _without_value(cfg) - none:
        raise ValueError(f"{path}: {min(lost)} has no value (null)")


def merge_options(cfg: CfgNode, opts: Sequence) -> None:
    """cfg.merge_from_list(opts); whole numbers are accepted for floats.

    Raises:
        ValueError: one sentence: an unknown key (with the one that may have been meant), a section in place of a key,
            a key without a value or with None, a value of another type than the default's, a flag among them.
    """
    words = [str(word) for word in opts]
    if flag := next((word for word in words if word.startswith("--")), ""):
        before = " ".join(words[: words.index(flag)])
        raise ValueError(f"{flag} must precede KEY VALUE options, here {before}")
    none, known, options = _without_value(cfg), set(full_keys(cfg)), f"(options {' '.join(words)})"
    for key in words[::2]:
        if key in known and isinstance(value_of(cfg, key), CfgNode):
            raise ValueError(f"{key} is a section of keys, not a key: give {key}.KEY VALUE {options}")
    values = [_number_for(cfg, words[k - 1], part) if k % 2 else part for k, part in enumerate(opts)]
    try:
        cfg.merge_from_list(values)
    except (AssertionError, KeyError, ValueError) as error:
        text = error.args[0] if isinstance(error, KeyError) else error
        nearest = next((did_you_mean(key, known) for key in words[::2] if key not in known), "")
        raise ValueError(f"{text} {options}{nearest}") from error
    if lost := _without_value(cfg) - none:
        raise ValueError(f"{min(lost)} must not be None {options}")


def _number_for(cfg: CfgNode, key: str, value: Any) -> Any:
    """A whole number as a float, where the key holds one."""
    holds_float = key in {leaf for leaf, default in leaves(cfg) if type(default) is float}
    return float(value) if holds_float and re.fullmatch(r"[+-]?\d+", str(value)) else value


def _without_value(cfg: CfgNode) -> set[str]:
    return {key for key, value in leaves(cfg) if value is None and key not in MAY_BE_NONE}


def _check(cfg: CfgNode, path: str, above: tuple[str, ...]) -> None:
    """Check a file and its bases; `above` are the files that led here."""
    said_by = f" (_BASE_ of {above[-1]})" if above else " (--config-file)"
    if any(os.path.realpath(path) == os.path.realpath(other) for other in above):
        raise ValueError(f"circular _BASE_: {' -> '.join((*above, path))}")
    if not path or not _is_file(path):
        raise ValueError(f"there is no config file {path!r}{said_by}")
    try:
        with PathManager.open(path, "r", encoding="utf-8") as file:
            content = yaml.safe_load(file)
    except yaml.constructor.ConstructorError as error:
        raise ValueError(
            f"{path} has a tag that is not plain YAML and was not executed: {_one_line(error.problem)}"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML: {_one_line(error)}") from error
    if not isinstance(content, dict):
        kind = "empty" if content is None else f"a {type(content).__name__}"
        raise ValueError(f"{path} is {kind}; a config file has keys and values, such as `MODEL:`{said_by}")
    _check_sections(cfg, content, path)
    bases = content.get(BASE_KEY, [])
    for base in bases if isinstance(bases, list) else [bases]:
        if not isinstance(base, str):
            raise ValueError(f"{path}: _BASE_ is {base!r}; it names a file or a list of files")
        base = os.path.expanduser(base)
        if not base.startswith(("/", "https://", "http://")):
            base = os.path.normpath(os.path.join(os.path.dirname(path), base))
        _check(cfg, base, (*above, path))


def _is_file(path: str) -> bool:
    try:
        return PathManager.isfile(path)
    except NotImplementedError:  # a URL
        return False


def _check_sections(cfg: CfgNode, content: dict, path: str, prefix: str = "") -> None:
    """Check that sections are sections: detectron2 looks into them before yacs does."""
    for key, value in content.items():
        if not isinstance(cfg.get(key), CfgNode):
            continue
        if not isinstance(value, dict):
            raise ValueError(f"{path}: {prefix}{key} is {value!r}; it is a section of keys and values")
        _check_sections(cfg[key], value, path, f"{prefix}{key}.")


def _one_line(error: object) -> str:
    return " ".join(str(error).split())
