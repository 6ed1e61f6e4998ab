-- Note that a claim ended in order: it does not count as a death.
-- KEYS  1 record
-- ARGV  1 claim token  2 `drain`, or `pause` where its provider asked for a long one
-- Reply 1 if noted, 0 if the log is closed or somebody else's by now.
local record = redis.call('HMGET', KEYS[1], 'state', 'token', 'handed_over')
if record[1] ~= 'running' or record[2] ~= ARGV[1] or record[3] == ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'handed_over', ARGV[1])
redis.call('HINCRBY', KEYS[1], 'handovers', 1)
if ARGV[2] == 'pause' then redis.call('HINCRBY', KEYS[1], 'pauses', 1) end
return 1
