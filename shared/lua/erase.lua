-- flags: allow-oom
-- Delete a generation: closed as cancelled if open, hidden at once, gone when followers saw the end.
-- KEYS  1 record  2 log
-- ARGV  1 r, drawn by the caller  2 head of the `cancelled` data, up to and without `"prev"`
--       3 ms until both keys go
-- Reply {erased | absent, owner token}
local record = redis.call('HMGET', KEYS[1], 'state', 'epoch', 'token', 'erased_at')
local state, token = record[1], record[3] or ''
if not state or record[4] then return {'absent', ''} end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
if last and (state == 'queued' or state == 'running') then
  local epoch = string.format('%.0f', math.max(record[2] + 1, now) + ARGV[1])
  redis.call('XADD', KEYS[2], epoch .. '-0', 't', 'cancelled', 'd', ARGV[2] .. '"prev":"' .. last[1] .. '"}')
  redis.call('HSET', KEYS[1], 'state', 'cancelled', 'epoch', epoch)
end
redis.call('HSET', KEYS[1], 'erased_at', string.format('%.0f', now))
redis.call('HDEL', KEYS[1], 'request')
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return {'erased', token}
