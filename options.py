"""A dataclass's fields as options: the type, rule, help and names of each, from which argparse and YAML are read."""

import argparse
import contextlib
import difflib
import typing
from collections import Counter
from collections.abc import Callable
from dataclasses import field
from functools import partial
from typing import NamedTuple

import yaml

from utils import UserError

FILE_LIMIT = 2**16  # bytes
FLAT = {  # the tokens of one mapping of plain values
    *(yaml.StreamStartToken, yaml.StreamEndToken, yaml.DocumentStartToken, yaml.BlockMappingStartToken),
    *(yaml.BlockEndToken, yaml.KeyToken, yaml.ValueToken, yaml.ScalarToken),
}
BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


class Rule(NamedTuple):
    """What a value must be, in words and as a test of a value of the right type."""

    phrase: str
    accepts: Callable


ANYTHING = {bool: Rule("true or false", lambda _: True), str: Rule("text (in quotes)", lambda _: True)}


def one_of(*names):
    """The Rule of an option whose value is one of `names`."""
    return Rule(f"one of {', '.join(names)}", names.__contains__)


def option(default, help, valid=None, metavar=None, *, group, also=None, inferred=False):
    """A dataclass field that is an option. `valid`: a Rule; `metavar`: its value in `--help`; `also`: another name.

    `inferred`: left out, it is what other options say, so that `--help` does not show the default.
    """
    metadata = {"help": help, "valid": valid, "group": group, "also": also, "metavar": metavar, "inferred": inferred}
    return field(default=default, metadata=metadata)


def spellings(options):
    """Every name an option has on the command line -> the option."""
    return {name: option for option in options for name in (option.name, option.metadata["also"]) if name}


def typed(options, values, where):
    """`values` (by field name, as read from `where`) in their options' types; raises UserError for what is wrong."""
    result = {}
    for name, value in values.items():
        if name not in options:
            raise UserError(f"{where}: {name!r:.80} is no option{did_you_mean(str(name), spellings(options.values()))}")
        try:
            result[name] = _value(options[name], value)
        except argparse.ArgumentTypeError as error:
            raise UserError(f"{where}: {name}: {error}") from None
    return result


def read_yaml(path):
    """The mapping in a YAML file of `option: value` lines, at most 64 KB. Raises UserError."""
    try:
        with open(path, "rb") as file:
            data = file.read(FILE_LIMIT + 1)
        if len(data) > FILE_LIMIT:
            raise UserError(f"{path} is larger than 64 KB, so it holds no options")
        text = data.decode("utf-8-sig")
        tokens = Counter()
        for token in yaml.scan(text):  # which expands no alias, follows no tag and is left at the first of them
            tokens[type(token)] += 1
            if type(token) not in FLAT or tokens[yaml.BlockMappingStartToken] > 1:
                raise UserError(f"{path} must hold `option: value` lines and nothing else")
        values = yaml.safe_load(text)
        if not values or len(values) != tokens[yaml.KeyToken]:
            raise UserError(f"{path} names no option, or one of them twice")
        if any(isinstance(value, int) and value.bit_length() > 64 for value in values.values()):
            raise ValueError("an integer of so many digits that Python does not print it")
        return {str(name): value for name, value in values.items()}
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        mark = getattr(error, "problem_mark", None)
        raise UserError(f"{path} is not readable YAML{f', from line {mark.line + 1}' if mark else ''}") from None


def parse(argv, names, hidden_groups, **about):
    """(the options given in `argv`, typed, by field name; the names they have there, without dashes).

    Raises UserError; `--help` prints and exits. `names`: every name -> its option. `--help` shows each option once, in
    its group, without `hidden_groups`. `about`: the rest of argparse's help.
    """
    parser = _Parser(
        argument_default=argparse.SUPPRESS,
        formatter_class=partial(argparse.RawDescriptionHelpFormatter, max_help_position=33),
        allow_abbrev=False,
        **about,
    )
    groups = {}
    for name, option in names.items():
        title = option.metadata["group"]
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        shown = name == option.name and title not in hidden_groups
        kind, _ = _kind(option)
        groups[title].add_argument(
            f"--{name}",
            action=_Given,
            dest=option.name,
            type=partial(_value, option),
            metavar=option.metadata["metavar"] or {int: "N", float: "X", bool: "true|false", str: "NAME"}[kind],
            help=_help(option, names) if shown else argparse.SUPPRESS,
            **({"nargs": "?", "const": True} if kind is bool else {}),
        )
    given, unknown = parser.parse_known_args(argv)
    if unknown and not unknown[0].startswith("-"):
        raise UserError(
            f"{unknown[0]!r:.80} is no option, nor an option's value: leave it out; --help lists the options"
        )
    if unknown:
        name = unknown[0].split("=")[0]
        raise UserError(f"{name} is no option{did_you_mean(name.lstrip('-'), names, '--')}; --help lists them")
    return vars(given), parser.spelled


def did_you_mean(word, names, prefix=""):
    """The end of a sentence about `word`: which of `names`, written after `prefix`, is close; "" where none is."""
    close = difflib.get_close_matches(word[:80], names, 1)
    return f"; did you mean {prefix}{close[0]}?" if close else ""


class _Parser(argparse.ArgumentParser):
    def __init__(self, **about):
        super().__init__(**about)
        self.spelled = set()

    def error(self, message):
        raise UserError(message.removeprefix("argument "))


class _Given(argparse.Action):
    """Stores an option's value, and the name by which it is given."""

    def __call__(self, parser, namespace, value, name=None):
        setattr(namespace, self.dest, value)
        parser.spelled.add(name.removeprefix("--"))


def _help(option, names):
    others = [f"--{name}" for name, same in names.items() if same is option and name != option.name]
    also = f" (also {', '.join(others)})" if others else ""
    shown = option.default is not None and option.default is not False and not option.metadata["inferred"]
    default = f" [{option.default}]".lower() if shown else ""
    return option.metadata["help"] + also + default


def _kind(option):
    """An option's type, and whether it can be None."""
    kind, *rest = typing.get_args(option.type) or (option.type,)
    return kind, bool(rest)


def _value(option, value):
    """`value`, which may be text, in the option's type; raises ArgumentTypeError, whose text says what it must be."""
    kind, optional = _kind(option)
    if optional and value in (None, "", "none"):
        return None
    rule = option.metadata["valid"] or ANYTHING[kind]
    with contextlib.suppress(KeyError, TypeError, ValueError, OverflowError):
        converted = _convert(kind, value)
        if rule.accepts(converted):
            return converted
    raise argparse.ArgumentTypeError(f"{value!r:.80} is not {rule.phrase}")


def _convert(kind, value):
    """`value` as `kind`, if that is what it says; raises KeyError, TypeError, ValueError or OverflowError if not."""
    if kind is bool:
        return value if isinstance(value, bool) else BOOLEANS[value]
    if kind is str:
        if not isinstance(value, str) or "\0" in value:
            raise ValueError
        return value
    # YAML reads 1e-4 as text, so numbers may be text; Python's underscores are not a number's.
    if isinstance(value, bool) or (kind is int and isinstance(value, float)) or "_" in str(value):
        raise ValueError
    return kind(value)
