// A complete consumer in another language: counts each market's trades, and what is missing of them.
//
//     npm ci && REDIS_URL=redis://127.0.0.1:6379 node consumer.mjs 'trade.*'
//     redis-cli HGETALL 'counts:{trade.SOL_USDC}'
//
// It knows Redis and the contract (docs/contract.md) and nothing else. Start as many as you like:
// a consumer group shares the entries between them. Whatever happens to one of them, or to the group,
// each entry counts once. To count all anew, delete the group and the hash.

import { createClient, defineScript } from "@redis/client";
import { hostname } from "node:os";

const {
  REDIS_URL = "redis://127.0.0.1:6379",
  KEY_PREFIX = "", // as the bridge's redis.key_prefix
  GROUP = "counts",
  NAME = `${hostname()}-${process.pid}`, // a stable name finds its own pending entries at once
  CLAIM_AFTER_MS = "10000", // so long a worker may be silent until others take its entries
} = process.env;
const PATTERN = process.argv[2] ?? "trade.*";

const COUNT = 200; // entries of each stream at a time
const BLOCK_MS = 500; // how long a read waits for news; a stop waits as long
const LOOK_EVERY_MS = 2000; // for new streams, and for what dead workers have left

// The result counts only if it is this call that acknowledges the entry: a worker that handled it,
// fell asleep, and lost it to another one changes nothing when it wakes up. A MULTI of both is not
// enough for that. With the result goes what it is made of: all entries up to `last`, but for `open`,
// which other workers have in hand. A group can vanish; this does not go with it.
const settle = defineScript({
  NUMBER_OF_KEYS: 2,
  SCRIPT: `
    local function wide(id) -- in the order of entries; as numbers they would be rounded
      local ms, seq = id:match('(%d+)-(%d+)')
      return ('0'):rep(20 - #ms) .. ms .. ('0'):rep(20 - #seq) .. seq
    end
    local last = redis.call('HGET', KEYS[2], 'last') or '0-0'
    local counted = false
    for i = 2, #ARGV, 4 do
      if redis.call('XACK', KEYS[1], ARGV[1], ARGV[i]) == 1 then
        redis.call('HINCRBY', KEYS[2], 'trades', ARGV[i + 1])
        redis.call('HINCRBY', KEYS[2], 'gaps', ARGV[i + 2])
        redis.call('HINCRBY', KEYS[2], 'missing', ARGV[i + 3])
        if wide(ARGV[i]) > wide(last) then last = ARGV[i] end
        counted = true
      end
    end
    if not counted then return end
    local open, pending = {}, redis.call('XPENDING', KEYS[1], ARGV[1])[1]
    if pending > 0 then
      for _, one in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1], '-', last, pending)) do
        open[#open + 1] = one[1]
      end
    end
    redis.call('HSET', KEYS[2], 'last', last, 'open', table.concat(open, ' '))`,
  parseCommand(parser, stream, entries) {
    pushKeys(parser, stream);
    parser.push(GROUP, ...entries.flatMap(({ id, message }) => [id, ...effect(message)]));
  },
});

// Makes our group: a new one at the stream's beginning, one that vanished where the result ends, with
// what was in hand then (FORCE: as pending entries of ours).
const makeGroup = defineScript({
  NUMBER_OF_KEYS: 2,
  SCRIPT: `
    local last, open = unpack(redis.call('HMGET', KEYS[2], 'last', 'open'))
    redis.call('XGROUP', 'CREATE', KEYS[1], ARGV[1], last or '0')
    for id in (open or ''):gmatch('%S+') do
      redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, id, 'FORCE', 'JUSTID')
    end`,
  parseCommand(parser, stream) {
    pushKeys(parser, stream);
    parser.push(GROUP, NAME);
  },
});

// The stream and the group's result. The braces keep both in one slot of a Redis Cluster.
function pushKeys(parser, stream) {
  parser.pushKey(KEY_PREFIX + stream);
  parser.pushKey(`${KEY_PREFIX}${GROUP}:{${KEY_PREFIX}${stream}}`);
}

// What one entry adds: trades, gaps, trades missing. Every value is a string; prices and quantities
// are decimals: do not make floats of them where sums must be exact.
function effect(message) {
  switch (message?.type) {
    case "trade":
      return ["1", "0", "0"];
    case "gap": // ids from..to are not in the stream; a stream's start has no `from`
      if (message.recovered === "true" || message.from === "") return ["0", "0", "0"];
      return ["0", "1", String(BigInt(message.to) - BigInt(message.from) + 1n)];
    default: // of a newer contract, or trimmed away before it was read: acknowledged, not counted
      return ["0", "0", "0"];
  }
}

