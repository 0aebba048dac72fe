"""The project's gunicorn settings for `noop_app`: all but the hooks, which expect the project's own
application.
"""

import inspect

from app import gunicorn_config

globals().update(
    {
        name: value
        for name, value in vars(gunicorn_config).items()
        if not name.startswith("_") and not inspect.isfunction(value)
    }
)
wsgi_app = "tests.benchmarks.noop_app:create_app()"
