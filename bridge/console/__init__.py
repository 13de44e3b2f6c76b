"""The console: pages in a browser that show a running system, from Redis alone.

`watcher` reads Redis, once for all clients; the pages' models (`now`, `market`, `groups`, `gaps`,
`latency`) make of it what is shown, and are pure; `hub` hands it to the clients; `server` and
`guard` are the HTTP around it. `static/` has what the browser gets: nothing in it comes from
elsewhere, and nothing is built.
"""
