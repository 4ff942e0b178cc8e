"""`python -m tests.chaos --minutes 60 --seed 7`: a long session, or the check of a history that one left."""

import argparse
import json
import logging
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.chaos.broken import MUTANTS
from tests.chaos.faults import HABITS
from tests.chaos.guarantees import check
from tests.chaos.scene import Scene
from tests.chaos.session import Terms, play
from tests.chaos.story import Story
from tests.chaos.summary import summary
from tests.ground import processes
from tests.ground.history import History
from tests.ground.rabbitmq import RabbitNode
from tests.ground.servers import ValkeyServer
from tests.ground.stage import Stage

logger = logging.getLogger(__name__)


def main() -> int:
    """Play one session, or check a history; print what was found; 1 if a guarantee did not hold."""
    arguments = _parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    logging.getLogger("celery_patterns").setLevel(logging.ERROR)
    story = Story(History(arguments.check).entries()) if arguments.check else _play(arguments)
    violations = check(story)
    sys.stdout.write("\n".join([summary(story), *map(str, violations), f"{len(violations)} violations\n"]))
    return 1 if violations else 0


def _play(arguments: argparse.Namespace) -> Story:
    kinds = arguments.only.split(",") if arguments.only else HABITS
    terms = Terms(
        seed=arguments.seed,
        seconds=arguments.minutes * 60,
        every=arguments.every,
        habits={kind: HABITS[kind] for kind in kinds},
    )
    directory = Path(tempfile.mkdtemp(prefix="chaos-"))
    logger.info("%s", json.dumps({"directory": str(directory), "broker": arguments.broker}))
    try:
        with (
            _broker(arguments.broker, directory) as conf,
            Scene(Stage(directory, conf), arguments.seed, broken=arguments.broken) as scene,
        ):
            return play(scene, terms)
    finally:
        processes.end_all()


@contextmanager
def _broker(kind: str, directory: Path) -> Iterator[dict[str, str]]:
    """A broker and a result backend, which no fault touches."""
    results = ValkeyServer(directory / "results")
    node = RabbitNode(directory / "rabbitmq") if kind == "rabbitmq" else None
    try:
        results.start()
        if node:
            node.start()
        yield {"broker_url": node.new_vhost() if node else results.url(0), "result_backend": results.url(1)}
    finally:
        if node:
            node.stop()
        results.kill()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="how long faults and calls go on")
    parser.add_argument("--seed", type=int, default=1, help="what faults and calls are drawn from")
    parser.add_argument("--broker", choices=["redis", "rabbitmq"], default="redis")
    parser.add_argument("--every", type=float, default=1.0, help="seconds between two faults, on average")
    parser.add_argument("--only", help=f"these kinds of faults, with commas: {', '.join(HABITS)}")
    parser.add_argument(
        "--broken", default="", choices=MUTANTS, help="break this in the workers, and see it noticed"
    )
    parser.add_argument("--check", type=Path, help="check the history in this file, and play nothing")
    return parser


if __name__ == "__main__":
    sys.exit(main())
