"""A server with one more route, which tells what the server process and its worker have imported. Run by test_rooms.py."""

import sys

from fastapi import FastAPI

from server import __main__ as command
from server.app import create_app
from server.settings import Settings


def spying_app(settings: Settings) -> FastAPI:
    app = create_app(settings)

    @app.get("/modules")
    def modules() -> dict[str, list[str]]:
        pool = app.state.service.engine._pool
        return {"server": list(sys.modules), "worker": pool.submit(eval, "list(__import__('sys').modules)").result()}

    return app


if __name__ == "__main__":
    command.create_app = spying_app
    command.cli()
