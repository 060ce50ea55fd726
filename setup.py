"""The extension module; everything else stands in pyproject.toml, the rules of the build in build_backend/."""

import sys
from pathlib import Path

from setuptools import Extension, setup

sys.path.insert(0, str(Path(__file__).resolve().parent / "build_backend"))

from snapvault_build import BuildNative, pure_wanted

if pure_wanted():
    setup()
else:
    setup(
        ext_modules=[
            Extension(
                "snapvault._native",
                sources=["native/native.c", "native/files.c"],
                depends=["native/native.h"],
                define_macros=[("Py_LIMITED_API", "0x030B0000")],
                extra_compile_args=[] if sys.platform == "win32" else ["-O3", "-std=c11"],
                py_limited_api=True,
            )
        ],
        cmdclass={"build_ext": BuildNative},
        options={"bdist_wheel": {"py_limited_api": "cp311"}},
    )
