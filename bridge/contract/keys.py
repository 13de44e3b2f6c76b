"""Names of the keys in Redis besides the streams themselves (pure); `key_prefix` goes before each.

bridge:streams     hash    stream name → {"type", "identity", "symbol", "private"} as JSON
bridge:status      hash    instance → its status as JSON, each second
bridge:peers       hash    instance → how far it is, for other bridges, as JSON, each second
bridge:heard       hash    stream → µs: everything the exchange sent up to here is in the stream
bridge:durable     string  written before each question whether what was published is durable
bridge:account     string  fingerprint of the public key whose private streams are published here
bridge:gaps        stream  every hole in a stream: from, to, cause, repaired or not, and how
bridge:quarantine  stream  messages that were refused, each with the reason and the raw text
consumers:status   hash    <group>/<consumer> → its status as JSON
"""

STREAMS = "bridge:streams"
STATUS = "bridge:status"
PEERS = "bridge:peers"
HEARD = "bridge:heard"
DURABLE = "bridge:durable"
ACCOUNT = "bridge:account"
GAPS = "bridge:gaps"
QUARANTINE = "bridge:quarantine"
CONSUMERS_STATUS = "consumers:status"
