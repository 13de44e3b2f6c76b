"""The console: browser pages that show a running system, from Redis alone.

`watcher` reads Redis, once for all clients; the page models (`now`, `market`, `groups`, `gaps`,
`latency`) turn the data into what is shown, and are pure; `hub` delivers it to the clients;
`server` and `guard` are the HTTP layer. `static/` holds the browser's files: all are local, and
none needs a build step.
"""
