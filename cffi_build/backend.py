"""PEP 517 backend: setuptools, with its setup script kept out of the project's root.

cffi registers its ``cffi_modules`` as a keyword of ``setup()`` only, so a setup script is needed; setuptools looks for
it in the root. This backend is setuptools' own with that one path changed.
"""

from setuptools import build_meta as _setuptools


class _Backend(_setuptools._BuildMetaBackend):
    def run_setup(self, setup_script: str = "setup.py") -> None:
        super().run_setup("cffi_build/_setup.py")


_backend = _Backend()
get_requires_for_build_wheel = _backend.get_requires_for_build_wheel
get_requires_for_build_sdist = _backend.get_requires_for_build_sdist
get_requires_for_build_editable = _backend.get_requires_for_build_editable
prepare_metadata_for_build_wheel = _backend.prepare_metadata_for_build_wheel
prepare_metadata_for_build_editable = _backend.prepare_metadata_for_build_editable
build_wheel = _backend.build_wheel
build_sdist = _backend.build_sdist
build_editable = _backend.build_editable
