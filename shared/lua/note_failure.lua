-- Count an attempt that failed by itself: those are bounded apart from the deaths of workers.
-- KEYS  1 record
-- ARGV  1 claim token
-- Reply 1 if counted, 0 if the log is closed or somebody else's by now.
local record = redis.call('HMGET', KEYS[1], 'state', 'token')
if record[1] ~= 'running' or record[2] ~= ARGV[1] then return 0 end
redis.call('HINCRBY', KEYS[1], 'failures', 1)
return 1
