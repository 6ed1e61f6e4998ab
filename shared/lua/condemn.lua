-- flags: allow-oom
-- End a log whose record cannot be read, by what the log alone says, and make the record readable.
-- KEYS  1 record  2 log
-- ARGV  1 r, drawn by the caller  2 head of the `failed` data: JSON up to and without `"prev"`
-- Reply 1 if the log is closed now, 0 if there is none.
-- What is kept of the record: whose it is, for which surface, when it was made, who held it. A key
-- of another type is left alone.
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
if not last then return 0 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local at = string.format('%.0f', now)
local epoch, state = string.match(last[1], '%d+'), last[2][2]
if state ~= 'done' and state ~= 'cancelled' and state ~= 'failed' then
  epoch, state = string.format('%.0f', math.max(epoch + 1, now) + ARGV[1]), 'failed'
  redis.call('XADD', KEYS[2], epoch .. '-0', 't', state, 'd', ARGV[2] .. '"prev":"' .. last[1] .. '"}')
end
if redis.call('TYPE', KEYS[1]).ok == 'hash' then
  local made = tonumber(redis.call('HGET', KEYS[1], 'created_at') or nil)
  if not (made and made >= 0 and made <= now) then made = now end
  redis.call('HDEL', KEYS[1], 'started_at', 'model', 'usage', 'reset_at', 'attempts', 'handovers', 'pauses',
    'failures', 'upstream_at')
  redis.call('HSET', KEYS[1], 'state', state, 'epoch', epoch, 'created_at', string.format('%.0f', made),
    'finished_at', at, 'deadline', at, 'request', '{}')
end
return 1
