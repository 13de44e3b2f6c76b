"""One small program a peer, each as its own docs advise. They run in an environment of their own,
so they import nothing of ours but `seen`.

Writers are called with WS_URL REST_URL REDIS_URL MARKET…, readers with REDIS_URL COUNT LOG.
"""
