"""Prune language models and measure what it costs: one run, a sweep, or a suite.

    thanos model=hf model.path=<folder or hub id> method=thanos pattern=2:4 output_dir=out
    thanos -m method=thanos,wanda pattern=0.5,2:4     all combinations, as a suite without a file
    thanos suite demo                                 a suite of conf/suite, or of your own
    thanos pack|unpack <folder> <folder>              a checkpoint made smaller, or restored
    thanos compact <folder> <folder>                  a structured model without what was pruned

`thanos` is `python -m thanos`. With output_dir one run is written there. Without it results lie
where a suite would look for them, below --results, and a table ends the run.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from hydra._internal.hydra import Hydra
from omegaconf import OmegaConf

from . import layout
from .command import parser, run_command
from .config import Folders, refuse_unused, resolve
from .config.compose import CONFIG_NAME, composed, hydra_of, told
from .config.grammar import typed
from .config.reference import help_text
from .errors import UserError
from .paths import expanded

if TYPE_CHECKING:
    from .workflow.sweep import Launch

_INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")


def main() -> None:
    """Entry point of the console script; see the module's docstring."""
    run_command(front_door)


def front_door(arguments: Sequence[str] | None = None) -> None:
    """Do what the command line asks.

    Raises:
        UserError: it is wrong.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] in (["pack"], ["unpack"]):
        from .stages.pack import main as pack

        return pack(words)
    if words[:1] == ["compact"]:
        from .stages.compact import main as compact

        return compact(words[1:])
    if words[:1] == ["suite"]:
        return _suite(words[1:])
    given = _options().parse_intermixed_args(words)
    folders = _folders(given)
    if (given.package or given.resolve) and not given.cfg:
        raise UserError("--package and --resolve are of use with --cfg only")
    if given.help or not words:
        sys.stdout.write(_options().format_help() + "\n" + help_text(folders))
    elif given.version:
        sys.stdout.write(f"thanos {_version()}\n")
    elif given.shell_completion:
        hydra_of(folders).shell_completion(CONFIG_NAME, given.overrides)
    elif given.cfg:
        _show(given, folders)
    elif given.info:
        composed(given.overrides, folders)
        texts = [typed(text) for text in given.overrides]
        logging.getLogger().handlers.clear()  # Hydra logs what it shows
        with told(given.overrides):
            hydra_of(folders).show_info(given.info, CONFIG_NAME, texts)
    else:
        _run(given)
    return None


def _options() -> argparse.ArgumentParser:
    options = parser(__doc__, add_help=False)
    options.usage = "thanos [options] [key=value …]"
    options.add_argument("overrides", nargs="*", metavar="key=value")
    instead = options.add_mutually_exclusive_group()
    instead.add_argument("-h", "--help", action="store_true", help="show this help")
    instead.add_argument("--version", action="store_true", help="show the version")
    instead.add_argument(
        "-m", "--multirun", action="store_true", help="sweep over values with commas, and functions"
    )
    options.add_argument("--name", help="of a sweep's folder below <results>/suites; default: hash")
    _add_places(options)
    instead.add_argument(
        "-c", "--cfg", choices=("job", "hydra", "all"), help="show the composed configuration"
    )
    options.add_argument("-p", "--package", help="the part of the configuration to show")
    options.add_argument("--resolve", action="store_true", help="resolve interpolations")
    instead.add_argument(
        "-i", "--info", nargs="?", const="all", choices=_INFO, help="how it is composed"
    )
    instead.add_argument(
        *("-sc", "--shell-completion"),
        action="store_true",
        help='completion for bash, fish or zsh: eval "$(thanos -sc install=bash)"',
    )
    return options


def _add_places(options: argparse.ArgumentParser) -> None:
    options.add_argument(
        *("-cd", "--config-dir"),
        action="append",
        default=[],
        metavar="FOLDER",
        help="of your own, with models, methods and suites as in conf/; can be given again",
    )
    options.add_argument(
        "--results", type=Path, default=Path("results"), help="where results lie (default: results)"
    )
    options.add_argument("-n", "--dry-run", action="store_true", help="only list the jobs")
    options.add_argument(
        "--profile", help="of Snakemake, for a cluster: a folder, or slurm (docs/cluster.md)"
    )
    options.add_argument("--cores", type=int, help="to use on this machine (default: all)")


def _suite(words: Sequence[str]) -> None:
    from .workflow.suite_files import add_sizes, sweeps_of
    from .workflow.suites import load_suite
    from .workflow.sweep import snakemake

    options = parser("Run a suite: tables, figures and a report in <results>/suites/<suite>/.")
    options.usage = "thanos suite <name> [options] [key=value …]"
    options.add_argument("suite", help="of conf/suite, or of --config-dir")
    options.add_argument("overrides", nargs="*", metavar="key=value", help="in place of its values")
    add_sizes(options)
    _add_places(options)
    given = options.parse_intermixed_args(words)
    launch = _launch(given)
    # In one line what is wrong, before the workflow says it in its own way.
    folders = (*launch.folders, *sweeps_of(given.results))
    load_suite(given.suite, given.overrides, given.size, folders)
    _end(snakemake(given.suite, launch, given.overrides, given.size))


def _run(given: argparse.Namespace) -> None:
    launch = _launch(given)
    if not given.multirun:
        config = resolve(given.overrides, launch.folders)
        refuse_unused(config, given.overrides)
        if config.output_dir is not None:
            from .stages.run import run_into

            for option in ("name", "dry_run", "profile", "cores"):
                if getattr(given, option):
                    flag = option.replace("_", "-")
                    raise UserError(f"--{flag} is of no use with output_dir, a run by itself")
            return run_into(given.overrides, launch.folders)
    from .workflow.sweep import run_sweep

    suite, status = run_sweep(given.overrides, given.name, launch)
    if not status and not given.dry_run:
        for run in suite.runs:
            kind = layout.RECOVERED if run.recovery else layout.PRUNED
            if made := run.recovery or run.pruning:
                home = given.results / kind / made.id / layout.CHECKPOINT
                sys.stdout.write(f"{run.name}  {home}\n")
    return _end(status)


def _launch(given: argparse.Namespace) -> "Launch":
    from .workflow.sweep import Launch, profile_folder

    profile = None if given.profile is None else profile_folder(given.profile)
    return Launch(given.results, _folders(given), profile, given.cores, given.dry_run)


def _folders(given: argparse.Namespace) -> Folders:
    return tuple(str(expanded(folder).absolute()) for folder in given.config_dir)


def _end(status: int) -> None:
    if status:
        sys.exit(status)


def _show(given: argparse.Namespace, folders: Folders) -> None:
    shown = composed(given.overrides, folders, hydra=given.cfg != "job")
    with told(given.overrides):
        if given.cfg == "hydra":
            shown = Hydra.get_sanitized_hydra_cfg(shown)
        part = OmegaConf.select(shown, given.package) if given.package else shown
        if part is None:
            raise UserError(f"--package {given.package!r} is no part of the configuration")
        if not OmegaConf.is_config(part):
            sys.stdout.write(f"{part}\n")
            return
        sys.stdout.write(f"# @package {given.package}\n" if given.package else "")
        sys.stdout.write(OmegaConf.to_yaml(part, resolve=given.resolve))


def _version() -> str:
    try:
        return version("thanos-pruning")
    except PackageNotFoundError:
        return "of a checkout that is not installed"
