"""PEP 517 backend: setuptools, with three rules for the one extension module.

1. A C compiler on the path is used as setuptools would use it.
2. Without one, the build asks for the PyPI package ``ziglang``, a C compiler in a wheel, and only then.
3. If the compile fails for any reason, the install goes on without the extension, says so on stderr, and the
   library runs on its plain-Python twin. ``SNAPVAULT_PURE=1`` asks for that from the start.
"""

import os
import platform
import shlex
import shutil
import sys
import sysconfig
from collections.abc import Callable
from typing import Any

from setuptools import build_meta
from setuptools.command.build_ext import build_ext

PURE = "SNAPVAULT_PURE"
ZIG_REQUIREMENT = "ziglang>=0.13"
ZIG_MACHINES = ("aarch64", "arm64", "x86_64")  # asked for elsewhere, it could fail the install before rule 3 applies

get_requires_for_build_sdist = build_meta.get_requires_for_build_sdist
build_sdist = build_meta.build_sdist
prepare_metadata_for_build_wheel = build_meta.prepare_metadata_for_build_wheel
prepare_metadata_for_build_editable = build_meta.prepare_metadata_for_build_editable


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    return [*build_meta.get_requires_for_build_wheel(config_settings), *_compiler_requirement()]


def get_requires_for_build_editable(config_settings: Any = None) -> list[str]:
    return [*build_meta.get_requires_for_build_editable(config_settings), *_compiler_requirement()]


def build_wheel(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    return _native_or_pure(lambda: build_meta.build_wheel(wheel_directory, config_settings, metadata_directory))


def build_editable(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    return _native_or_pure(lambda: build_meta.build_editable(wheel_directory, config_settings, metadata_directory))


def pure_wanted() -> bool:
    """Whether this build leaves the extension out."""
    return os.environ.get(PURE, "") not in ("", "0")


class BuildNative(build_ext):
    """``build_ext`` with the compiler that rule 1 or 2 found."""

    def build_extensions(self) -> None:
        command = _substitute_compiler()
        if command:
            # The interpreter's own flags were made for another compiler: none of them is taken over.
            self.compiler.set_executables(
                compiler_so=[*command, "-fPIC", "-DNDEBUG", "-fwrapv"], linker_so=[*command, "-shared"]
            )
        super().build_extensions()


def _native_or_pure(build: Callable[[], str]) -> str:
    if pure_wanted():
        return build()
    try:
        return build()
    except SystemExit as failure:  # how setuptools reports a compiler that is missing or fails
        print(
            f"snapvault: the native module could not be built ({failure}).\n"
            "snapvault: installing the plain-Python twin instead: the same results, but chunking at about 10 MB/s.",
            file=sys.stderr,
        )
    shutil.rmtree("build", ignore_errors=True)  # what the failed build left would get into the wheel
    os.environ[PURE] = "1"
    try:
        return build()
    finally:
        del os.environ[PURE]


def _compiler_requirement() -> list[str]:
    helped = os.name == "posix" and platform.machine() in ZIG_MACHINES
    wanted = not pure_wanted() and not _default_compiler() and not _other_compiler()
    return [ZIG_REQUIREMENT] if helped and wanted else []


def _default_compiler() -> str | None:
    """The compiler setuptools takes by itself, if it is there: ``$CC``, else the one that built this Python."""
    command = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    return shutil.which(shlex.split(command)[0])


def _other_compiler() -> str | None:
    return next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)


def _substitute_compiler() -> list[str]:
    """The command to use instead of setuptools' own choice; empty where that one is good."""
    if os.name != "posix" or _default_compiler():
        return []
    other = _other_compiler()
    # Zig tunes for the machine at hand unless told not to; the wheel must run on others.
    return [other] if other else [sys.executable, "-m", "ziglang", "cc", "-mcpu=baseline"]
