-- flags: allow-oom
-- End a log that is mine: its closing entry, the final state, the retention of both keys.
-- KEYS  1 record  2 log
-- ARGV  1 claim token  2 epoch  3 seq of the closing entry
--       4 type, which is also the final state  5 data  6 usage as JSON or ''
-- Reply as append: {state, 1 if the token is mine, epoch of the record, last id of the log}.
local record = redis.call('HMGET', KEYS[1], 'state', 'token', 'epoch', 'retention_ms')
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
if not record[1] or not last then return {'', 0, record[3] or '0', '0-0'} end
local mine = record[2] == ARGV[1]
last = last[1]
if record[1] == 'running' and mine and last == ARGV[2] .. '-' .. string.format('%.0f', ARGV[3] - 1) then
  local time = redis.call('TIME')
  last = ARGV[2] .. '-' .. ARGV[3]
  redis.call('XADD', KEYS[2], last, 't', ARGV[4], 'd', ARGV[5])
  redis.call('HSET', KEYS[1], 'state', ARGV[4], 'usage', ARGV[6],
    'finished_at', string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000)))
  redis.call('PEXPIRE', KEYS[1], record[4])
  redis.call('PEXPIRE', KEYS[2], record[4])
  record[1] = ARGV[4]
end
return {record[1], mine and 1 or 0, record[3], last}