// A read that waits has a connection of its own. A command that cannot be sent fails at once: what
// to send again is this file's decision.
const options = { url: REDIS_URL, scripts: { settle, makeGroup }, RESP: 2, disableOfflineQueue: true };
const redis = createClient(options).on("error", told);
const reader = createClient(options).on("error", told);

let stopping = false;
for (const signal of ["SIGINT", "SIGTERM"]) {
  process.on(signal, () => {
    if (stopping || !redis.isReady) process.exit(130);
    stopping = true;
  });
}

const streams = new Set(); // that have our group
const unread = new Set(); // that may have pending entries under our own name
let lookAt = 0;

// Streams come and go; the bridge's registry names them. So do groups: a stream is deleted and filled
// again, somebody destroys the group.
async function join() {
  const names = await redis.hKeys(`${KEY_PREFIX}bridge:streams`);
  for (const name of names.filter(matches)) {
    if (streams.has(name)) continue;
    try {
      await redis.makeGroup(name);
    } catch (error) {
      if (error.message.includes("requires the key to exist")) continue; // no entries so far
      if (!error.message.includes("BUSYGROUP")) throw error; // it is there
    }
    streams.add(name);
    unread.add(name);
  }
}

function matches(name) {
  const pattern = PATTERN.replace(/[.+^${}()|[\]\\]/g, "\\$&").replaceAll("*", ".*");
  return new RegExp(`^${pattern}$`).test(name);
}

async function take(name, messages) {
  if (messages.length > 0) await redis.settle(name, messages);
}

// First what is pending under our own name, from before a crash or a lost reply.
async function takeOwn(name) {
  const key = KEY_PREFIX + name;
  for (;;) {
    const mine = await redis.xPendingRange(key, GROUP, "-", "+", COUNT, { consumer: NAME });
    if (mine.length === 0) break;
    const ids = mine.map(({ id }) => id);
    const there = (await redis.xClaim(key, GROUP, NAME, 0, ids)).filter((one) => one !== null);
    await take(name, there);
    // What was trimmed away meanwhile can only be acknowledged.
    const found = new Set(there.map(({ id }) => id));
    const gone = ids.filter((id) => !found.has(id));
    if (gone.length > 0) await redis.xAck(key, GROUP, gone);
  }
  unread.delete(name);
}

// Then what silent workers have left: the cursor goes on until it is back at the beginning.
async function claim(name) {
  let cursor = "0-0";
  do {
    const { nextId, messages } = await redis.xAutoClaim(
      KEY_PREFIX + name, GROUP, NAME, Number(CLAIM_AFTER_MS), cursor, { COUNT },
    );
    await take(name, messages.filter((message) => message !== null));
    if (messages.includes(null)) unread.add(name); // before Redis 7: trimmed away, and now ours
    cursor = nextId;
  } while (cursor !== "0-0" && !stopping);
}

// Then new ones.
async function takeNew() {
  const wanted = [...streams].map((name) => ({ key: KEY_PREFIX + name, id: ">" }));
  const found = await reader.xReadGroup(GROUP, NAME, wanted, { COUNT, BLOCK: BLOCK_MS });
  for (const { name: key, messages } of found ?? []) {
    await take(key.slice(KEY_PREFIX.length), messages);
  }
}

async function round() {
  if (Date.now() >= lookAt) {
    await join();
    for (const name of streams) await claim(name);
    lookAt = Date.now() + LOOK_EVERY_MS;
  }
  for (const name of unread) await takeOwn(name);
  if (streams.size > 0) await takeNew();
  else await pause();
}

// Our name goes where nothing is pending under it; elsewhere its entries would go with it.
async function leave() {
  for (const name of streams) {
    const key = KEY_PREFIX + name;
    const mine = await redis.xPendingRange(key, GROUP, "-", "+", 1, { consumer: NAME });
    if (mine.length === 0) await redis.xGroupDelConsumer(key, GROUP, NAME);
  }
}

function pause() {
  return new Promise((resolve) => setTimeout(resolve, BLOCK_MS));
}

function told(error) {
  console.error(`${new Date().toISOString()} ${error.message}`);
}

await Promise.all([redis.connect(), reader.connect()]);
console.error(`${NAME} of ${GROUP} reads ${PATTERN}`);
while (!stopping) {
  try {
    await round();
  } catch (error) {
    // Redis was away, or a group is gone (NOGROUP): what we had in hand is settled, or pending.
    told(error);
    streams.clear();
    lookAt = 0;
    await pause();
  }
}
await leave().catch(told);
redis.destroy();
reader.destroy();
