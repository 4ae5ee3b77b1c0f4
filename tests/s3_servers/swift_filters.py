"""Filters that Swift's servers load: what stands in for memcached, and for the atomicity of a conditional PUT.

Each counts on one process a server (`workers = 0`), with one object server.
"""

from collections import defaultdict

from eventlet.semaphore import Semaphore


class Lock:
    """One request at a time for what writes an object: Swift looks for it first and writes it then."""

    def __init__(self, app):
        self.app = app
        self.locks = defaultdict(Semaphore)

    def __call__(self, env, start_response):
        if env["REQUEST_METHOD"] not in ("PUT", "POST", "DELETE"):
            return self.app(env, start_response)
        return self._locked(env, start_response)

    def _locked(self, env, start_response):
        with self.locks[env["PATH_INFO"]]:
            yield from self.app(env, start_response)


class Cache:
    """What the proxy asks of memcached, in a dict. Nothing here grows old: tokens and containers stay as they are."""

    def __init__(self):
        self.values = {}

    def get(self, key, **_):
        return self.values.get(key)

    def set(self, key, value, **_):
        self.values[key] = value

    def incr(self, key, delta=1, **_):
        self.values[key] = self.values.get(key, 0) + delta
        return self.values[key]

    def decr(self, key, delta=1, **_):
        return self.incr(key, -delta)

    def delete(self, key, **_):
        self.values.pop(key, None)

    def get_multi(self, keys, *_, **__):
        return [self.values.get(key) for key in keys]

    def set_multi(self, mapping, *_, **__):
        self.values.update(mapping)


def lock_factory(_, **__):
    return Lock


def cache_factory(_, **__):
    cache = Cache()

    def wrap(app):
        def call(env, start_response):
            env["swift.cache"] = cache
            return app(env, start_response)

        return call

    return wrap
