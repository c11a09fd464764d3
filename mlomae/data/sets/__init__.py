"""The data sets known by name, one file each. Importing this package imports all of them, which registers them."""

import importlib
import pkgutil

for module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{module.name}")
