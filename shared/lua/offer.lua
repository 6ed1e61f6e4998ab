-- Promise a job before its record exists: due in a moment, so that a crash in between loses nothing.
-- KEYS  1 queue  2 job
-- ARGV  1 job id  2 job as arq stores it  3 delay ms  4 lifetime of the job ms  5 longest queue
-- Reply 1 if the job is there now, 0 if the queue is full.
if redis.call('ZSCORE', KEYS[1], ARGV[1]) then return 1 end
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[5]) then return 0 end
local time = redis.call('TIME')
local due = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[3]
redis.call('ZADD', KEYS[1], string.format('%.0f', due), ARGV[1])
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[4])
return 1
