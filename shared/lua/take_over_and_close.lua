-- flags: allow-oom
-- End a log whoever holds it: a cancel, or a deadline that passed. One new epoch with one entry.
-- KEYS  1 record  2 log
-- ARGV  1 r, drawn by the caller  2 `now`, or `deadline` to act only if it passed by Redis' clock
--       3 type, which is also the final state
--       4 head of the data if the generation is queued: JSON up to and without `"prev"`
--       5 the same if it is running
--       6 epoch seen, to act only if nobody claimed it since; else ''
-- Reply {closed | open | absent, owner token, final or present state}; `closed` also if it was before.
local record = redis.call('HMGET', KEYS[1], 'state', 'epoch', 'token', 'erased_at', 'deadline', 'retention_ms')
local state, token = record[1], record[3] or ''
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
if not state or not last or record[4] then return {'absent', '', ''} end
if state ~= 'queued' and state ~= 'running' then return {'closed', token, state} end
if ARGV[6] ~= '' and record[2] ~= ARGV[6] then return {'open', token, state} end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[2] == 'deadline' and now < tonumber(record[5]) then return {'open', token, state} end
local epoch = string.format('%.0f', math.max(record[2] + 1, now) + ARGV[1])
local head = state == 'queued' and ARGV[4] or ARGV[5]
redis.call('XADD', KEYS[2], epoch .. '-0', 't', ARGV[3], 'd', head .. '"prev":"' .. last[1] .. '"}')
redis.call('HSET', KEYS[1], 'state', ARGV[3], 'epoch', epoch,
  'finished_at', string.format('%.0f', now))
redis.call('PEXPIRE', KEYS[1], record[6])
redis.call('PEXPIRE', KEYS[2], record[6])
return {'closed', token, ARGV[3]}
