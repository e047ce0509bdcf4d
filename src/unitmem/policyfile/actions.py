"""The `do` of a step: from YAML nodes to actions, or to messages that say what to write instead."""

from __future__ import annotations

import yaml

from unitmem.policy.action import Action
from unitmem.policy.actions import ACTIONS, Signal, Stop
from unitmem.policy.keys import names
from unitmem.policyfile.nodes import NULL_TAG
from unitmem.policyfile.values import ValueReader
from unitmem.text import close_to, quoted

_NAMES = tuple(ACTIONS)
_ACTIONS = f"the actions are {', '.join(_NAMES)}"
_EXAMPLE = f"write log, {Signal.example}, {Stop.example} or another; {_ACTIONS}"


class ActionReader(ValueReader):
    """A reader of actions. A method returns None where it has reported a problem."""

    def action(self, node: yaml.Node) -> Action | None:
        if isinstance(node, yaml.ScalarNode):
            return self.bare_action(node)
        if not isinstance(node, yaml.MappingNode):
            self.problem(node, f"`do` is one action: {_EXAMPLE}")
            return None
        written = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        keywords = list(dict.fromkeys(word for word in written if word in ACTIONS))
        if len(keywords) > 1:
            self.problem(node, f"`{keywords[0]}` and `{keywords[1]}` at once: write a step for each")
            return None
        if not keywords:
            close = close_to(written[0], _NAMES) if written else ""
            self.problem(node, f"there is no action {quoted(written) or 'here'}{close}: {_ACTIONS}")
            return None
        keyword = keywords[0]
        action = ACTIONS[keyword]
        if not action.own_keys():
            self.problem(node, f"`{keyword}` takes nothing: write `do: {keyword}`")
            return None
        if action.is_flat:
            return self.action_of(action, node)
        if outside := [word for word in written if word in names(action.own_keys())]:
            self.problem(
                node,
                f"{quoted(outside)} stands beside `{keyword}` and belongs inside of it: write {action.example}",
            )
            return None
        inside = self.keys(node, (keyword,), required=(keyword,), what="`do`")
        return None if inside is None else self.action_of(action, inside[keyword])

    def action_of(self, action: type[Action], node: yaml.Node) -> Action | None:
        """Return the action whose keys, or main value, are in `node`."""
        main = action.main_key()
        if main is not None and not isinstance(node, yaml.MappingNode):
            value = self.value(node, main.value, action.keyword)
            return None if value is None else action.of({main.name: value})
        if not action.question and node.tag == NULL_TAG:
            return action.of({})
        block = self.block(node, action.own_keys(), f"a {action.keyword}", action.keyword)
        if block is None or block.failed:
            return None
        made = action.of(block.given)
        if block.nodes or not node.value:  # keys that are none have been refused, and that is enough
            for key, message in made.mistakes(block.nodes):
                self.problem(block.nodes.get(key, node), message)
        return made

    def bare_action(self, node: yaml.ScalarNode) -> Action | None:
        action = ACTIONS.get(node.value)
        if action is not None and not action.question:
            return action.of({})
        if action is not None:
            self.problem(node, action.question)
        elif not node.value:
            self.problem(node, f"`do` is empty: {_EXAMPLE}")
        else:
            close = close_to(node.value, _NAMES)
            self.problem(node, f"there is no action {node.value!r}{close}: {_ACTIONS}")
        return None
