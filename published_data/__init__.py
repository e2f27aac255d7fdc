"""Published data sets. Each has one file, with the function that reads it and its record in the tuple DATA_SETS.

A new data set is one new file here. `--help` imports every file too. So a file imports slow modules only when it reads.
"""

import functools
import importlib
import pkgutil


@functools.cache
def all_data_sets():
    """Every `record.DataSet` by name, in the order of `--help`: the DATA_SETS of each file in this folder."""
    files = [module.name for module in pkgutil.iter_modules(__path__) if module.name != "record"]
    found = [data for file in files for data in importlib.import_module(f"published_data.{file}").DATA_SETS]
    return {data.name: data for data in sorted(found, key=lambda data: data.order)}
