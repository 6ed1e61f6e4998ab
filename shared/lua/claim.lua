-- Take a log over: compare-and-set on the epoch that the claimer saw.
-- KEYS  1 record  2 log
-- ARGV  1 epoch seen  2 claim token, never used before  3 r, drawn by the claimer
--       4 head of the `started` data: JSON up to and without `"prev"`  5 model
--       6 `reset` to make a client forget what earlier attempts said, else ''
-- Reply {claimed | absent | closed | moved, epoch, seq of the last entry written, ms until the deadline,
--        id of the upstream answer that the last owner left, position in it}; both '' where there is none
local record = redis.call('HMGET', KEYS[1], 'state', 'epoch', 'token', 'erased_at', 'started_at', 'timeout_ms', 'deadline',
  'upstream_id', 'upstream_at')
local state, held, token = record[1], record[2], record[3]
local run, at = record[8] or '', record[9] or ''
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
if not state or not last then return {'absent', '0', 0, 0, run, at} end
if record[4] or (state ~= 'queued' and state ~= 'running') then return {'closed', held, 0, 0, run, at} end
local last_seq = ARGV[6] == 'reset' and 1 or 0
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local deadline = record[7] + 0
-- The same claim sent twice: the first answer was lost on the way.
if token == ARGV[2] then return {'claimed', held, last_seq, deadline - now, run, at} end
if held ~= ARGV[1] then return {'moved', held, 0, 0, run, at} end

local epoch = string.format('%.0f', math.max(held + 1, now) + ARGV[3])
redis.call('HSET', KEYS[1], 'state', 'running', 'epoch', epoch, 'token', ARGV[2], 'model', ARGV[5])
redis.call('HINCRBY', KEYS[1], 'attempts', 1)
if not record[5] then
  deadline = now + record[6]
  redis.call('HSET', KEYS[1], 'started_at', string.format('%.0f', now),
    'deadline', string.format('%.0f', deadline))
end
redis.call('XADD', KEYS[2], epoch .. '-0', 't', 'started', 'd', ARGV[4] .. '"prev":"' .. last[1] .. '"}')
if ARGV[6] == 'reset' then
  redis.call('XADD', KEYS[2], epoch .. '-1', 't', 'reset', 'd', '{}')
  redis.call('HSET', KEYS[1], 'reset_at', epoch .. '-1')
end
return {'claimed', epoch, last_seq, deadline - now, run, at}
