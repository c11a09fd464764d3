"""Puts configs of pretraining and classification into the wheel, as `mlomae/configs`; all else is in pyproject.toml.

They stay in `configs/` of the checkout, and only there: an editable install reads them in place.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

CONFIGS = Path(__file__).parent / "configs"


class BuildWithConfigs(build_py):
    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        recipes = sorted([*CONFIGS.glob("pretrain/*.py"), *CONFIGS.glob("classification/*.py")])
        bases = {name for file in recipes for name in re.findall(r'"\.\./(_base_/[\w.-]+)"', file.read_text())}
        for file in (*recipes, *(CONFIGS / name for name in sorted(bases))):
            target = Path(self.build_lib, "mlomae", "configs", file.relative_to(CONFIGS))
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)


setup(cmdclass={"build_py": BuildWithConfigs})
