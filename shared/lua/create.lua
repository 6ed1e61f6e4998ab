-- Create a generation: its record and the first entry of its log, or find the one that is there.
-- KEYS  1 record  2 log
-- ARGV  1 fingerprint of the request
--       2 r, drawn by the caller  3 queue time-out ms  4 generation time-out ms  5 retention ms
--       6… further fields of the record, name and value in turn
-- Reply {created | existing | conflict | gone, state}
local known = redis.call('HMGET', KEYS[1], 'fingerprint', 'state', 'erased_at')
if known[1] then
  if known[3] then return {'gone', known[2]} end
  if known[1] ~= ARGV[1] then return {'conflict', known[2]} end
  return {'existing', known[2]}
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local epoch = string.format('%.0f', now + ARGV[2])
local deadline = now + ARGV[3]
redis.call('HSET', KEYS[1],
  'fingerprint', ARGV[1], 'state', 'queued', 'epoch', epoch,
  'created_at', string.format('%.0f', now), 'deadline', string.format('%.0f', deadline),
  'timeout_ms', ARGV[4], 'retention_ms', ARGV[5], unpack(ARGV, 6))
redis.call('XADD', KEYS[2], epoch .. '-0', 't', 'queued', 'd', '{}')
-- One lifetime from the start, long enough for a generation that waits and runs to its limits.
local lifetime = string.format('%.0f', ARGV[3] + ARGV[4] + ARGV[5])
redis.call('PEXPIRE', KEYS[1], lifetime)
redis.call('PEXPIRE', KEYS[2], lifetime)
return {'created', 'queued'}
