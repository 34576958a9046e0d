"""The command line: `fedmq simulate`, `aggregate`, `device`, `broker`, and what looks at things and at rules."""

from fedmq.cli.codecs import codecs
from fedmq.cli.export import export
from fedmq.cli.group import main
from fedmq.cli.replaying import replay
from fedmq.cli.rules import rules
from fedmq.cli.services import aggregate, broker, device
from fedmq.cli.simulation import simulate
from fedmq.cli.things import init, inspect

__all__ = ["main"]

for _command in (simulate, aggregate, device, broker, init, inspect, export, rules, codecs, replay):
    main.add_command(_command)
