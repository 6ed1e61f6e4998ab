-- flags: allow-oom
-- Write what a generation really cost, after somebody else closed its log. Never the log itself.
-- KEYS  1 record
-- ARGV  1 claim token of the attempt that knows  2 usage as JSON  3 1 if it is only an estimate
-- Reply 1 if written, 0 if the record is gone, open, or was claimed by another attempt since, or if
-- an estimate met a figure.
local record = redis.call('HMGET', KEYS[1], 'state', 'token', 'usage')
if record[1] ~= 'cancelled' and record[1] ~= 'failed' then return 0 end
if record[2] ~= ARGV[1] then return 0 end
if ARGV[3] == '1' and record[3] and record[3] ~= '' then return 0 end
redis.call('HSET', KEYS[1], 'usage', ARGV[2])
return 1
