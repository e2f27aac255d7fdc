"""Metrics of generated images. Each has one file, with a pure function and its record in the tuple METRICS.

A new metric is one new file here. `--help` imports every file too. So a file imports slow modules only when it
computes.
"""

import functools
import importlib
import pkgutil

WITHOUT_METRICS = ("classifier", "imagenet_classes", "inception", "inception_weights", "ms_ssim", "record")  # helpers


@functools.cache
def all_metrics():
    """Every `record.Metric` by name, in the order of the report: the METRICS of each file in this folder."""
    files = [module.name for module in pkgutil.iter_modules(__path__) if module.name not in WITHOUT_METRICS]
    metrics = [metric for file in files for metric in importlib.import_module(f"metrics.{file}").METRICS]
    return {metric.name: metric for metric in sorted(metrics, key=lambda metric: metric.order)}
