"""The options of a run, as a page shows them."""

from dataclasses import asdict

from command.line import merge
from parameters import OPTIONS, Parameters, read_recipe, typed_options
from utils import UserError

IS_PATH = {"DIR", "FILE", "PATH", "DIR|FILE", "auto|DIR"}  # metavars of options that hold a path
# A page may be published, so it tells no paths. `name` and `dry_run` belong to one command.
LEFT_OUT = {"name", "dry_run", *(name for name, option in OPTIONS.items() if option.metadata["metavar"] in IS_PATH)}


def run_options(values, where):
    """(the recipe to compare with, the options that differ from it, all options) of a run, as {name: text}.

    `values`: the run's options by field name, from the file `where`. An option does not differ if the recipe and the
    other options already give its value. A recipe file of the user is not known here. Then the options are compared
    with the defaults.
    """
    values = asdict(Parameters()) | typed_options(values, where)
    try:
        recipe = read_recipe(values["recipe"])
    except UserError:
        recipe = {"recipe": Parameters.recipe}
    plain = merge(recipe, {})
    differ = {name: value for name, value in values.items() if value != plain[name]}
    given = {name for name in differ if merge(recipe, _without(differ, name))[name] != differ[name]}
    given -= {"recipe", "num_classes"}  # the head of the page has both
    if values["global_batch_size"]:
        given -= {"batch_size"}  # a process's share of it
    shown = {name: str(value) for name, value in values.items() if name not in LEFT_OUT}
    return recipe["recipe"], {name: text for name, text in shown.items() if name in given}, shown


def _without(values, name):
    return {other: value for other, value in values.items() if other != name}
