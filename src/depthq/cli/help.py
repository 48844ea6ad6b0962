"""How --help reads: descriptions as they are written, options with dashes, their defaults behind them."""

import argparse
from collections.abc import Callable


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Options may be typed with dashes or underscores, and are shown with dashes."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        return _dashed(action, super()._format_action_invocation)

    def _format_usage(self, usage, actions, groups, prefix) -> str:
        """The verb and what it must have; each option follows with what it does."""
        must_have = [action.dest.upper() for action in actions if not action.option_strings]
        must_have += [
            f"{action.option_strings[0].replace('_', '-')} {action.dest.upper()}"
            for action in actions
            if action.option_strings and action.required
        ]
        return f"usage: {' '.join([self._prog, *must_have])} [OPTIONS]\n\n"

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        if not text.endswith("..."):
            text = text.removesuffix(".")
        if action.default in (None, False, argparse.SUPPRESS) or not action.option_strings:
            return text
        default = list(action.default) if isinstance(action.default, tuple) else action.default
        return f"{text} (default: {str(default).replace('%', '%%')})"


def _dashed(action: argparse.Action, shown: Callable[[argparse.Action], str]) -> str:
    """What `shown` makes of an action whose options have dashes."""
    before = action.option_strings
    action.option_strings = [option.replace("_", "-") for option in before]
    try:
        return shown(action)
    finally:
        action.option_strings = before
