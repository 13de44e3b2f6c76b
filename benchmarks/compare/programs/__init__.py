"""One small program for each peer, as its own docs advise. They run in a separate environment, so
they import nothing of ours but `seen`.

Writers are called with WS_URL REST_URL REDIS_URL MARKET…, readers with REDIS_URL COUNT LOG.
"""
