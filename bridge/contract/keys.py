"""Names of the keys in Redis besides the streams (pure); each is behind `key_prefix`, with several
shards behind that of the first.

bridge:streams     hash    stream name → {"type", "identity", "symbol", "private", "key"}
bridge:status      hash    instance → its status as JSON, each second
bridge:peers       hash    instance → its progress for its peers as JSON, each second
bridge:watermarks  hash    stream → µs: everything that the exchange sent until then is in it
bridge:durable     string  written before each WAIT or WAITAOF, which see only their own connection
bridge:account     string  fingerprint of the public key whose private streams are published here
bridge:gaps        stream  the gap log: every gap but a stream's start, recovered or not
bridge:quarantine  stream  messages that were refused, each with the reason and the raw text
consumers:status   hash    <group>/<consumer> → its status as JSON
"""

STREAMS = "bridge:streams"
STATUS = "bridge:status"
PEERS = "bridge:peers"
WATERMARKS = "bridge:watermarks"
DURABLE = "bridge:durable"
ACCOUNT = "bridge:account"
GAPS = "bridge:gaps"
QUARANTINE = "bridge:quarantine"
CONSUMERS_STATUS = "consumers:status"
